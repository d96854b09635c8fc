"""DiffusionBERT: does a masked language model make a good start for text diffusion? (He et al., 2023).

Denoisers are trained for the same steps from a pretrained encoder and from nothing, under a base and a spindle
schedule, told the time or not, and compared by an exact bound on the likelihood of test texts. Then they write, and so
does a plain masked language model by Gibbs sampling.
"""

from typing import Any

from prefect import flow
from pydantic import Field

from paperflows.flows.params import BySource, FlowParameters, Section
from paperflows.flows.registry import Paper
from paperflows.tasks import plots
from paperflows.tasks.claims import Claim, judge_claim
from paperflows.tasks.data import load_dataset
from paperflows.tasks.diffusion import (
    Process,
    measure_bound,
    prepare_corpus,
    rate_texts,
    train_denoiser,
    write_texts,
)
from paperflows.tasks.run import open_run
from paperflows.tasks.runner import runner


class Corpus(Section):
    """What is taken of the texts."""

    least: int = Field(ge=1, description="Uses in training that keep a piece of the vocabulary")
    max_length: int = Field(
        ge=8, le=512, description="Pieces of a text, special ones included; longer ones are left out"
    )
    limits: dict[str, int] = Field(description="Texts of train, validation and test, at most")


class Noise(Section):
    """The process and the training of every denoiser."""

    steps_of_process: int = Field(ge=2, le=10_000, description="Steps between a text and nothing but masks")
    strength: float = Field(ge=0, le=1, description="Of the spindle")
    steps: int = Field(ge=1, description="Optimiser steps")
    batch_size: int = Field(ge=1, description="Texts a step")
    learning_rate: float = Field(gt=0, description="Highest")
    hybrid: float = Field(ge=0, description="Weight of plain cross-entropy beside the bound")
    sweeps: int = Field(ge=1, description="Gibbs steps for every position, for the plain masked LM")


class Measuring(Section):
    """The bound on test texts."""

    sentences: int = Field(ge=1, description="Test texts")
    strata: int = Field(ge=1, description="Steps of the process drawn for each, one from each of as many equal parts")


class Writing(Section):
    """Samples."""

    count: int = Field(ge=2, description="Samples of each denoiser")
    calls: tuple[int, ...] = Field(min_length=1, description="Strides of the process; the claims judge the last")
    top_k: int = Field(ge=0, description="Likeliest pieces drawn from; 0 takes all")
    temperature: float = Field(gt=0, description="Of the denoiser's distribution, not of the coin")


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

OURS, BASE, RANDOM, D3PM, LAYER, PREFIX, GIBBS = (
    "diffusionbert", "base", "random", "d3pm", "layer_time", "prefix_time", "masked_lm",
)  # fmt: skip


@flow(name="diffusionbert", timeout_seconds=7 * 24 * 3600, task_runner=runner())
def diffusionbert(params: Diffusionbert) -> dict[str, Any]:
    """Train denoisers that differ in one thing each, bound their likelihood, and let them write."""
    with open_run("diffusionbert", PAPER.title, params) as found:
        c, noise, device = params.corpus, params.noise.model_dump(), params.device
        data = load_dataset(params.data, params.texts.of(params.data))
        corpus = prepare_corpus(data, params.encoder, c.least, c.max_length, c.limits)
        trained = {
            name: [
                train_denoiser.submit(name, process, corpus, params.encoder, params.layers, noise, seed, device)
                for seed in params.seeds
            ]
            for name, process in params.denoisers.items()
        }
        models = {name: [future.result() for future in by_seed] for name, by_seed in trained.items()}
        m, w = params.measuring, params.writing
        bounds = {
            name: [
                measure_bound(
                    model, params.denoisers[name], corpus, params.encoder, params.layers, noise, "test", m.sentences,
                    m.strata, params.denoisers[name].schedule, device,
                )
                for model in by_seed
            ]
            for name, by_seed in models.items()
        }  # fmt: skip
        written = {
            (name, calls): [
                write_texts(
                    model, params.denoisers[name], corpus, params.encoder, params.layers, noise, w.count, calls,
                    w.top_k, w.temperature, seed, device,
                )
                for model, seed in zip(models[name], params.seeds, strict=True)
            ]
            for name in (OURS, BASE, D3PM, GIBBS)
            if name in models
            for calls in (w.calls if name != GIBBS else w.calls[-1:])
        }  # fmt: skip
        rated = {key: [rate_texts(one["samples"], corpus) for one in by_seed] for key, by_seed in written.items()}
        found.claims = [judge_claim(claim, params.resamples) for claim in claims_of(params, bounds, rated)]
        found.datasets = {data["name"]: data["content"]}
        describe(found, params, corpus, models, bounds, written, rated)
    return found.report


def claims_of(params: Diffusionbert, bounds: Any, rated: Any) -> list[Claim]:
    """The paper's claims; those whose denoisers were left out are not made."""

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
    last = params.writing.calls[-1]
    for baseline in (GIBBS, D3PM):
        if (baseline, last) in rated:
            made += [
                Claim(
                    id=f"writes_better_than_{baseline}",
                    statement=f"DiffusionBERT's samples are better than those of {baseline}, diversity counted",
                    metric="BLEU minus self-BLEU", ours=_outputs(rated[OURS, last]),
                    baseline=_outputs(rated[baseline, last]), baseline_name=baseline, datasets=["gain"],
                    statistic="mean",
                )
            ]  # fmt: skip
    return made


def describe(
    found: Any, params: Diffusionbert, corpus: Any, models: Any, bounds: Any, written: Any, rated: Any
) -> None:
    """Metrics, plots, tables and notes of the report."""
    for name, by_seed in bounds.items():
        for figure in ("bound", "official", "word_perplexity"):
            found.metrics[f"{figure}.{name}"] = _mean([b[figure] for b in by_seed])
    for (name, calls), by_seed in rated.items():
        for figure in ("bleu", "self_bleu"):
            found.metrics[f"{figure}.{name}.{calls}"] = _mean([r[figure] for r in by_seed])
        found.metrics[f"calls.{name}.{calls}"] = _mean([r["calls"] for r in written[name, calls]])
    bars = {
        name: {figure: [b[figure] for b in by_seed] for figure in ("bound", "official")}
        for name, by_seed in bounds.items()
    }
    found.draw["bounds.png"] = lambda path: plots.draw_bars(bars, path, ylabel="nats a token, test")
    curves = {
        name: [(p["step"], _mean([m["history"][i]["loss"] for m in by])) for i, p in enumerate(by[0]["history"])]
        for name, by in models.items()
        if name != GIBBS
    }
    found.draw["training.png"] = lambda path: plots.draw_lines(
        curves, path, xlabel="step", ylabel="training loss, nats a token"
    )
    quality: dict[str, list[tuple[float, float]]] = {}
    for (name, _), by_seed in rated.items():
        point = _mean([r["self_bleu"] for r in by_seed]), _mean([r["bleu"] for r in by_seed])
        quality.setdefault(name, []).append(point)
    found.draw["quality.png"] = lambda path: plots.draw_lines(quality, path, xlabel="self-BLEU", ylabel="BLEU")
    found.tables["Samples of the first seed"] = [
        {"denoiser": name, "strides": calls, "text": text}
        for (name, calls), by_seed in written.items()
        for text in by_seed[0]["examples"]
    ]
    way = written[OURS, params.writing.calls[-1]][0]["way"]
    found.tables["How one text is written"] = [
        {"stride": i, "text": text} for i, text in enumerate(way) if i == 0 or text != way[i - 1]
    ]
    found.model = f"the first {params.layers} layers of {params.encoder}, {corpus['vocabulary']} pieces"
    found.notes = [
        f"{corpus['sentences']['train']} training texts of {corpus['tokens']} pieces. The bound is exact for the "
        "process that each denoiser was trained with; `official` is the original code's figure, which is no bound "
        "under a spindle schedule and must not be compared across schedules.",
        "BLEU minus self-BLEU is one figure for quality and diversity; it depends on the numbers of samples and of "
        "references, which are the same for all here, and is no comparison at equal diversity (see quality.png).",
        "Strides are the most calls of the network a sample may cost: a denoiser that does not know the time is not "
        "asked again where nothing changed (`calls` counts).",
    ]
    found.children = [
        (f"{name}-seed{seed}", {"method": name, "seed": seed}, model["history"])
        for name, by_seed in models.items()
        for seed, model in zip(params.seeds, by_seed, strict=True)
    ]
    found.keep = {"diffusionbert": models[OURS][0], "samples": written[OURS, params.writing.calls[-1]][0]["samples"]}


def _outputs(by_seed: list[Any]) -> list[dict[str, str]]:
    return [one["outputs"] for one in by_seed]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
