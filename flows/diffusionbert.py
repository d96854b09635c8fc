"""DiffusionBERT: does a masked language model make a good start for text diffusion? (He et al., 2023).

Denoisers are trained for the same steps from a pretrained encoder and from nothing, under a base and a spindle
schedule, told the time or not, and compared by an exact bound on the likelihood of test texts, beside an autoregressive
decoder of their size. Then they write, and so do a plain masked language model by Gibbs sampling and the decoder. Last,
a denoiser that is shown a text paraphrases it, and the best of several candidates is kept.
"""

from dataclasses import dataclass
from statistics import fmean
from typing import Any

from prefect import flow
from pydantic import Field

from paperflows.flows.params import BySource, FlowParameters, Section
from paperflows.flows.registry import Paper
from paperflows.tasks import plots
from paperflows.tasks.autoregressive import decode_texts, measure_likelihood, train_decoder
from paperflows.tasks.claims import Claim, judge_claim
from paperflows.tasks.data import load_dataset
from paperflows.tasks.diffusion import (
    Process,
    compare_writers,
    measure_bound,
    prepare_corpus,
    rate_texts,
    train_denoiser,
    write_texts,
)
from paperflows.tasks.paraphrase import paraphrase, prepare_paraphrases, rate_paraphrases, train_paraphraser
from paperflows.tasks.run import open_run
from paperflows.tasks.runner import runner


class Corpus(Section):
    """What is taken of the texts."""

    least: int = Field(ge=1, description="Uses in training that keep a piece of the vocabulary")
    max_length: int = Field(
        ge=8, le=512, description="Pieces of a text, special ones included; longer ones are left out"
    )
    limits: dict[str, int] = Field(description="Texts of train and test, at most")


class Noise(Section):
    """The process and the training of every denoiser."""

    steps_of_process: int = Field(ge=2, le=10_000, description="Steps between a text and nothing but masks")
    strength: float = Field(ge=0, le=1, description="Of the spindle")
    steps: int = Field(ge=1, description="Optimiser steps")
    batch_size: int = Field(ge=1, description="Texts a step")
    learning_rate: float = Field(gt=0, description="Highest")
    hybrid: float = Field(ge=0, description="Weight of plain cross-entropy beside a step's divergence")
    sweeps: int = Field(ge=1, description="Gibbs steps for every position, for the plain masked LM")


class Measuring(Section):
    """The bound on test texts."""

    sentences: int = Field(ge=1, description="Test texts")
    strata: int = Field(ge=1, description="Steps of the process drawn for each, one from each of as many equal parts")


class Writing(Section):
    """Samples."""

    count: int = Field(ge=2, description="Samples of each denoiser")
    calls: tuple[int, ...] = Field(min_length=1, description="Strides of the process")
    top_k: int = Field(ge=0, description="Likeliest pieces drawn from; 0 takes all")
    temperature: float = Field(gt=0, description="Of the denoiser's distribution, not of the coin")
    compared_calls: int = Field(ge=1, description="Strides where writers are compared at equal self-BLEU")
    compared_temperatures: tuple[float, ...] = Field(min_length=2, description="Temperatures interpolated between")


class Paraphrasing(Section):
    """Conditional text, and the choice among candidates."""

    sets: BySource[str | None]
    max_length: int = Field(ge=8, le=250, description="Pieces of a text; sets with a longer one are left out")
    limits: dict[str, int] = Field(description="Sets of train and test, at most")
    sources: int = Field(ge=1, description="Test texts that are paraphrased")
    candidates: int = Field(ge=2, description="Of each, of which minimum Bayes risk keeps one")
    calls: int = Field(ge=1, description="Strides of the process")
    tolerance: float = Field(ge=0, le=1, description="Share of the decoder's BLEU that may be missing")


class Diffusionbert(FlowParameters):
    """Parameters of the flow `diffusionbert`."""

    texts: BySource[str]
    encoder: str = Field(description="minilm, a folder or a Hugging Face id of a BERT")
    layers: int = Field(ge=1, le=48, description="Its first layers, in every denoiser")
    corpus: Corpus
    denoisers: dict[str, Process] = Field(description="Name -> process; the claims need those of the paper")
    noise: Noise
    measuring: Measuring
    writing: Writing
    paraphrasing: Paraphrasing
    margin: float = Field(0.02, ge=0, description="Nats a token within which not knowing the time is no worse")
    gain: float = Field(0.3, ge=0, description="Nats a token by which the pretrained start must be better")
    resamples: int = Field(1000, ge=100, description="Bootstrap resamples of every verdict")


PAPER = Paper(
    slug="diffusionbert",
    title="DiffusionBERT: Improving Generative Masked Language Models with Diffusion Models",
    authors="He et al., ACL 2023",
    arxiv="2211.15029",
    parameters=Diffusionbert,
)

OURS, BASE, RANDOM, D3PM, LAYER, PREFIX, GIBBS, DECODER = (
    "diffusionbert", "base", "random", "d3pm", "layer_time", "prefix_time", "masked_lm", "autoregressive",
)  # fmt: skip


@flow(name="diffusionbert", timeout_seconds=7 * 24 * 3600, task_runner=runner())
def diffusionbert(params: Diffusionbert) -> dict[str, Any]:
    """Train denoisers that differ in one thing each, bound their likelihood, and let them write and paraphrase."""
    with open_run("diffusionbert", PAPER.title, params) as found:
        c, noise, device = params.corpus, params.noise.model_dump(), params.device
        size = (params.encoder, params.layers)
        data = load_dataset(params.data, params.texts.of(params.data), splits=["train", "test"])
        corpus = prepare_corpus(data, params.encoder, c.least, c.max_length, c.limits)
        trained = {
            name: [train_denoiser.submit(name, process, corpus, *size, noise, seed, device) for seed in params.seeds]
            for name, process in params.denoisers.items()
        }
        start = params.denoisers[OURS].start == "pretrained"
        twins = [train_decoder.submit(corpus, *size, start, _steps(noise), seed, device) for seed in params.seeds]
        models = {name: [future.result() for future in by_seed] for name, by_seed in trained.items()}
        decoders = [future.result() for future in twins]
        m, w = params.measuring, params.writing
        bounds = {
            name: [
                measure_bound(
                    model, params.denoisers[name], corpus, *size, noise, "test", m.sentences, m.strata,
                    params.denoisers[name].schedule, device,
                )
                for model in by_seed
            ]
            for name, by_seed in models.items()
        }  # fmt: skip
        exact = [measure_likelihood(model, corpus, *size, "test", m.sentences, device) for model in decoders]

        def write(name: str, calls: int, temperature: float) -> list[Any]:
            if name == DECODER:
                return [
                    decode_texts(
                        model, corpus, *size, w.count, w.top_k, temperature, params.corpus.max_length, seed, device
                    )
                    for model, seed in zip(decoders, params.seeds, strict=True)
                ]
            return [
                write_texts(
                    model, params.denoisers[name], corpus, *size, noise, w.count, calls, w.top_k, temperature, seed,
                    device,
                )
                for model, seed in zip(models[name], params.seeds, strict=True)
            ]  # fmt: skip

        written = {
            (name, calls): write(name, calls, w.temperature)
            for name in (OURS, BASE, D3PM, GIBBS, DECODER)
            if name in models or name == DECODER
            for calls in (w.calls if name in (OURS, BASE, D3PM) else w.calls[-1:])
        }
        tempered = {
            name: [write(name, w.compared_calls, temperature) for temperature in w.compared_temperatures]
            for name in (OURS, D3PM, GIBBS, DECODER)
            if name in models or name == DECODER
        }
        rated = {key: [rate_texts(one["samples"], corpus) for one in by_seed] for key, by_seed in written.items()}
        curves = {
            name: [[rate_texts(one["samples"], corpus) for one in by_seed] for by_seed in by_temperature]
            for name, by_temperature in tempered.items()
        }
        compared = {
            name: [
                compare_writers([of[i] for of in curves[OURS]], [of[i] for of in by_temperature], name)
                for i in range(len(params.seeds))
            ]
            for name, by_temperature in curves.items()
            if name != OURS
        }
        told = paraphrases_of(params, noise)
        results = Results(bounds, exact, rated, curves, compared, told)
        found.claims = [judge_claim(claim, params.resamples) for claim in claims_of(params, results)]
        found.datasets = {one["name"]: one["content"] for one in (data, told.get("data")) if one}
        describe(found, params, corpus, models | {DECODER: decoders}, results, written)
    return found.report


def paraphrases_of(params: Diffusionbert, noise: dict[str, Any]) -> dict[str, Any]:
    """Paraphrases by a denoiser and by a decoder, rated by seed; empty where the source of data has no sets."""
    p, w, device = params.paraphrasing, params.writing, params.device
    if (name := p.sets.of(params.data)) is None:
        return {}
    data = load_dataset(params.data, name, ["paraphrase sets"])
    size, length = (params.encoder, params.layers), p.max_length + 1
    pairs = prepare_paraphrases(data, params.encoder, params.corpus.least, p.max_length, p.limits)
    trained = {
        OURS: [train_paraphraser.submit(pairs, *size, noise, length, seed, device) for seed in params.seeds],
        DECODER: [train_decoder.submit(pairs, *size, True, _steps(noise), seed, device) for seed in params.seeds],
    }
    models = {name: [future.result() for future in by_seed] for name, by_seed in trained.items()}
    rated = {
        name: [
            rate_paraphrases(
                paraphrase(
                    model, name == OURS, pairs, *size, noise, length, p.sources, p.candidates, p.calls,
                    w.top_k, w.temperature, seed, device,
                ),
                pairs,
            )
            for model, seed in zip(by_seed, params.seeds, strict=True)
        ]
        for name, by_seed in models.items()
    }  # fmt: skip
    return {"data": data, "rated": rated}


@dataclass(frozen=True)
class Results:
    """What was measured: by denoiser a list by seed; `rated` also by strides, `curves` by temperature and seed."""

    bounds: dict[str, list[Any]]
    exact: list[Any]
    rated: dict[tuple[str, int], list[Any]]
    curves: dict[str, list[list[Any]]]
    compared: dict[str, list[Any]]
    paraphrases: dict[str, Any]


def claims_of(params: Diffusionbert, results: Results) -> list[Claim]:
    """The paper's claims; those whose denoisers were left out, or that have nothing to compare, are not made."""
    bounds = results.bounds

    def bound(identity: str, ours: str, baseline: str, statement: str, of: str, margin: float) -> Claim:
        return Claim(
            id=identity, statement=statement, metric=f"nats a token, {of}", ours=_outputs(bounds[ours]),
            baseline=_outputs(bounds[baseline]), baseline_name=baseline, datasets=[of], statistic="ratio_of_sums",
            lower_is_better=True, margin=margin,
        )  # fmt: skip

    start = f"The pretrained start is better by {params.gain} nats a token after equal steps"
    spindle = "The spindle schedule lowers the official code's figure, which is no bound"
    no_worse = "Not knowing the time is no worse than"
    wanted = [
        ("pretrained_start", BASE, RANDOM, start, "bound", -params.gain),
        ("beats_d3pm", OURS, D3PM, "DiffusionBERT's bound is below D3PM's", "bound", 0.0),
        ("spindle", OURS, BASE, "The spindle schedule lowers the exact bound", "bound", 0.0),
        ("spindle_official", OURS, BASE, spindle, "official", 0.0),
        ("agnostic_vs_layer", OURS, LAYER, f"{no_worse} an embedding of it in every layer", "bound", params.margin),
        ("agnostic_vs_prefix", OURS, PREFIX, f"{no_worse} a token for it", "bound", params.margin),
    ]
    made = [bound(*claim) for claim in wanted if {claim[1], claim[2]} <= bounds.keys()]
    made += [
        Claim(
            id=f"writes_better_than_{baseline}",
            statement=f"At equal self-BLEU, DiffusionBERT's samples have a higher BLEU than those of {baseline}",
            metric="BLEU at equal self-BLEU",
            ours=[one["ours"] for one in by_seed],
            baseline=[one["baseline"] for one in by_seed],
            baseline_name=baseline,
            datasets=["bleu"],
            statistic="mean",
        )
        for baseline, by_seed in results.compared.items()
        if all(by_seed)
    ]
    if results.paraphrases:
        ours, decoder = (results.paraphrases["rated"][name] for name in (OURS, DECODER))
        share = 1 - params.paraphrasing.tolerance
        first = [one["first"] for one in ours]
        for identity, statement, metric, baseline, name, on, compare, margin in (
            ("paraphrase_bleu", f"Paraphrases have more than {share} of the decoder's BLEU", "BLEU ratio",
             _outputs(decoder), DECODER, "bleu", "ratio", share),
            ("paraphrase_diversity", "Candidates differ more from one another than the decoder's", "Div-4",
             _outputs(decoder), DECODER, "div4", "difference", 0.0),
            ("minimum_risk_helps", "The candidate of minimum Bayes risk is better than the first one", "BLEU", first,
             "first candidate", "bleu", "difference", 0.0),
        ):  # fmt: skip
            made.append(
                Claim(
                    id=identity,
                    statement=statement,
                    metric=metric,
                    ours=_outputs(ours),
                    baseline=baseline,
                    baseline_name=name,
                    datasets=[on],
                    statistic="mean",
                    compare="ratio" if compare == "ratio" else "difference",
                    margin=margin,
                )
            )
    return made


def describe(found: Any, params: Diffusionbert, corpus: Any, models: Any, results: Results, written: Any) -> None:
    """Metrics, plots, tables and notes of the report."""
    bounds, rated, told = results.bounds, results.rated, results.paraphrases.get("rated", {})
    for name, by_seed in bounds.items():
        for figure in ("bound", "official", "word_perplexity"):
            found.metrics[f"{figure}.{name}"] = fmean([b[figure] for b in by_seed])
    for figure in ("bound", "word_perplexity"):
        found.metrics[f"{figure}.{DECODER}"] = fmean([one[figure] for one in results.exact])
    for (name, calls), by_seed in rated.items():
        for figure in ("bleu", "self_bleu"):
            found.metrics[f"{figure}.{name}.{calls}"] = fmean([r[figure] for r in by_seed])
        found.metrics[f"calls.{name}.{calls}"] = fmean([r["calls"] for r in written[name, calls]])
    for name, by_seed in told.items():
        for figure in by_seed[0]["means"]:
            found.metrics[f"paraphrase.{figure}.{name}"] = fmean([r["means"][figure] for r in by_seed])
    bars = {
        name: {figure: [b[figure] for b in by_seed] for figure in ("bound", "official")}
        for name, by_seed in bounds.items()
    } | {DECODER: {"bound": [one["bound"] for one in results.exact]}}
    found.draw["bounds.png"] = lambda path: plots.draw_bars(bars, path, ylabel="nats a token, test")
    curves = {
        name: [(p["step"], fmean([m["history"][i]["loss"] for m in by])) for i, p in enumerate(by[0]["history"])]
        for name, by in models.items()
        if name != GIBBS
    }
    found.draw["training.png"] = lambda path: plots.draw_lines(
        curves, path, xlabel="step", ylabel="training loss, nats a token"
    )
    quality = {
        name: [(fmean([r["self_bleu"] for r in by]), fmean([r["bleu"] for r in by])) for by in by_temperature]
        for name, by_temperature in results.curves.items()
    }
    found.draw["quality.png"] = lambda path: plots.draw_lines(quality, path, xlabel="self-BLEU", ylabel="BLEU")
    found.tables["Samples of the first seed"] = [
        {"denoiser": name, "strides": calls, "text": text}
        for (name, calls), by_seed in written.items()
        for text in by_seed[0]["examples"]
    ]
    found.tables["Paraphrases of the first seed"] = [
        {"writer": name, **example} for name, by_seed in told.items() for example in by_seed[0]["examples"]
    ]
    way = written[OURS, params.writing.calls[-1]][0]["way"]
    found.tables["How one text is written"] = [
        {"stride": i, "text": text} for i, text in enumerate(way) if i == 0 or text != way[i - 1]
    ]
    found.model = f"the first {params.layers} layers of {params.encoder}, {corpus['vocabulary']} pieces"
    apart = [name for name, by_seed in results.compared.items() if not all(by_seed)]
    found.notes = [
        f"{corpus['sentences']['train']} training texts of {corpus['tokens']} pieces. The bound is exact for the "
        "process that each denoiser was trained with; `official` is the original code's figure, which is no bound "
        "under a spindle schedule and must not be compared across schedules.",
        f"The figure of `{DECODER}` is its exact negative log-likelihood, the end of a text left out. It is the same "
        f"network as `{OURS}`, started the same way and trained for as many steps, but sees the words to the left "
        "alone, for which the start was not trained; and it is not told the length of a text.",
        "BLEU at equal self-BLEU is interpolated between temperatures and averaged over the range of self-BLEU that "
        "both writers reach, seed by seed; the interval takes the weights of the interpolation as given.",
        *(
            [f"No self-BLEU is reached by both DiffusionBERT and {', '.join(apart)} in every seed: not compared."]
            if apart
            else []
        ),
        "Strides are the most calls of the network a sample may cost: a denoiser that does not know the time is not "
        "asked again where nothing changed (`calls` counts).",
        *([] if told else ["This source of data has no sets of paraphrases: conditional text was left out."]),
    ]
    found.children = [
        (f"{name}-seed{seed}", {"method": name, "seed": seed}, model["history"])
        for name, by_seed in models.items()
        for seed, model in zip(params.seeds, by_seed, strict=True)
    ]
    found.keep = {"diffusionbert": models[OURS][0], "samples": written[OURS, params.writing.calls[-1]][0]["samples"]}


def _steps(noise: dict[str, Any]) -> dict[str, Any]:
    """What a decoder shares with the denoisers."""
    return {name: noise[name] for name in ("steps", "batch_size", "learning_rate")}


def _outputs(by_seed: list[Any]) -> list[dict[str, str]]:
    return [one["outputs"] for one in by_seed]
