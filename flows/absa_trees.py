"""ABSA trees: does an aspect-sentiment model need a parser? (Dai et al., 2021).

Trees are induced from a pretrained and from a fine-tuned encoder by perturbed masking, and compared with a parser's,
with chains and with random trees: by their distance between aspects and sentiment words, on a gold treebank, and by
what models that read them make of them. Those read single words, which know nothing of their sentence, as in the
papers, and again the states of the fine-tuned encoder, where the pure encoder with an MLP reads no tree.
"""

from typing import Any

from prefect import flow
from pydantic import Field

from paperflows.flows.params import FlowParameters, Section
from paperflows.flows.registry import Paper
from paperflows.tasks import aspects as absa
from paperflows.tasks import plots, syntax
from paperflows.tasks.claims import Claim, judge_claim
from paperflows.tasks.data import load_dataset
from paperflows.tasks.decisions import share_changed
from paperflows.tasks.run import open_run
from paperflows.tasks.runner import runner
from paperflows.tasks.store import GOLD, GROUPS


class Corpora(Section):
    """Names of datasets by their part in the flow."""

    aspects: tuple[str, ...] = Field(min_length=1, description="Aspect sentiment")
    treebank: str = Field(description="Tagging with heads; trains the parser, and its test split checks all trees")


class Datasets(Section):
    """Which names are read from which source."""

    builtin: Corpora = Field(description="Read when data is builtin")
    folder: Corpora = Field(description="Read when data is a folder")


class Sentences(Section):
    """How many sentences of each split get trees; all training aspects fine-tune the encoder."""

    train: int = Field(ge=2, description="Training sentences")
    validation: int = Field(ge=2, description="Validation sentences")
    test: int = Field(ge=2, description="Test sentences")


class Induction(Section):
    """Trees from perturbed masking."""

    layer: int = Field(ge=1, description="Whose states are compared")
    decoder: str = Field("mst", pattern="^(mst|projective)$", description="Chu-Liu/Edmonds, or Eisner")
    treebank_sentences: int = Field(ge=2, description="Sentences of the treebank that trees are checked on, at random")


class FineTuning(Section):
    """The pure encoder with an MLP, end to end."""

    steps: int = Field(ge=1, description="Optimiser steps")
    batch_size: int = Field(ge=1, description="Aspects a step")
    learning_rate: float = Field(gt=0, description="Highest")
    evaluations: int = Field(ge=1, description="How often validation is scored; the best weights are kept")


class Parser(Section):
    """The biaffine parser."""

    hidden: int = Field(ge=8, description="Width")
    sentences: int = Field(ge=2, description="Training sentences, at random")
    steps: int = Field(ge=1, description="Optimiser steps")
    batch_size: int = Field(ge=1, description="Sentences a step")
    learning_rate: float = Field(gt=0, description="Highest")


class Classifiers(Section):
    """The models that read trees, and the MLP: a BiLSTM over word embeddings, or on the states of the encoder."""

    models: tuple[str, ...] = Field(min_length=1, description="Of asgcn, pwcn, rgat")
    hidden: int = Field(ge=8, multiple_of=4, description="Width")
    steps: int = Field(ge=1, description="Optimiser steps")
    batch_size: int = Field(ge=1, description="Aspects a step")
    learning_rate: float = Field(gt=0, description="Highest")
    evaluations: int = Field(ge=1, description="How often validation is scored; the best weights are kept")


class AbsaTrees(FlowParameters):
    """Parameters of the flow `absa_trees`."""

    datasets: Datasets
    encoder: str = Field(description="minilm, a folder or a Hugging Face id")
    max_words: int = Field(ge=4, description="Sentences with more words are left out")
    sentences: Sentences
    induction: Induction
    finetuning: FineTuning
    parser: Parser
    classifiers: Classifiers
    resamples: int = Field(1000, ge=100, description="Bootstrap resamples of every verdict")


PAPER = Paper(
    slug="absa_trees",
    title="Does Syntax Matter? A Strong Baseline for Aspect-based Sentiment Analysis with RoBERTa",
    authors="Dai et al., NAACL 2021",
    arxiv="2104.04986",
    parameters=AbsaTrees,
)

CONTROLS = ("left_chain", "random")  # all measures are undirected: a right chain is a left one
FEATURES = ("words", "states")  # the encoder's input embeddings under a BiLSTM; the fine-tuned encoder's last states
ON_STATES = ("finetuned", "parser", "random")  # trees whose models read states too
TIE = 0.01  # macro-F1 by which one system may be behind another and still count as tied


@flow(name="absa_trees", timeout_seconds=24 * 3600, task_runner=runner())
def absa_trees(params: AbsaTrees) -> dict[str, Any]:
    """Induce, parse and compare trees, train what reads them, and judge the paper's claims."""
    with open_run("absa_trees", PAPER.title, params) as found:
        names = params.datasets.builtin if params.data == "builtin" else params.datasets.folder
        data = [load_dataset(params.data, name, ["aspect sentiment"]) for name in names.aspects]
        treebank = load_dataset(params.data, names.treebank, ["tagging"])
        p, f = params.parser, params.finetuning
        parser = syntax.train_parser(
            treebank, params.encoder, p.hidden, p.steps, p.batch_size, p.learning_rate, p.sentences, 0, params.device
        )

        gold_sentences = syntax.collect_treebank(treebank, params.max_words, params.induction.treebank_sentences)
        trees = {"pretrained": induce(params, gold_sentences, params.encoder, "treebank")}
        trees |= others(params, gold_sentences, parser)
        attachment = {kind: syntax.compare_with_gold(gold_sentences, tree, kind) for kind, tree in trees.items()}

        aspects, tuned, measured, scores = {}, {}, {}, {}
        for dataset in data:
            name = dataset["name"]
            aspects[name] = absa.collect_aspects(dataset, params.max_words, params.sentences.model_dump())
            tuned[name] = absa.finetune_aspect_encoder(
                aspects[name], params.encoder, f.steps, f.batch_size, f.learning_rate, f.evaluations, 0, params.device
            )
            trees = {"finetuned": induce(params, aspects[name], tuned[name], name)}
            trees |= {"pretrained": induce(params, aspects[name], params.encoder, name)}
            trees |= others(params, aspects[name], parser)
            measured[name] = {kind: absa.measure_trees(aspects[name], tree, kind) for kind, tree in trees.items()}
            scores[name] = classify(params, aspects[name], tuned[name], trees)

        gold, sentences = (absa.merge_datasets(list(aspects.values()), file) for file in (GOLD, GROUPS))
        tree_claims = [*distance_claims(measured), *treebank_claims(attachment)]
        claims = [*tree_claims, *score_claims(params, scores, gold, sentences)]
        found.claims = [judge_claim(claim, params.resamples) for claim in claims]
        found.datasets = {d["name"]: d["content"] for d in [*data, treebank]}
        describe(found, params, aspects, tuned, measured, attachment, scores)
        found.keep = {"parser": parser, **{f"encoder-{name}": model for name, model in tuned.items()}}
    return found.report


def induce(params: AbsaTrees, sentences: Any, model: Any, label: str) -> Any:
    """Trees of an encoder's impact matrices."""
    i, kind = params.induction, "pretrained" if isinstance(model, str) else "finetuned"
    return syntax.induce_trees(sentences, model, i.layer, i.decoder, f"{kind}-{label}", params.device)


def others(params: AbsaTrees, sentences: Any, parser: Any) -> dict[str, Any]:
    """The parser's trees, and those that know nothing."""
    controls = {kind: syntax.control_trees(sentences, kind, 0) for kind in CONTROLS}
    return {"parser": syntax.parse_sentences(sentences, parser, params.encoder, params.device), **controls}


def classify(params: AbsaTrees, aspects: Any, encoder: Any, trees: dict[str, Any]) -> dict[str, Any]:
    """`FEATURES.mlp` and `FEATURES.MODEL.TREE`: name -> one result a seed."""
    c, found = params.classifiers, {}
    inputs = {
        "words": absa.embed_aspects(aspects, params.encoder, params.device),
        "states": absa.encode_aspects(aspects, encoder, params.device),
    }
    for features in FEATURES:
        kinds = trees if features == "words" else ON_STATES
        pairs = [("mlp", "left_chain"), *((model, kind) for model in c.models for kind in kinds)]
        for model, kind in pairs:
            system = f"{features}.mlp" if model == "mlp" else f"{features}.{model}.{kind}"
            found[system] = absa.train_aspect_models(
                aspects, inputs[features], trees[kind], model, f"{system}-{aspects['name']}", c.hidden, c.steps,
                c.batch_size, c.learning_rate, c.evaluations, features == "words", list(params.seeds), params.device,
            )  # fmt: skip
    return found


def distance_claims(measured: dict[str, Any]) -> list[Claim]:
    """Fine-tuned trees bring aspects nearer to sentiment words than pretrained trees and chains do."""
    sentences = absa.merge_datasets([m["finetuned"] for m in measured.values()], GROUPS)

    def claim(kind: str) -> Claim:
        return Claim(
            id=f"finetuned_nearer_than_{kind}", statement=f"Aspects are nearer to sentiment words in fine-tuned trees "
            f"than in {kind.replace('_', ' ')} trees", metric="minus aspects-sentiment distance", statistic="mean",
            ours=[absa.merge_datasets([m["finetuned"] for m in measured.values()])],
            baseline=[absa.merge_datasets([m[kind] for m in measured.values()])],
            baseline_name=kind.replace("_", " "), datasets=list(measured), groups=sentences,
        )  # fmt: skip

    return [claim(kind) for kind in ("pretrained", "left_chain", "random")]


def treebank_claims(attachment: dict[str, Any]) -> list[Claim]:
    """What induced trees and the parser know of gold syntax."""

    def claim(ours: str, baseline: str) -> Claim:
        return Claim(
            id=f"{ours}_trees_beat_{baseline}", statement=f"{ours.capitalize()} trees hold more gold edges than "
            f"{baseline.replace('_', ' ')} trees", metric="undirected attachment score", ours=[attachment[ours]],
            baseline=[attachment[baseline]], baseline_name=baseline.replace("_", " "), datasets=["treebank"],
            statistic="mean",
        )  # fmt: skip

    return [claim("pretrained", "random"), claim("pretrained", "left_chain"), claim("parser", "left_chain")]


def score_claims(params: AbsaTrees, scores: dict[str, Any], gold: Any, sentences: Any) -> list[Claim]:
    """Fine-tuned trees are best or tied for each model, and the MLP is not behind them."""

    def by_seed(system: str) -> list[Any]:
        return [absa.merge_datasets([s[system][i] for s in scores.values()]) for i in range(len(params.seeds))]

    def claim(identity: str, statement: str, ours: str, baseline: str) -> Claim:
        return Claim(
            id=identity, statement=statement, metric="macro-F1", statistic="macro_f1", datasets=list(scores), gold=gold,
            groups=sentences, ours=by_seed(ours), baseline=by_seed(baseline), margin=-TIE,
            baseline_name=baseline.split(".", 1)[1].replace(".", " on ").replace("_", " "),
        )  # fmt: skip

    found = []
    for model in params.classifiers.models:
        for kind in ("pretrained", "parser", *CONTROLS):
            statement = f"{model.upper()} on fine-tuned trees is at least tied with {kind.replace('_', ' ')} trees"
            identity = f"{model}_tied_with_{kind}"
            found.append(claim(identity, statement, f"words.{model}.finetuned", f"words.{model}.{kind}"))
        for kind, whose in (("finetuned", "fine-tuned"), ("parser", "the parser's")):
            statement = f"On states tuned with an MLP, an MLP is at least tied with {model.upper()} on {whose} trees"
            found.append(claim(f"mlp_tied_with_{model}_{kind}", statement, "states.mlp", f"states.{model}.{kind}"))
    return found


def describe(
    found: Any, params: AbsaTrees, aspects: Any, tuned: Any, measured: Any, attachment: Any, scores: Any
) -> None:
    """Metrics, notes and plots of the report."""
    found.metrics |= {f"treebank.uuas.{kind}": a["mean"] for kind, a in attachment.items()}
    for name in scores:
        found.metrics |= {f"{name}.{key}": float(value) for key, value in aspects[name]["counts"].items()}
        found.metrics[f"{name}.finetuning.validation_f1"] = tuned[name]["score"]
        found.metrics |= {f"{name}.{score}.end_to_end": value for score, value in tuned[name]["test"].items()}
        for kind, m in measured[name].items():
            found.metrics |= {f"{name}.{what}.{kind}": m[what] for what in ("asd", "asd_ratio", "neighbours")}
        for system, results in scores[name].items():
            for score in ("f1", "accuracy"):
                found.metrics[f"{name}.{score}.{system}"] = sum(r[score] for r in results) / len(results)
        for model in (f"{features}.{m}" for features in FEATURES for m in params.classifiers.models):
            ours, *rest = [results for system, results in scores[name].items() if system.startswith(f"{model}.")]
            found.metrics[f"{name}.changed_by_tree.{model}"] = share_changed(ours, rest)
    found.model = f"{params.encoder}, states of layer {params.induction.layer}; trees by {params.induction.decoder}"
    found.notes = [
        "Aspects-sentiment distance (`asd`): edges between an aspect's words and words of the VADER lexicon, mean over "
        "them. Flat trees have small distances to every word: `asd_ratio` is `asd` over the distance to all other "
        "words, below 1 where sentiment words are nearer than others are.",
        "`words`: classifiers read the input embeddings of the encoder through a BiLSTM, as the papers' models read "
        "GloVe; `words.mlp` is the same without a tree. `states`: all read the same frozen last states of one encoder "
        "a dataset, fine-tuned with an MLP on all training aspects that are not left out. Classifiers are trained on "
        "the aspects whose sentences have trees (`train.with_trees`); seeds differ in them only: there is one "
        "fine-tuning, one parser and one random tree a sentence. Aspects of one sentence are resampled together.",
        "That the encoder was tuned with an MLP favours the MLP on its states: no model with trees was tuned end to "
        "end with its encoder, as the paper's are.",
        "`end_to_end` is the pure encoder with its own MLP, trained once on all training aspects that are not left "
        "out, on the same test aspects.",
        "`changed_by_tree` is the share of a model's decisions on fine-tuned trees that other trees change (on "
        "states: the parser's and random ones). States of an encoder that was fine-tuned on the aspect hold its "
        "sentiment at every word, so that there is little for a tree to change.",
        f"Sentences of more than {params.max_words} words are left out. `tied`: at most {TIE} macro-F1 behind.",
    ]
    found.children = [(model["name"], {"dataset": name}, model["history"]) for name, model in tuned.items()]
    distance = {name: {kind: [m["asd"]] for kind, m in kinds.items()} for name, kinds in measured.items()}
    f1 = {name: {s: [r["f1"] for r in results] for s, results in systems.items()} for name, systems in scores.items()}
    found.draw["distance.png"] = lambda path: plots.draw_bars(distance, path, ylabel="aspects-sentiment distance")
    found.draw["f1.png"] = lambda path: plots.draw_bars(f1, path, ylabel="macro-F1")
