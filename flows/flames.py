"""Flames: how well are language models aligned with human values? A benchmark in Chinese (Huang et al., 2024).

Models under test answer prompts with hidden malice; a scorer with a head for each dimension, or a language model with
a rubric, scores the answers; people may overrule them on a review sheet. Harmless rates and scores come with intervals
and pairwise tests. The scorer is measured on real annotated text beside TF-IDF with logistic regression.
"""

from typing import Any

from prefect import flow
from pydantic import Field, field_validator

from paperflows.flows.params import FlowParameters, Section
from paperflows.flows.registry import Paper
from paperflows.tasks import alignment, plots, scorers
from paperflows.tasks.annotators import LanguageModel
from paperflows.tasks.claims import Claim, judge_claim
from paperflows.tasks.data import collect_sentences, load_dataset
from paperflows.tasks.masked_lm import train_masked_lm
from paperflows.tasks.run import open_run
from paperflows.tasks.runner import runner


class Subject(Section):
    """A model under test."""

    name: str = Field(pattern=r"^[\w .:-]+$", description="As it is called in the report")
    source: LanguageModel | None = Field(
        None, description="Who answers; empty takes the answers that the prompts' dataset records under the name"
    )


class Corpora(Section):
    """Names of datasets by their part in the flow, and the labels of the scored one."""

    prompts: str = Field(description="Prompts with dimension and sub-component, split test")
    judged: str = Field(description="Classification with topics, which the scorer learns")
    scores: dict[str, int] = Field(description="Label of the scored dataset -> score, 1 harmful to 3 harmless")
    text: tuple[str, ...] = Field(min_length=1, description="Plain text for the encoder's masked-LM training")
    subjects: tuple[Subject, ...] = Field(description="The models under test; none: only the scorer is tested")

    @field_validator("scores")
    @classmethod
    def _on_the_scale(cls, scores: dict[str, int]) -> dict[str, int]:
        if not set(scores.values()) <= {1, 2, 3} or not {1, 3} <= set(scores.values()):
            raise ValueError("labels stand for 1 (harmful), 2 (borderline) and 3 (harmless); 1 and 3 must occur")
        return scores

    @field_validator("subjects")
    @classmethod
    def _named_apart(cls, subjects: tuple[Subject, ...]) -> tuple[Subject, ...]:
        names = [subject.name for subject in subjects]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two models under test are called {twice[0]!r}")
        return subjects


class Datasets(Section):
    """Which names are read from which source."""

    builtin: Corpora = Field(description="Read when data is builtin")
    folder: Corpora = Field(description="Read when data is a folder")


class Encoder(Section):
    """The character encoder, trained in the flow as a masked LM, or a pretrained one."""

    model: str = Field(description="tiny: trained by the fields below; else a folder or Hugging Face id")
    width: int = Field(ge=8, description="Hidden size")
    layers: int = Field(ge=1, description="Transformer layers")
    heads: int = Field(ge=1, description="Attention heads")
    vocab_size: int = Field(ge=100, description="Pieces")
    characters: int = Field(ge=100, description="Most characters of the vocabulary")
    max_length: int = Field(ge=16, le=2048, description="Characters kept of a text, prompt and answer together")
    steps: int = Field(ge=1, description="Masked-LM steps")
    batch_size: int = Field(ge=1, description="Texts a step")
    learning_rate: float = Field(gt=0, description="Highest")


class Scorer(Section):
    """The scorer's training, and its baseline's search."""

    pairs: int = Field(ge=0, description="Buckets for pairs of neighbouring characters beside the encoder; 0 for none")
    steps: int = Field(ge=1, description="Optimiser steps")
    batch_size: int = Field(ge=1, description="Answers a step")
    learning_rate: float = Field(gt=0, description="Highest")
    evaluations: int = Field(ge=1, description="How often validation is scored; the best weights are kept")
    train: int = Field(ge=10, description="Training answers, the first ones")
    validation: int = Field(ge=10, description="Validation answers, the first ones")
    test: int = Field(ge=10, description="Test answers, the first ones")
    tfidf_ngrams: int = Field(ge=1, le=5, description="Longest n-gram of the baseline")
    tfidf_strengths: tuple[float, ...] = Field(min_length=1, description="Inverse regularisation tried on validation")


class Answers(Section):
    """How the models under test are asked."""

    limit: int = Field(ge=1, description="Prompts, the first ones")
    max_tokens: int = Field(ge=1, description="Of an answer")
    temperature: float = Field(ge=0, description="0 takes the likeliest token")
    most_failed: float = Field(
        ge=0, lt=1, description="Share of requests (or verdicts) that may fail, as where a provider filters prompts"
    )


class Flames(FlowParameters):
    """Parameters of the flow `flames`."""

    datasets: Datasets
    encoder: Encoder
    scorer: Scorer
    answers: Answers
    judge: LanguageModel | None = Field(
        description="A language model that scores with a rubric; empty: the trained scorer"
    )
    reviews: tuple[str, ...] = Field(description="Review sheets that people filled in; their scores overrule")
    review_size: int = Field(ge=1, description="Answers on the new review sheet, the worst first")
    max_sentences: int = Field(ge=1, description="Texts for the masked-LM training")
    resamples: int = Field(1000, ge=100, description="Bootstrap resamples")


PAPER = Paper(
    slug="flames",
    title="Flames: Benchmarking Value Alignment of LLMs in Chinese",
    authors="Huang et al., NAACL 2024",
    arxiv="2311.06899",
    parameters=Flames,
)


@flow(name="flames", timeout_seconds=24 * 3600, task_runner=runner())
def flames(params: Flames) -> dict[str, Any]:
    """Train and check the scorer, let the models under test answer, score and compare them."""
    with open_run("flames", PAPER.title, params) as found:
        names = params.datasets.builtin if params.data == "builtin" else params.datasets.folder
        prompts = load_dataset(params.data, names.prompts, ["prompts"])
        dataset = load_dataset(params.data, names.judged, ["classification", "classification of a pair"])
        texts = [load_dataset(params.data, name) for name in names.text]

        a = params.answers
        answers = [
            alignment.collect_answers(
                prompts, who.name, who.source, a.limit, a.max_tokens, a.temperature, a.most_failed, params.device
            )
            for who in names.subjects
        ]

        s = params.scorer
        limits = {"train": s.train, "validation": s.validation, "test": s.test}
        judged = scorers.collect_judged(dataset, names.scores, limits)
        encoder = character_encoder(params, [*texts, dataset], dataset)
        kinds = ("heads", "shared", "encoder") if s.pairs else ("heads", "shared")
        trained = {kind: train(params, judged, encoder, kind) for kind in kinds}
        tested = {
            kind: [scorers.test_scorer(judged, model, params.device) for model in models]
            for kind, models in trained.items()
        }
        tested["tfidf"] = [scorers.test_tfidf(judged, s.tfidf_ngrams, s.tfidf_strengths)] * len(params.seeds)
        tested["majority"] = [scorers.test_majority(judged)] * len(params.seeds)

        scored = score(params, judged, trained, answers)
        benchmark = alignment.summarise_models(
            scored, list(params.reviews), params.review_size, params.resamples, alignment.review_states(params.reviews)
        )
        found.claims = [judge_claim(claim, params.resamples) for claim in claims_of(tested, judged)]
        found.datasets = {d["name"]: d["content"] for d in [prompts, dataset, *texts]}
        describe(found, params, judged, tested, trained, benchmark, answers)
        found.keep = {"benchmark": benchmark, "scorer": trained[scoring(judged)][0]}
        found.keep |= {f"answers-{i}": answer for i, answer in enumerate(answers)}
    return found.report


def character_encoder(params: Flames, texts: list[Any], judged: Any) -> Any:
    """What the scorer starts from."""
    e = params.encoder
    if e.model != "tiny":
        return e.model
    sentences = collect_sentences(texts, [judged], 10_000, params.max_sentences, 0)
    return train_masked_lm(sentences, **e.model_dump(exclude={"model"}), seed=0, device=params.device)


def train(params: Flames, judged: Any, encoder: Any, kind: str) -> list[Any]:
    """A scorer a seed: a head for each topic (`heads`), one for all (`shared`), or heads on the encoder alone."""
    s = params.scorer
    pairs = 0 if kind == "encoder" else s.pairs
    return [
        scorers.train_scorer(
            judged, encoder, kind, kind == "shared", params.encoder.max_length, pairs, s.steps, s.batch_size,
            s.learning_rate, s.evaluations, seed, params.device,
        )
        for seed in params.seeds
    ]  # fmt: skip


def score(params: Flames, judged: Any, trained: dict[str, Any], answers: list[Any]) -> list[Any]:
    """By the judge where there is one, else by the scorer."""
    if params.judge:
        most = params.answers.most_failed
        return [alignment.judge_answers(answer, params.judge, most, params.device) for answer in answers]
    scorer = trained[scoring(judged)][0]
    return [alignment.score_answers(answer, scorer, judged["paired"], params.device) for answer in answers]


def scoring(judged: Any) -> str:
    """The scorer of answers: with its heads where it has one for every dimension, else with one head for all."""
    return "heads" if set(alignment.DIMENSIONS) <= set(judged["topics"]) else "shared"


def claims_of(tested: dict[str, Any], judged: Any) -> list[Claim]:
    """The published table is consistent; the scorer beats simpler ones."""
    table = alignment.check_published()

    def claim(identity: str, statement: str, baseline: str) -> Claim:
        return Claim(
            id=identity, statement=statement, metric="macro-F1", statistic="macro_f1", ours=tested["heads"],
            baseline=tested[baseline], baseline_name=baseline, gold=judged, datasets=["judged"],
        )  # fmt: skip

    return [
        claim("scorer_beats_tfidf", "The scorer beats TF-IDF with logistic regression", "tfidf"),
        claim("scorer_beats_majority", "The scorer beats the most frequent score of each topic", "majority"),
        claim("heads_beat_shared", "A head for each topic beats one head for all", "shared"),
        Claim(
            id="published_identities", statement="Rates, scores and overall of the 17 published models fit together",
            metric="share of identities that hold", statistic="mean", ours=[table], baseline=[alignment.nothing()],
            baseline_name="none", datasets=["identities"], margin=0.999, kind="check",
        ),
    ]  # fmt: skip


def describe(
    found: Any, params: Flames, judged: Any, tested: Any, trained: Any, benchmark: Any, answers: list[Any]
) -> None:
    """Figures, notes and plots of the report."""
    for kind, results in tested.items():
        for topic in results[0]["f1"]:
            found.metrics[f"scorer.f1.{topic}.{kind}"] = sum(r["f1"][topic] for r in results) / len(results)
    found.metrics |= benchmark["figures"]
    for answer in answers:
        found.metrics |= {f"llm.{answer['model']}.{key}": value for key, value in answer["usage"].items()}
    e = params.encoder
    tiny = e.model == "tiny"
    found.model = f"BERT of characters, {e.layers} layers of width {e.width}, trained in the flow" if tiny else e.model
    found.children = [
        (model["name"], {"scorer": kind}, model["history"]) for kind, models in trained.items() for model in models
    ]
    if "encoder" in tested:
        found.notes.append("`encoder` is the scorer with its heads and without pairs of characters.")
    if not params.judge and (never := {1, 2, 3} - set(judged["scores"])):
        missing = " or ".join(map(str, sorted(never)))
        found.notes.append(
            f"The scorer's training answers have no score {missing}, so it gives none: in a dimension of three points "
            "a borderline answer counts as harmful or as harmless."
        )
    if not answers:
        found.notes.append(
            "No model under test was named (datasets.*.subjects): the scorer alone was trained and put to the test."
        )
        return
    head = (
        "its heads" if scoring(judged) == "heads" else "one head for all topics, since it has none for each dimension"
    )
    by = f"the judge {params.judge.model}" if params.judge else f"the scorer of the first seed, with {head}"
    goes_by = "its rubric" if params.judge else "the answers it was trained on"
    found.notes += [
        f"Answers are scored by {by}; what that goes by ({goes_by}) decides what the rates mean. "
        "`unscored` answers (empty, the request failed, or the verdict could not be read) are left out of the rates"
        + ("." if params.judge else f"; of `cut` ones the scorer read {e.max_length} tokens."),
        "Rates are percentages, `overall` is the unweighted mean over dimensions; `p.A vs B` is a paired permutation "
        "test of the overall rates, corrected by Holm. `benchmark/review.csv` can be filled in and given as `reviews`.",
    ]
    if not params.judge and not judged["paired"]:
        found.notes.append(
            "What the scorer learnt from has no prompts, so it reads answers by themselves: a rate says how many "
            "would be harmless as comments, not as answers to their prompts. Take a judge, or scored answers with "
            "their prompts (`text` and `text_pair`), before believing it."
        )
    figures, models = benchmark["figures"], benchmark["models"]
    shown = ["overall", *(f"rate.{d}" for d in alignment.DIMENSIONS)]
    bars = {
        name.removeprefix("rate."): {m: [figures[f"{m}.{name}"]] for m in models if f"{m}.{name}" in figures}
        for name in shown
    }
    bars = {name: values for name, values in bars.items() if values}
    radar = {m: {name: values[m][0] for name, values in bars.items() if m in values} for m in models}
    found.draw["harmless.png"] = lambda path: plots.draw_bars(bars, path, ylabel="harmless rate (%)")
    found.draw["radar.png"] = lambda path: plots.draw_radar(radar, path, highest=100.0)
