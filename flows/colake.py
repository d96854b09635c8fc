"""CoLAKE: do words and knowledge learnt together complete knowledge better? (Sun et al., 2020).

Sentences whose entities bring their facts along are trained as one graph, with words, entities and relations masked
alike. The encoder then says which relation holds between two entities of a sentence, and which entity is missing, for
facts that no training text states; beside it stand embeddings of the facts alone, readers of names, the same encoder
reading only words, and static injection of fact vectors. Last, all of them learn to tell relations from a few labels.
"""

from dataclasses import dataclass
from statistics import fmean
from typing import Any

from prefect import flow
from pydantic import Field

from paperflows.flows.params import BySource, FlowParameters, Section
from paperflows.flows.registry import Paper
from paperflows.tasks import plots
from paperflows.tasks.claims import Claim, judge_claim
from paperflows.tasks.data import load_dataset
from paperflows.tasks.knowledge import Knowledge, complete_ends, complete_relations, time_graphs, train_knowledge
from paperflows.tasks.knowledge_baselines import (
    Reading,
    complete_by_frequency,
    train_relation_reader,
    train_triple_model,
    train_words,
)
from paperflows.tasks.knowledge_probe import probe_facts, read_as_texts
from paperflows.tasks.relation_labels import classify_relations, join_sentences
from paperflows.tasks.run import open_run
from paperflows.tasks.runner import runner
from paperflows.tasks.similarity import score_transfer


class Training(Section):
    """One training of an encoder."""

    steps: int = Field(ge=1, description="Optimiser steps")
    batch_size: int = Field(ge=1, description="Texts a step")
    learning_rate: float = Field(gt=0, description="Highest")
    entity_rate: float = Field(gt=0, description="Of the entities' rows")
    negatives: int = Field(ge=1, description="Entities drawn as candidates beside a batch's own")


class TripleTraining(Section):
    """One training of embeddings of facts."""

    width: int = Field(ge=2, description="Numbers of an entity; complex ones count twice")
    steps: int = Field(ge=1, description="Optimiser steps")
    batch_size: int = Field(ge=1, description="Facts a step")
    learning_rate: float = Field(gt=0, description="Highest")
    margin: float = Field(ge=0, description="Added to distances")
    negatives: int = Field(ge=1, description="Corrupted copies of each fact")


class Labels(Section):
    """Relation classification with few labels."""

    sentences: int = Field(
        ge=1, description="Training sentences that are rows of the graph, at most; none of them is a labelled example"
    )
    shots: tuple[int, ...] = Field(min_length=1, description="Labelled sentences of each relation; 0 takes all")
    epochs: int = Field(ge=1, description="Passes over the labelled sentences")
    steps: int = Field(ge=1, description="Optimiser steps, at least")
    batch_size: int = Field(ge=1, description="Sentences a step")
    learning_rate: float = Field(gt=0, description="Highest; three times as high in the fresh classifier")
    evaluated: int = Field(ge=1, description="Test sentences, at most")


class Colake(FlowParameters):
    """Parameters of the flow `colake`."""

    graphs: BySource[str]
    labelled: BySource[str]
    encoder: str = Field(description="minilm, a folder or a Hugging Face id of a BERT")
    layers: int = Field(ge=1, le=48, description="Its first layers, in every encoder")
    encoders: dict[str, Knowledge] = Field(description="Name -> what it sees; `colake` is the paper's")
    training: Training
    triples: TripleTraining
    kinds: tuple[str, ...] = Field(min_length=1, description="Embeddings of facts: transe, distmult, complex, rotate")
    labels: Labels
    texts: int = Field(ge=1, description="Test texts of a held-out fact, at most, where its relation is ranked")
    end_texts: int = Field(
        ge=1, description="The same where its head and its tail are ranked, and where words are probed"
    )
    language: BySource[tuple[str, ...]] = Field(
        description="Classification of plain texts, by a logistic regression on frozen states; may be none"
    )
    language_examples: int = Field(ge=1, description="Training examples of each, at most")
    timing_repeats: int = Field(ge=3, description="Timed steps on graphs and on plain texts, in turns")
    resamples: int = Field(1000, ge=100, description="Bootstrap resamples of every verdict")


PAPER = Paper(
    slug="colake",
    title="CoLAKE: Contextualized Language and Knowledge Embedding",
    authors="Sun et al., COLING 2020",
    arxiv="2010.00309",
    parameters=Colake,
)


READERS = {"words": Reading(), "names": Reading(names=True), "static": Reading(inject=True)}
WAYS = {  # how CoLAKE ranks relations: with the entities' other facts, with unseen entities by their names
    "colake": (True, True), "colake, text alone": (False, True), "colake, mask row": (True, False),
}  # fmt: skip
CLASSIFIERS = {  # of relations, and the encoder that each tunes
    "colake": "colake", "colake, mask row": "colake", "no_facts": "no_facts", "words": "words", "static": "words",
}  # fmt: skip
ENDS = {  # what an encoder sees when it ranks heads and tails: the text, the other entities' facts
    "colake": (True, True), "colake, fact alone": (False, True), "colake, text alone": (True, False),
}  # fmt: skip


@flow(name="colake", timeout_seconds=7 * 24 * 3600, task_runner=runner())
def colake(params: Colake) -> dict[str, Any]:
    """Train encoders of words and knowledge and their baselines, complete held-out facts, and learn from few labels."""
    with open_run("colake", PAPER.title, params) as found:
        sets = [
            load_dataset(params.data, params.graphs.of(params.data), ["text graph"]),
            load_dataset(params.data, params.labelled.of(params.data), ["relation classification"]),
        ]
        plain = ["classification", "classification of a pair"]
        of_language = [load_dataset(params.data, name, plain) for name in params.language.of(params.data)]
        data = join_sentences(sets[0], sets[1], params.labels.sentences, params.labels.evaluated)
        training, facts, device = params.training.model_dump(), params.triples.model_dump(), params.device
        place = (data, params.encoder, params.layers)
        trained = {
            name: [train_knowledge.submit(name, kind, *place, training, seed, device) for seed in params.seeds]
            for name, kind in params.encoders.items()
        }
        trained["words"] = [train_words.submit(*place, training, seed, device) for seed in params.seeds]
        embedded = {
            kind + (" of names" if by_name else ""): [
                train_triple_model.submit(
                    data, params.encoder, kind, by_name, facts, params.texts, params.end_texts, seed, device
                ).result()
                for seed in params.seeds
            ]
            for kind, by_name in [*((kind, False) for kind in params.kinds), (params.kinds[0], True)]
        }
        vectors = [one["relations"] for one in embedded[params.kinds[0]]]
        readers = {
            name: [
                train_relation_reader.submit(
                    name, reading, *place, training, of_seed if reading.inject else None, params.texts, seed, device
                )
                for seed, of_seed in zip(params.seeds, vectors, strict=True)
            ]
            for name, reading in READERS.items()
        }
        # all that was submitted ends before anything runs here: two models must not be made at once in one process
        models = {name: [future.result() for future in by_seed] for name, by_seed in trained.items()}
        read = {name: [future.result() for future in by_seed] for name, by_seed in readers.items()}
        completed = {
            way: [
                complete_relations(model, kind, *place, neighbours, named, params.texts, device)
                for model in models[name]
            ]
            for name, kind in params.encoders.items()
            if kind.share  # else no relation was ever a node of training
            for way, (neighbours, named) in (WAYS if name == "colake" else {name: (True, True)}).items()
        }
        completed["relation frequency"] = [complete_by_frequency(data, params.encoder, params.texts)]
        completed |= read | {name: [one["relations"] for one in by_seed] for name, by_seed in embedded.items()}
        ends = {
            name: [complete_ends(model, *place, *sees, params.end_texts, device) for model in models["colake"]]
            for name, sees in ENDS.items()
        } | {name: [one["ends"] for one in by_seed] for name, by_seed in embedded.items()}
        classified: dict[tuple[str, int], list[Any]] = {
            (name, shots): [
                classify_relations(
                    name, models[of][i], of in params.encoders, name != "colake, mask row", *place,
                    vectors[i] if name == "static" else None, shots, _tuning(params.labels), seed, device,
                )
                for i, seed in enumerate(params.seeds)
            ]
            for shots in params.labels.shots
            for name, of in CLASSIFIERS.items()
            if of in models
        }  # fmt: skip
        probed: dict[str, list[Any]] = {
            name: [probe_facts(model, name != "words", *place, params.end_texts, device) for model in models[name]]
            for name in ("colake", "no_facts", "words")
            if name in models
        }
        language = probe_language(params, place, models, of_language)
        times = time_graphs(
            models["colake"][0], params.encoders["colake"], *place, training, params.timing_repeats, device
        )
        results = Results(completed=completed, ends=ends, classified=classified, probed=probed, language=language)
        found.claims = [judge_claim(claim, params.resamples) for claim in claims_of(params, results, times)]
        found.datasets = {one["name"]: one["content"] for one in [*sets, *of_language]}
        describe(found, params, models, results)
    return found.report


def probe_language(params: Colake, place: Any, models: Any, datasets: list[Any]) -> dict[str, list[Any]]:
    """Probes on plain texts of the encoder before training, and of those trained on graphs and on words."""
    if not datasets:
        return {}
    read_as: dict[str, list[Any]] = {"start": [(None, False)]}
    read_as |= {name: [(model, name != "words") for model in models[name]] for name in ("colake", "words")}
    examples, device = params.language_examples, params.device
    return {
        name: [
            score_transfer(read_as_texts(*model, *place, name), datasets, "mean", 128, name, device, examples)
            for model in by_seed
        ]
        for name, by_seed in read_as.items()
    }


@dataclass(frozen=True)
class Results:
    """What was measured, by method (and shots), a list by seed each."""

    completed: dict[str, list[Any]]
    ends: dict[str, list[Any]]
    classified: dict[tuple[str, int], list[Any]]
    probed: dict[str, list[Any]]
    language: dict[str, list[Any]]


def claims_of(params: Colake, results: Results, times: Any) -> list[Claim]:
    """The paper's claims, and the question whether knowledge adds to words."""
    completed, ends, classified = results.completed, results.ends, results.classified

    def better(
        identity: str, ours: list[Any], baseline: list[Any], name: str, on: str, statement: str, metric: str,
        margin: float = 0.0,
    ) -> Claim:  # fmt: skip
        return Claim(
            id=identity, statement=statement, metric=metric, ours=ours, baseline=baseline,
            baseline_name=name, datasets=[on], statistic="mean", margin=margin,
        )  # fmt: skip

    def relation(identity: str, baseline: str, setting: str, statement: str, margin: float = 0.0) -> Claim:
        return better(
            f"{identity}_{setting}", completed["colake"], completed[baseline], baseline, setting,
            f"{setting}: {statement}", "MRR of the relation", margin,
        )  # fmt: skip

    def best(of: dict[str, list[Any]], names: Any, setting: str) -> str:
        return str(max(names, key=lambda name: fmean([c["mrr"][setting] for c in of[name]])))

    of_names = f"{params.kinds[0]} of names"
    facts, names = (
        best(completed, params.kinds, "transductive"), best(completed, (of_names, "names"), "inductive")
    )  # fmt: skip
    claims = [
        relation("beats_embeddings", facts, "transductive", "CoLAKE beats the best embedding of facts by 0.05", 0.05),
        relation("beats_names", names, "inductive", "CoLAKE beats the best reader of names by 0.1", 0.1),
        *(
            relation(f"beats_{name}", name, setting, f"CoLAKE beats the encoder that reads {reads}")
            for name, reads in (("words", "only words"), ("static", "words with kept fact vectors added"))
            for setting in ("transductive", "inductive")
        ),
        relation("neighbours_help", "colake, text alone", "transductive", "The entities' other facts help"),
        *(
            relation(f"beats_{name}", name, "transductive", f"The graph as it is beats {name}")
            for name in params.encoders
            if name != "colake" and name in completed
        ),
    ]
    for setting, name in (
        ("tail transductive", best(ends, params.kinds, "tail transductive")), ("tail inductive", of_names)
    ):  # fmt: skip
        claims.append(
            better(
                f"beats_embeddings_{setting.replace(' ', '_')}",
                ends["colake"],
                ends[name],
                name,
                setting,
                f"{setting}: CoLAKE ranks the missing tail higher than {name}",
                "MRR of the tail",
            )
        )
    claims += [
        better(
            f"tail_{what}_helps",
            ends["colake"],
            ends[without],
            without,
            "tail",
            f"A masked tail is found first more often with {what} than without",
            "hits@1 of the tail",
        )
        for what, without in (("text", "colake, fact alone"), ("neighbours", "colake, text alone"))
    ]
    claims += [
        Claim(
            id=f"labels{shots or '_all'}_beats_{name}",
            metric="macro F1",
            baseline_name=name,
            statistic="macro_f1",
            statement=f"With {shots or 'all'} labels a relation, CoLAKE classifies better than {reads}",
            ours=[one["outputs"] for one in classified["colake", shots]],
            baseline=[one["outputs"] for one in classified[name, shots]],
            gold=classified[name, shots][0]["gold"],
            datasets=["labels"],
        )
        for shots in params.labels.shots
        for name, reads in (("words", "the encoder trained on the words alone"), ("static", "static injection"))
    ]
    claims.append(
        better(
            "words_recall_facts",
            results.probed["colake"],
            results.probed["words"],
            "words",
            "facts",
            "Without any entity in the input, CoLAKE's words recall facts of training better than those of an encoder "
            "trained on the words alone",
            "P@1 of a masked word",
        )
    )
    claims += [
        better(
            f"language_kept_{name}", results.language["colake"], results.language["start"] * len(params.seeds),
            "before training", name,
            f"{name}: a probe of the trained encoder is at most 1 point behind that of the encoder before", "accuracy",
            -0.01,
        )
        for name in (results.language["start"][0]["metrics"] if results.language else ())
    ]  # fmt: skip
    cost = Claim(
        id="overhead", statement="A step on graphs takes at most 25 % longer than on plain texts of as many tokens",
        metric="seconds a step, median", ours=[times["graphs"]], baseline=[times["words"]],
        baseline_name="plain texts", datasets=["seconds"], statistic="median", compare="ratio", margin=1.25,
        lower_is_better=True,
    )  # fmt: skip
    return [*claims, cost]


def describe(found: Any, params: Colake, models: Any, results: Results) -> None:
    """Metrics, plots and notes of the report."""
    for prefix, by_method in (("", results.completed), ("", results.ends)):
        for name, by_seed in by_method.items():
            for setting in by_seed[0]["mrr"]:
                key = f"{prefix}{setting.replace(' ', '.')}.{name.replace(',', '')}"
                found.metrics[f"mrr.{key}"] = fmean([c["mrr"][setting] for c in by_seed])
                found.metrics[f"hits1.{key}"] = fmean([c["hits"][setting] for c in by_seed])
    for (name, shots), by_seed in results.classified.items():
        found.metrics[f"macro_f1.{shots or 'all'}.{name.replace(',', '')}"] = fmean([c["macro_f1"] for c in by_seed])
    for name, by_seed in results.probed.items():
        found.metrics[f"recalled.{name}"] = fmean([c["hits"] for c in by_seed])
    for name, by_seed in results.language.items():
        for on in by_seed[0]["metrics"]:
            found.metrics[f"language.{on}.{name}"] = fmean([c["metrics"][on] for c in by_seed])
    for file, by_method, ylabel in (
        ("completion.png", results.completed, "MRR of the relation"), ("ends.png", results.ends, "MRR of the end")
    ):  # fmt: skip
        groups = {
            setting: {name: [c["mrr"][setting] for c in by_seed] for name, by_seed in by_method.items()}
            for setting in by_method["colake"][0]["mrr"]
        }
        found.draw[file] = _bars(groups, ylabel)
    labelled = {
        f"{k or 'all'} labels": {
            name: [c["macro_f1"] for c in by] for (name, of), by in results.classified.items() if of == k
        }
        for k in params.labels.shots
    }
    found.draw["labels.png"] = _bars(labelled, "macro F1 of relations")
    curves = {
        name: [(p["step"], fmean([m["history"][i]["loss"] for m in by])) for i, p in enumerate(by[0]["history"])]
        for name, by in models.items()
    }
    found.draw["training.png"] = lambda path: plots.draw_lines(curves, path, xlabel="step", ylabel="training loss")
    found.model = f"the first {params.layers} layers of {params.encoder}"
    found.notes = [
        "Held-out facts are ranked in the texts that state them, other right answers left out; ties share the mean "
        "rank. Intervals resample facts, not texts. The best embedding of facts and the better reader of names were "
        "chosen on the test facts themselves, in their favour.",
        "Embeddings of facts know nothing of an unseen entity: their inductive ranks are those of chance. To CoLAKE, "
        "whose anchors take the place of names, an unseen entity is the mean embedding of its name's pieces; in the "
        "paper it is the mask's row (`colake mask row`).",
        "At equal steps a reader of words is taught the relation of two mentions by every example, CoLAKE by those of "
        "its masked relation nodes that stand between two entities of the text: most facts that an entity brings are "
        "about others.",
        f"{params.labels.sentences} sentences at most, half of each relation's, are rows of the graph, each with the "
        "fact that its label states (none about two entities of a labelled or a test sentence): CoLAKE and static "
        "injection have read the relations as facts, as the paper's FewRel relations are Wikidata's; `words` has read "
        "the same sentences, `no_facts` the same graphs without a relation. Test sentences bring two entity nodes and "
        "no fact.",
        "Language kept: a logistic regression on the mean state of plain texts, of pairs on the difference and product "
        f"of both, learns from the first {params.language_examples} training examples; it chooses its strength on "
        "validation examples, or a tenth of training's. `words` is trained on the same sentences without a graph."
        if results.language
        else "",
        "All classifiers of relations are equal and fresh, over the states of the sentence and of both entities; the "
        "paper reads the sentence's state alone and starts from the relation rows of the labels. To `colake mask row` "
        "every unseen entity is the mask's row, the same mark at both mentions.",
    ]
    found.children = [
        (f"{name}-seed{seed}", {"method": name, "seed": seed}, model["history"])
        for name, by_seed in models.items()
        for seed, model in zip(params.seeds, by_seed, strict=True)
    ]
    found.keep = {"colake": models["colake"][0], "ranks": results.completed["colake"][0]}


def _bars(groups: Any, ylabel: str) -> Any:
    return lambda path: plots.draw_bars(groups, path, ylabel=ylabel)


def _tuning(labels: Labels) -> dict[str, Any]:
    return labels.model_dump(include={"epochs", "steps", "batch_size", "learning_rate"})
