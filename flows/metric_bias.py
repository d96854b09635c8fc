"""Metric bias: do metrics of text generation prefer one group to another, and can adapters stop it? (Sun et al., 2022).

The published table is recomputed from its recorded scores; n-gram, matching, regression and generation metrics of our
own score the same minimal pairs; adapters trained on counterfactual sentences reduce the bias of BERTScore, and its
correlation with human scores before and after is compared.
"""

from typing import Any

from prefect import flow
from pydantic import Field

from paperflows.flows.params import FlowParameters, Section
from paperflows.flows.registry import Paper
from paperflows.tasks import bias, plots
from paperflows.tasks import generation_metrics as metrics
from paperflows.tasks.claims import Claim, judge_claim
from paperflows.tasks.data import collect_sentences, load_dataset
from paperflows.tasks.run import open_run
from paperflows.tasks.runner import runner


class Corpora(Section):
    """Names of datasets by their part in the flow."""

    minimal: str = Field(description="Minimal pairs, one split an attribute")
    scored: str = Field(description="Pair regression; trains the regression metric, its pairs are the neutral ones")
    sentences: tuple[str, ...] = Field(
        min_length=1, description="Sentences of their train splits become counterfactual"
    )
    human: dict[str, tuple[str, ...]] = Field(min_length=1, description="Pair regression -> splits with human scores")


class Datasets(Section):
    """Which names are read from which source."""

    builtin: Corpora = Field(description="Read when data is builtin")
    folder: Corpora = Field(description="Read when data is a folder; the hub has no such minimal pairs")


class Encoder(Section):
    """The encoder of the matching metrics."""

    model: str = Field(description="minilm, a folder or a Hugging Face id")
    layer: int = Field(ge=1, description="Whose states are matched")


class Regression(Section):
    """The regression metric: a cross-encoder fine-tuned on human scores."""

    model: str = Field(description="minilm, a folder or a Hugging Face id")
    max_length: int = Field(ge=16, le=512, description="Tokens of both texts")
    steps: int = Field(ge=1, description="Optimiser steps")
    batch_size: int = Field(ge=1, description="Pairs a step")
    learning_rate: float = Field(gt=0, description="Highest")
    evaluations: int = Field(ge=1, description="How often validation is scored; the best weights are kept")
    validation: int = Field(ge=2, description="Validation pairs scored, the first ones")


class Generation(Section):
    """The language model of the generation metric: a small denoiser trained in the flow, or a pretrained one."""

    model: str = Field(
        description="tiny: trained by the fields below; else a folder or id of a sequence-to-sequence model"
    )
    width: int = Field(ge=8, description="Hidden size")
    layers: int = Field(ge=1, description="Encoder layers, and as many decoder layers")
    heads: int = Field(ge=1, description="Attention heads")
    vocab_size: int = Field(ge=100, description="WordPiece vocabulary")
    max_length: int = Field(ge=8, le=512, description="Tokens kept of a text")
    steps: int = Field(ge=1, description="Optimiser steps")
    batch_size: int = Field(ge=1, description="Sentences a step")
    learning_rate: float = Field(gt=0, description="Highest")


class Adapters(Section):
    """The debiasing adapters of BERTScore."""

    bottleneck: int = Field(ge=1, description="Width inside an adapter")
    distil: float = Field(ge=0, description="Weight of staying at the original scores")
    per_attribute: int = Field(ge=1, description="Counterfactuals made for each attribute")
    neutral: int = Field(ge=1, description="Pairs that keep their scores, drawn from the scored training pairs")
    steps: int = Field(ge=1, description="Optimiser steps")
    batch_size: int = Field(ge=1, description="Counterfactuals, and as many neutral pairs, a step")
    learning_rate: float = Field(gt=0, description="Highest")
    max_length: int = Field(ge=8, le=512, description="Tokens kept of a training text")
    held_out: tuple[tuple[str, ...], ...] = Field(
        description="Groups of attributes; each group is measured with adapters that never swapped it"
    )


class MetricBias(FlowParameters):
    """Parameters of the flow `metric_bias`."""

    datasets: Datasets
    ngram: tuple[str, ...] = Field(min_length=1, description="n-gram metrics")
    encoder: Encoder
    regression: Regression
    generation: Generation
    adapters: Adapters
    max_pairs: int = Field(ge=2, description="Minimal pairs of an attribute and human-scored pairs of a split")
    max_words: int = Field(ge=1, description="Longer sentences are left out")
    max_sentences: int = Field(ge=1, description="Sentences kept")
    resamples: int = Field(1000, ge=100, description="Bootstrap resamples of every verdict")


PAPER = Paper(
    slug="metric_bias",
    title="BERTScore is Unfair: On Social Bias in Language Model-Based Metrics for Text Generation",
    authors="Sun et al., EMNLP 2022",
    arxiv="2210.07626",
    parameters=MetricBias,
)

CUT, LOSS = 0.4, 0.01  # how much of the bias must go, and how much correlation may


@flow(name="metric_bias", timeout_seconds=24 * 3600, task_runner=runner())
def metric_bias(params: MetricBias) -> dict[str, Any]:
    """Measure the bias of recorded and of our own metrics, reduce BERTScore's, and judge the paper's claims."""
    with open_run("metric_bias", PAPER.title, params) as found:
        names = params.datasets.builtin if params.data == "builtin" else params.datasets.folder
        minimal = load_dataset(params.data, names.minimal, ["minimal pairs"])
        human = [load_dataset(params.data, name, ["pair regression"]) for name in names.human]
        scored = load_dataset(params.data, names.scored, ["pair regression"])
        corpora = [load_dataset(params.data, name) for name in names.sentences]
        sentences = collect_sentences(corpora, [scored, *human], params.max_words, params.max_sentences, 0)
        pairs = metrics.collect_pairs(minimal, human, {k: list(v) for k, v in names.human.items()}, params.max_pairs)

        recorded, same = bias.recorded_bias(minimal), bias.recorded_bias(minimal, params.max_pairs)
        held_out = bias.held_out_groups([list(group) for group in params.adapters.held_out], pairs["groups"])
        examples = {seed: counterfactuals(params, sentences, held_out, seed) for seed in params.seeds}
        ngram = {metric: metrics.score_ngram(pairs, metric) for metric in params.ngram}
        models = plm_scores(params, pairs, scored, sentences)
        debiased = {
            seed: debiased_scores(params, pairs, scored, examples[seed], held_out, seed) for seed in params.seeds
        }

        adapted = [group["all"] for group in debiased.values()]
        scores = {**{m: [s] for m, s in {**ngram, **models}.items()}, "bertscore-adapters": adapted}
        measured = {m: [bias.measure_bias(score, pairs) for score in of_seeds] for m, of_seeds in scores.items()}
        found.metrics = table(recorded, same, measured)
        for metric, of_seeds in scores.items():
            correlations = average([metrics.correlate(score, pairs) for score in of_seeds])
            found.metrics |= {f"correlation.{g}.{metric}": v for g, v in correlations.items()}
        for name in ("bertscore", "bertscore-adapters"):
            split = average([bias.split_by_list(pairs, of_seed) for of_seed in measured[name]])
            found.metrics |= {f"words.{which}.{name}": value for which, value in split.items()}

        claims = [*recorded_claims(recorded, pairs["groups"]), *own_claims(pairs, ngram, models)]
        claims += adapter_claims(held_out, pairs, models["bertscore"], debiased)
        found.claims = [judge_claim(claim, params.resamples) for claim in claims]
        found.datasets = {d["name"]: d["content"] for d in [minimal, scored, *human, *corpora]}
        describe(found, params, pairs, measured)
        found.keep = {"pairs": pairs, "adapters": debiased[params.seeds[0]]["weights"]}
    return found.report


def plm_scores(params: MetricBias, pairs: Any, scored: Any, sentences: Any) -> dict[str, Any]:
    """Our own metrics that ask a model, by paradigm: two of matching, one of regression, one of generation."""
    e, r, g = params.encoder, params.regression, params.generation
    regressor = metrics.train_regression_metric(
        r.model,
        scored,
        r.max_length,
        r.steps,
        r.batch_size,
        r.learning_rate,
        r.evaluations,
        r.validation,
        0,
        params.device,
    )
    model: Any = g.model
    if g.model == "tiny":
        model = metrics.train_denoiser(sentences, **g.model_dump(exclude={"model"}), seed=0, device=params.device)
    return {
        "bertscore": metrics.score_matching(pairs, "bertscore", e.model, e.layer, params.device),
        "moverscore": metrics.score_matching(pairs, "moverscore", e.model, e.layer, params.device, idf_from=sentences),
        "regression": metrics.score_regression(pairs, regressor, r.max_length, params.device),
        "likelihood": metrics.score_likelihood(pairs, model, g.max_length, params.device),
    }


def counterfactuals(params: MetricBias, sentences: Any, held_out: list[list[str]], seed: int) -> list[Any]:
    """What adapters are trained on: by all word lists first, then without those of each held-out group."""
    per_attribute = params.adapters.per_attribute
    return [bias.augment_counterfactually(sentences, held, per_attribute, seed) for held in ([], *held_out)]


def debiased_scores(
    params: MetricBias, pairs: Any, scored: Any, examples: list[Any], held_out: list[list[str]], seed: int
) -> dict[str, Any]:
    """BERTScore with adapters: for `all` words of every list were exchanged in training, for `held_out` none of the
    list of the attribute that it scores.

    `human` holds, for each group of held-out attributes, what its adapters give the pairs with human scores.
    """
    e, a = params.encoder, params.adapters

    def score(label: str, examples: Any, only: list[str] | None) -> tuple[Any, Any]:
        weights = bias.train_debiasing_adapters(
            e.model, e.layer, examples, scored, a.neutral, a.bottleneck, a.distil, a.steps, a.batch_size,
            a.learning_rate, a.max_length, label, seed, params.device,
        )  # fmt: skip
        return weights, metrics.score_matching(
            pairs, "bertscore", e.model, e.layer, params.device, adapters=weights, only=only
        )

    weights, everything = score("all", examples[0], None)
    parts = [
        score(f"without-{'-'.join(held)}", without, [*held, *pairs["human"]])[1]
        for held, without in zip(held_out, examples[1:], strict=True)
    ]
    merged = bias.merge_outputs(parts, held_out) if parts else None
    return {"weights": weights, "all": everything, "held_out": merged, "human": parts}


def recorded_claims(recorded: dict[str, Any], attributes: list[str]) -> list[Claim]:
    """What the published scores say; nothing where the data holds none."""
    if not recorded:
        return []
    ngram, others = bias.metric_families(list(recorded))
    claims = []
    if ngram and others:
        claims.append(
            compare(
                "recorded_plm_more_biased", "Recorded metrics with a model are more biased than n-gram metrics",
                [mean_of([recorded[m] for m in others])], [mean_of([recorded[m] for m in ngram])], attributes,
            )
        )  # fmt: skip
    if bias.has_published_metrics(recorded):
        cells = bias.compare_with_published(recorded)
        claims.append(
            Claim(
                id="published_table", statement="The bias from recorded scores is the published one, cell by cell",
                metric="share of cells equal to two decimals", ours=[cells],
                baseline=[bias.combine_outputs([cells], [0.0])], baseline_name="none", datasets=["cells"],
                statistic="mean", margin=0.999, kind="check",
            )
        )  # fmt: skip
    return claims


def own_claims(pairs: Any, ngram: dict[str, Any], models: dict[str, Any]) -> list[Claim]:
    """Our metrics with a model against our n-gram metrics, on the mean over attributes and on each attribute."""
    counted = mean_of([bias.measure_bias(ngram[metric], pairs) for metric in without_variants(list(ngram))])
    asked = mean_of([bias.measure_bias(score, pairs) for score in models.values()])
    statement = "Metrics with a language model are more biased than n-gram metrics"
    each = [(f"plm_more_biased_{a.replace('-', '_')}", f"{statement}: {a}", [a]) for a in pairs["groups"]]
    rows = [("plm_more_biased", f"{statement}, mean over attributes", pairs["groups"]), *each]
    return [compare(name, text, [asked], [counted], attributes) for name, text, attributes in rows]


def adapter_claims(held_out: list[list[str]], pairs: Any, original: Any, debiased: dict[int, Any]) -> list[Claim]:
    """How much of the bias adapters take away, and what they cost."""
    before = bias.measure_bias(original, pairs)
    wanted = [bias.combine_outputs([before], [CUT])] * len(debiased)

    def cut(kind: str, groups: list[str]) -> list[Any]:
        after = [bias.measure_bias(group[kind], {**pairs, "groups": groups}) for group in debiased.values()]
        return [bias.combine_outputs([before, a], [1.0, -1.0]) for a in after]

    held = [a for group in held_out for a in group]
    shared: dict[str, Any] = {
        "metric": "bias taken away, points", "baseline_name": f"{CUT:.0%} of the bias before", "baseline": wanted,
        "statistic": "mean",
    }  # fmt: skip
    kept = {"metric": "Spearman with human scores", "baseline_name": "without adapters", "statistic": "spearman"}
    claims = [
        Claim(
            id="adapters_cut_bias",
            statement="Adapters take away at least 40 % of BERTScore's bias",
            ours=cut("all", pairs["groups"]),
            datasets=pairs["groups"],
            **shared,
        ),
        Claim(
            id="adapters_keep_correlation",
            statement="The correlation with human scores falls by at most 0.01",
            ours=[group["all"] for group in debiased.values()],
            baseline=[original] * len(debiased),
            gold=pairs,
            datasets=pairs["human"],
            margin=-LOSS,
            **kept,
        ),
    ]
    if held:
        statement = "So do adapters in whose training no word of the attribute's list was exchanged"
        unseen = {"ours": cut("held_out", held), "datasets": held, **shared}
        claims.insert(1, Claim(id="adapters_cut_bias_held_out", statement=statement, **unseen))
        for place, group in enumerate(held_out):  # adapters of one seed are no two seeds
            claims.append(
                Claim(
                    id=f"held_out_adapters_keep_correlation_{place + 1}",
                    statement=f"With adapters that saw no word of {', '.join(group)} too it falls by at most 0.01",
                    ours=[of_seed["human"][place] for of_seed in debiased.values()],
                    baseline=[original] * len(debiased),
                    gold=pairs,
                    datasets=pairs["human"],
                    margin=-LOSS,
                    **kept,
                )
            )
    return claims


def compare(identity: str, statement: str, ours: list[Any], baseline: list[Any], attributes: list[str]) -> Claim:
    """A claim that one group of metrics is more biased than another."""
    return Claim(
        id=identity, statement=statement, metric="bias, 0 to 100", ours=ours, baseline=baseline,
        baseline_name="n-gram metrics", datasets=attributes, statistic="mean",
    )  # fmt: skip


def mean_of(measured: list[Any]) -> Any:
    """Each pair's difference, mean over metrics."""
    return bias.combine_outputs(measured, [1 / len(measured)] * len(measured))


def without_variants(names: list[str]) -> list[str]:
    """Without `bleu-whitespace` where `bleu` is there: a mean over metrics counts BLEU once."""
    return [name for name in names if name.partition("-")[0] not in {*names} - {name}]


def average(rows: list[dict[str, float]]) -> dict[str, float]:
    """Each figure's mean over the seeds."""
    return {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}


def table(recorded: dict[str, Any], same: dict[str, Any], measured: dict[str, list[Any]]) -> dict[str, float]:
    """Bias and polarised bias of every metric on every attribute, and how far ours are from the recorded ones.

    Args:
        same: the recorded bias on the pairs that ours is measured on.
        measured: of each metric what each seed gives.
    """
    rows = {f"recorded.{a}.{m}": v for m, r in recorded.items() for a, v in r["bias"].items()}
    for kind in ("bias", "polarised"):
        rows |= {f"{kind}.{a}.{m}": v for m, r in measured.items() for a, v in average([s[kind] for s in r]).items()}
    both = [(m, m.partition("-")[0]) for m in measured if m.partition("-")[0] in same and "adapters" not in m]
    for ours, theirs in both:
        bias_of, of_recorded = average([s["bias"] for s in measured[ours]]), same[theirs]["bias"]
        rows[f"from_recorded.{ours}"] = max(abs(value - of_recorded[a]) for a, value in bias_of.items())
    return rows


def describe(found: Any, params: MetricBias, pairs: Any, measured: dict[str, list[Any]]) -> None:
    """Model, notes and plots of the report."""
    e, g = params.encoder, params.generation
    found.model = f"{e.model}, layer {e.layer}; regression {params.regression.model}; generation {g.model}"
    found.notes = [
        "Bias: scores of one attribute spread over 0 to 100, mean absolute difference within its pairs.",
        "`bleu` and `chrf` are sacrebleu's, `rouge` is rouge-score's ROUGE-L with stemming, `nist` and `meteor` are "
        "nltk's; METEOR matches words and stems only, without WordNet's synonyms. The mean of n-gram metrics leaves "
        "`bleu-whitespace` out beside `bleu`.",
        "`from_recorded` is the largest difference of a bias from the recorded one on the same pairs; the recorded "
        "BLEU splits at spaces, as `bleu-whitespace` does."
        if any(name.startswith("from_recorded") for name in found.metrics)
        else "",
        "`words.listed` are pairs whose differing words are all in the lists that adapters were trained with; "
        "`words.left_out` have the same words in another order.",
        "Held-out adapters may have read words of the attribute, as context or where another list has a homonym that "
        "is not in the attribute's own; none of its list was exchanged."
        if params.adapters.held_out
        else "",
        "`correlation` says how far a metric follows people at all: the bias of one that does not says little. The "
        "likelihood metric is of a small denoiser trained in the flow.",
        "Figures of `bertscore-adapters` are means over the seeds. The regression metric and the small denoiser are "
        "trained once, with seed 0: claims about metrics with a model say nothing of chance in their training.",
        "The paper's adapters take the gender bias of BERTScore-BERT-base from 8.73 to 4.21 (README of the official "
        "repository); ours are judged on the mean over attributes, which is not the same quantity.",
    ]
    groups = {a: {m: [s["bias"][a] for s in r] for m, r in measured.items()} for a in pairs["groups"]}
    found.draw["bias.png"] = lambda path: plots.draw_bars(groups, path, ylabel="bias (0 to 100)")
