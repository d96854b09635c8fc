"""CLAIF: improving contrastive learning of sentence embeddings from AI feedback (Cheng et al., 2023).

A writer makes pairs of graded similarity from unlabelled sentences, a judge scores them, and a student learns the
scores (CLAIF); human NLI pairs get the judge's scores as soft targets (CLHAIF). Both against what the paper compares
with, from the same start, for the same steps, with the learning rate of each chosen on the same validation pairs.
"""

from itertools import product
from statistics import fmean
from typing import Any

from prefect import flow, unmapped
from pydantic import Field

from paperflows.flows.params import BySource, FlowParameters, Section
from paperflows.flows.registry import Paper
from paperflows.tasks import plots
from paperflows.tasks.annotate import annotate_pairs, gold_pairs, harden_labels
from paperflows.tasks.annotators import Annotator
from paperflows.tasks.claims import Claim, PaperFigure, judge_claim
from paperflows.tasks.data import collect_sentences, keep_first, load_dataset
from paperflows.tasks.encoders import train_sentence_encoder
from paperflows.tasks.masked_lm import fetch_masked_lm, train_masked_lm
from paperflows.tasks.run import open_run
from paperflows.tasks.runner import runner
from paperflows.tasks.similarity import gold_similarity, score_similarity, score_transfer
from paperflows.tasks.triplets import score_triplets


class Corpora(Section):
    """Names of datasets by their part in the flow."""

    unlabelled: tuple[str, ...] = Field(min_length=1, description="Sentences of their train splits, labels unread")
    validation: str = Field(description="Pair regression; its validation split picks checkpoints and learning rates")
    similarity: tuple[str, ...] = Field(min_length=1, description="Pair regression, scored in the 'all' setting")
    nli: str = Field(description="Classification of pairs: entailment, neutral, contradiction")
    transfer: tuple[str, ...] = Field((), description="Classification, by a logistic regression on frozen embeddings")


class Student(Section):
    """The BERT that every method starts from: a small one trained in the flow as a masked LM, or a pretrained one."""

    model: str = Field(
        "tiny",
        description="tiny: trained in the flow by the fields below; else a folder or Hugging Face id of a masked LM",
    )
    width: int = Field(ge=8, le=4096, description="Hidden size")
    layers: int = Field(ge=1, le=48, description="Transformer layers")
    heads: int = Field(ge=1, le=64, description="Attention heads")
    vocab_size: int = Field(ge=100, le=100_000, description="WordPiece vocabulary, learnt from the sentences")
    max_length: int = Field(ge=8, le=512, description="Tokens kept of a sentence")
    steps: int = Field(ge=1, description="Masked-LM steps")
    batch_size: int = Field(ge=1, description="Sentences a masked-LM step")
    learning_rate: float = Field(gt=0, description="Of the masked-LM training")


class Training(Section):
    """One method's training; the same budget for all."""

    steps: int = Field(ge=1, description="Optimiser steps")
    batch_size: int = Field(ge=2, description="Pairs or triplets a step")
    evaluations: int = Field(
        ge=1, description="How often a training is scored on validation; the best weights are kept"
    )
    learning_rates: tuple[float, ...] = Field(min_length=1, description="Tried with the first seed; validation chooses")
    temperature: float = Field(0.05, gt=0, description="tau of the contrastive losses")
    pooling: str = Field("mean", pattern="^(mean|cls)$", description="mean over tokens, or the first token")
    smooth: str = Field(
        "all", pattern="^(all|positive)$", description="Where CLHAIF puts 1 - s: all others, or nowhere"
    )


class Annotation(Section):
    """The AI feedback."""

    writer: Annotator = Field(description="Writes the second sentence of a pair")
    judge: Annotator = Field(description="Scores pairs in [0, 1]")
    rates: tuple[float, ...] = Field(
        min_length=1, description="Shares of words replaced by masks; 0 asks for a paraphrase"
    )
    sentences: int = Field(ge=1, description="Sentences annotated, each at every rate")
    triplets: int = Field(ge=1, description="NLI triplets scored and trained on")
    identity_share: float = Field(ge=0, le=1, description="Identical pairs (similarity 1) added, of the written pairs")
    random_share: float = Field(ge=0, le=1, description="Random pairs (similarity 0) added, of the written pairs")
    hard_thresholds: tuple[float, float] = Field(
        description="Below: label 0; between: 0.5; above: 1 (the DINO-like baseline)"
    )


class Claif(FlowParameters):
    """Parameters of the flow `claif`."""

    datasets: BySource[Corpora]
    student: Student
    training: Training
    annotation: Annotation
    max_words: int = Field(ge=1, description="Longer unlabelled sentences are left out")
    max_sentences: int = Field(ge=1, description="Unlabelled sentences kept")
    max_rows: int | None = Field(None, ge=1, description="Rows of a split validated or scored on at most; empty: all")
    transfer_limit: int = Field(ge=1, description="Training examples a transfer task may use")
    resamples: int = Field(1000, ge=100, description="Bootstrap resamples of every verdict")


PAPER = Paper(
    slug="claif",
    title="Improving Contrastive Learning of Sentence Embeddings from AI Feedback",
    authors="Cheng et al., Findings of ACL 2023",
    arxiv="2305.01918",
    parameters=Claif,
)

METHODS = {"claif": "regression", "hard_labels": "regression", "simcse": "dropout", "simcse_nli": "triplets"}
METHODS |= {"clhaif": "scored_triplets", "supervised": "regression"}
HEADLINE = "README of the official repository, average of STS12-16, STS-B, SICK-R, bert-base"


@flow(name="claif", timeout_seconds=24 * 3600, task_runner=runner())
def claif(params: Claif) -> dict[str, Any]:
    """Train CLAIF, CLHAIF and their baselines on your sentences, and judge the paper's claims on similarity pairs."""
    with open_run("claif", PAPER.title, params) as found:
        names = params.datasets.of(params.data)
        pairs_type, any_class = ["pair regression"], ["classification", "classification of a pair"]
        similarity = [load_dataset(params.data, name, pairs_type) for name in names.similarity]
        validation = load_dataset(params.data, names.validation, pairs_type)
        nli = load_dataset(params.data, names.nli, any_class)
        transfer = [load_dataset(params.data, name, any_class) for name in names.transfer]
        unlabelled = [load_dataset(params.data, name) for name in names.unlabelled]
        held_out = [*similarity, validation, nli]

        sentences = collect_sentences(unlabelled, held_out, params.max_words, params.max_sentences, 0)
        start = student_start(params, sentences)
        ai = params.annotation
        pairs = annotate_pairs(
            sentences, start, ai.writer, ai.judge, ai.rates, ai.sentences, ai.identity_share, ai.random_share,
            seed=0, device=params.device,
        )  # fmt: skip
        triplets = score_triplets(nli, [*similarity, validation], ai.judge, ai.triplets, params.device)
        data = {"claif": pairs, "hard_labels": harden_labels(pairs, ai.hard_thresholds), "simcse": sentences}
        data |= {"simcse_nli": triplets, "clhaif": triplets, "supervised": gold_pairs(validation)}

        most = params.max_rows
        scored, shown, probed = [[keep_first(d, most) for d in some] for some in (similarity, [validation], transfer)]
        students = train_students(params, start, data, *shown)
        encoders = {"untrained": [start] * len(params.seeds), **students}
        scores = score_all(score_similarity, encoders, scored, params)
        accuracy = score_all(score_transfer, encoders, probed, params, limit=params.transfer_limit) if transfer else {}

        gold = gold_similarity(scored)
        claims = [judge_claim.submit(c, params.resamples) for c in claims_of(scores, gold, names.similarity)]
        found.claims = [claim.result() for claim in claims]
        every = [*unlabelled, *held_out, *transfer]
        found.datasets = {d["name"]: d["content"] for d in every}
        describe(found, params, students, scores, accuracy, pairs)
        found.keep = {"annotations": pairs, "student": students["claif"][0], "clhaif": students["clhaif"][0]}
    return found.report


def student_start(params: Claif, sentences: Any) -> Any:
    """What every method starts from and the offline writer fills masks with."""
    student = params.student
    if student.model != "tiny":
        return fetch_masked_lm(student.model)
    return train_masked_lm(sentences, **student.model_dump(exclude={"model"}), seed=0, device=params.device)


def train_students(params: Claif, start: Any, data: dict[str, Any], validation: Any) -> dict[str, list[Any]]:
    """Every method: the learning rate by validation with the first seed, then the other seeds with it."""

    def submit(name: str, rate: float, seed: int) -> Any:
        t = params.training
        return train_sentence_encoder.submit(
            METHODS[name], start, data[name], validation, t.pooling, params.student.max_length, t.steps, t.batch_size,
            rate, t.temperature, t.smooth, t.evaluations, seed, params.device,
        )  # fmt: skip

    first, *rest = params.seeds
    trials = {
        (name, rate): submit(name, rate, first) for name, rate in product(METHODS, params.training.learning_rates)
    }
    students: dict[str, list[Any]] = {}
    chosen: dict[str, float] = {}
    for name in METHODS:
        rated = {rate: trials[name, rate].result() for rate in params.training.learning_rates}
        chosen[name] = max(rated, key=lambda rate: rated[rate]["score"])
        students[name] = [rated[chosen[name]]]
    others = {name: [submit(name, chosen[name], seed) for seed in rest] for name in METHODS}
    return {name: students[name] + [future.result() for future in others[name]] for name in METHODS}


def score_all(
    score: Any, encoders: dict[str, list[Any]], datasets: list[Any], params: Claif, **more: Any
) -> dict[str, Any]:
    """Every encoder on every dataset: method -> one scores artifact a seed."""
    labels = [f"{name}-seed{seed}" for name in encoders for seed in params.seeds]
    futures = score.map(
        [encoder for group in encoders.values() for encoder in group],
        datasets=unmapped(datasets), pooling=params.training.pooling, max_length=params.student.max_length,
        label=labels, device=params.device, **more,
    )  # fmt: skip
    results = futures.result()
    width = len(params.seeds)
    return {name: results[i * width : (i + 1) * width] for i, name in enumerate(encoders)}


def claims_of(scores: dict[str, Any], gold: Any, datasets: tuple[str, ...]) -> list[Claim]:
    """The paper's claims, for these datasets."""
    shared = {"metric": "mean Spearman", "statistic": "spearman", "datasets": list(datasets), "gold": gold}

    def claim(identity: str, ours: str, baseline: str, statement: str, paper: PaperFigure | None = None) -> Claim:
        return Claim(
            id=identity, statement=statement, baseline_name=baseline, ours=scores[ours], baseline=scores[baseline],
            paper=paper, **shared,
        )  # fmt: skip

    headline = PaperFigure(ours=0.7963, baseline=None, where=HEADLINE)
    soft = PaperFigure(ours=0.8208, baseline=None, where=HEADLINE)
    return [
        claim("claif_beats_simcse", "claif", "simcse", "Learning from AI scores beats unsupervised SimCSE", headline),
        claim("claif_beats_hard_labels", "claif", "hard_labels", "Graded AI scores beat the same scores as 0, 0.5, 1"),
        claim("clhaif_beats_simcse_nli", "clhaif", "simcse_nli", "AI scores on human pairs beat SimCSE on NLI", soft),
        claim("claif_beats_untrained", "claif", "untrained", "Training helps over mean pooling of the start"),
    ]


def describe(found: Any, params: Claif, students: Any, scores: Any, accuracy: Any, pairs: Any) -> None:
    """Metrics, plots and notes of the report."""
    for name, by_seed in scores.items():
        for dataset in by_seed[0]["metrics"]:
            found.metrics[f"spearman.{dataset}.{name}"] = fmean([s["metrics"][dataset] for s in by_seed])
        found.metrics[f"spearman.mean.{name}"] = fmean([fmean(list(s["metrics"].values())) for s in by_seed])
    for name, by_seed in accuracy.items():
        for dataset in by_seed[0]["metrics"]:
            found.metrics[f"accuracy.{dataset}.{name}"] = fmean([s["metrics"][dataset] for s in by_seed])
    found.metrics |= {f"pairs.{name}": float(count) for name, count in pairs["counts"].items()}
    found.metrics |= {f"llm.{name}": value for name, value in pairs["usage"].items()}
    s, tiny = params.student, params.student.model == "tiny"
    found.model = f"BERT, {s.layers} layers of width {s.width}, trained in the flow" if tiny else s.model
    offline = params.annotation.judge.kind == "offline"
    judge = f"the cosine of {params.annotation.judge.model}" if offline else params.annotation.judge.model
    found.notes = [
        f"The judge is {judge}; the CLAIF student is distilled from it. Supervised STS training is an upper reference.",
        "" if not tiny else "The paper's figures are of a pretrained bert-base; the student here is far smaller.",
    ]
    found.children = [
        (f"{name}-seed{seed}", {"method": name, "seed": seed}, student["history"])
        for name, group in students.items()
        for seed, student in zip(params.seeds, group, strict=True)
    ]
    groups = {
        dataset: {name: [s["metrics"][dataset] for s in by_seed] for name, by_seed in scores.items()}
        for dataset in scores["claif"][0]["metrics"]
    }
    curves = {
        name: [(p["step"], p["score"]) for p in group[0]["history"] if "score" in p] for name, group in students.items()
    }
    found.draw["similarity.png"] = lambda path: plots.draw_bars(groups, path, ylabel="Spearman's rho")
    found.draw["validation.png"] = lambda path: plots.draw_lines(
        curves, path, xlabel="step", ylabel="validation Spearman"
    )
