"""CoLAKE: do words and knowledge learnt together complete knowledge better? (Sun et al., 2020).

Sentences whose entities bring their facts along are trained as one graph, with words, entities and relations masked
alike. The encoder then says which relation holds between two entities of a sentence, for facts that no training text
states; beside it stand embeddings of the facts alone, embeddings of names, and the same encoder reading only words.
"""

from typing import Any

from prefect import flow
from pydantic import Field

from paperflows.flows.params import BySource, FlowParameters, Section
from paperflows.flows.registry import Paper
from paperflows.tasks import plots
from paperflows.tasks.claims import Claim, judge_claim
from paperflows.tasks.data import load_dataset
from paperflows.tasks.knowledge import Knowledge, complete_relations, time_graphs, train_knowledge
from paperflows.tasks.knowledge_baselines import train_relation_reader, train_triple_model
from paperflows.tasks.run import open_run
from paperflows.tasks.runner import runner


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


class Colake(FlowParameters):
    """Parameters of the flow `colake`."""

    graphs: BySource[str]
    encoder: str = Field(description="minilm, a folder or a Hugging Face id of a BERT")
    layers: int = Field(ge=1, le=48, description="Its first layers, in every encoder")
    encoders: dict[str, Knowledge] = Field(description="Name -> what it sees; `colake` is the paper's")
    training: Training
    triples: TripleTraining
    kinds: tuple[str, ...] = Field(min_length=1, description="Embeddings of facts: transe, distmult, complex, rotate")
    texts: int = Field(ge=1, description="Test texts of a held-out fact, at most")
    timing_repeats: int = Field(ge=3, description="Timed steps on graphs and on plain texts, in turns")
    resamples: int = Field(1000, ge=100, description="Bootstrap resamples of every verdict")


PAPER = Paper(
    slug="colake",
    title="CoLAKE: Contextualized Language and Knowledge Embedding",
    authors="Sun et al., COLING 2020",
    arxiv="2010.00309",
    parameters=Colake,
)


@flow(name="colake", timeout_seconds=7 * 24 * 3600, task_runner=runner())
def colake(params: Colake) -> dict[str, Any]:
    """Train encoders of words and knowledge and their baselines, and rank the relations of held-out facts."""
    with open_run("colake", PAPER.title, params) as found:
        data = load_dataset(params.data, params.graphs.of(params.data), ["text graph"])
        training, facts, device = params.training.model_dump(), params.triples.model_dump(), params.device
        trained = {
            name: [
                train_knowledge.submit(name, kind, data, params.encoder, params.layers, training, seed, device)
                for seed in params.seeds
            ]
            for name, kind in params.encoders.items()
        }
        readers = [
            train_relation_reader.submit(data, params.encoder, params.layers, training, params.texts, seed, device)
            for seed in params.seeds
        ]
        embedded = {
            kind + (" of names" if by_name else ""): [
                train_triple_model.submit(data, params.encoder, kind, by_name, facts, params.texts, seed, device)
                for seed in params.seeds
            ]
            for kind, by_name in [*((kind, False) for kind in params.kinds), (params.kinds[0], True)]
        }
        models = {name: [future.result() for future in by_seed] for name, by_seed in trained.items()}
        completed = {
            name + ("" if neighbours else ", text alone"): [
                complete_relations(
                    model, params.encoders[name], data, params.encoder, params.layers, neighbours, params.texts, device
                )
                for model in by_seed
            ]
            for name, by_seed in models.items()
            for neighbours in ((True, False) if name == "colake" else (True,))
        }
        completed["words"] = [future.result() for future in readers]
        completed |= {name: [future.result() for future in by_seed] for name, by_seed in embedded.items()}
        times = time_graphs(
            models["colake"][0], params.encoders["colake"], data, params.encoder, params.layers, training,
            params.timing_repeats, device,
        )  # fmt: skip
        found.claims = [judge_claim(claim, params.resamples) for claim in claims_of(params, completed, times)]
        found.datasets = {data["name"]: data["content"]}
        describe(found, params, data, models, completed)
    return found.report


def claims_of(params: Colake, completed: Any, times: Any) -> list[Claim]:
    """The paper's claims, and the question whether knowledge adds to words."""

    def better(identity: str, baseline: str, setting: str, statement: str, margin: float = 0.0) -> Claim:
        return Claim(
            id=f"{identity}_{setting}", statement=f"{setting}: {statement}", metric="MRR of the relation",
            ours=_outputs(completed["colake"]), baseline=_outputs(completed[baseline]), baseline_name=baseline,
            datasets=[setting], statistic="mean", margin=margin,
        )  # fmt: skip

    best = max(params.kinds, key=lambda kind: _mean([c["mrr"]["transductive"] for c in completed[kind]]))
    names = f"{params.kinds[0]} of names"
    claims = [
        better("beats_embeddings", best, "transductive", "CoLAKE beats the best embedding of facts by 0.05", 0.05),
        better("beats_names", names, "inductive", "CoLAKE beats embeddings of names by 0.1", 0.1),
        better("beats_words", "words", "transductive", "CoLAKE beats the encoder that reads only words"),
        better("beats_words", "words", "inductive", "CoLAKE beats the encoder that reads only words"),
        better("neighbours_help", "colake, text alone", "transductive", "The entities' other facts help"),
        *(
            better(f"beats_{name}", name, "transductive", f"The graph as it is beats {name}")
            for name in params.encoders
            if name != "colake"
        ),
    ]
    cost = Claim(
        id="overhead", statement="A step on graphs takes at most 25 % longer than on plain texts of as many tokens",
        metric="seconds a step, median", ours=[times["graphs"]], baseline=[times["words"]],
        baseline_name="plain texts", datasets=["seconds"], statistic="median", compare="ratio", margin=1.25,
        lower_is_better=True,
    )  # fmt: skip
    return [*claims, cost]


def describe(found: Any, params: Colake, data: Any, models: Any, completed: Any) -> None:
    """Metrics, plots and notes of the report."""
    for name, by_seed in completed.items():
        for setting in by_seed[0]["mrr"]:
            key = f"{setting}.{name.replace(',', '')}"
            found.metrics[f"mrr.{key}"] = _mean([c["mrr"][setting] for c in by_seed])
            found.metrics[f"hits1.{key}"] = _mean([c["hits"][setting] for c in by_seed])
    groups = {
        setting: {name: [c["mrr"][setting] for c in by_seed] for name, by_seed in completed.items()}
        for setting in completed["colake"][0]["mrr"]
    }
    found.draw["completion.png"] = lambda path: plots.draw_bars(groups, path, ylabel="MRR of the relation")
    curves = {
        name: [(p["step"], _mean([m["history"][i]["loss"] for m in by])) for i, p in enumerate(by[0]["history"])]
        for name, by in models.items()
    }
    found.draw["training.png"] = lambda path: plots.draw_lines(curves, path, xlabel="step", ylabel="training loss")
    found.model = f"the first {params.layers} layers of {params.encoder}"
    found.notes = [
        "Held-out facts are ranked in the texts that state them, other true relations of the same two entities left "
        "out; ties share the mean rank. Intervals resample facts, not texts. The best embedding of facts was chosen on "
        "the test facts themselves, in its favour.",
        "Embeddings of facts know nothing of an unseen entity: their inductive ranks are those of chance.",
    ]
    found.children = [
        (f"{name}-seed{seed}", {"method": name, "seed": seed}, model["history"])
        for name, by_seed in models.items()
        for seed, model in zip(params.seeds, by_seed, strict=True)
    ]
    found.keep = {"colake": models["colake"][0], "ranks": completed["colake"][0]}


def _outputs(by_seed: list[Any]) -> list[dict[str, str]]:
    return [{"path": one["path"], "sha256": one["sha256"]} for one in by_seed]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
