"""LPT: a prompt put in the middle of a frozen encoder, made of the text itself (Late Prompt Tuning, Liu et al., 2022).

Late prompts, free or generated, against prompts at the input and at every layer, LoRA, adapters, biases and full
fine-tuning: the same handful of examples, the same head over the labels, the same steps. Learning rates and the
generator are chosen on dev examples with the first seed; what another layer would give is shown, not chosen from.
"""

from typing import Any

from prefect import flow
from pydantic import Field, model_validator

from paperflows.flows.params import BySource, FlowParameters
from paperflows.flows.prompts import Corpora, Encoder, Tuning, joined, notes_on_shots, prepare_encoder, with_rates
from paperflows.flows.registry import Paper
from paperflows.tasks import plots
from paperflows.tasks.claims import Claim, judge_claim
from paperflows.tasks.data import load_dataset
from paperflows.tasks.prompts import draw_shots, time_tuning, tune_encoder
from paperflows.tasks.run import open_run
from paperflows.tasks.runner import runner


class Lpt(FlowParameters):
    """Parameters of the flow `lpt`."""

    datasets: BySource[Corpora]
    encoder: Encoder
    templates: dict[str, Any] = Field({}, description="Dataset -> pattern, words, sentences, for datasets of your own")
    shots: int = Field(ge=2, description="Examples of each class in train, and as many others in dev")
    evaluated: int = Field(ge=1, description="Test examples, at most")
    layer: int = Field(ge=1, description="Layers that the text passes before a late prompt enters")
    layers: tuple[int, ...] = Field(min_length=1, description="Insertion layers compared, on the first seed")
    generators: tuple[str, ...] = Field(
        ("npg", "appg", "mppg"), min_length=1, description="Late generators tried; dev chooses"
    )
    judged: tuple[str, ...] = Field(description="Of naive, input, full and further methods, those trained on all seeds")
    ranked: tuple[str, ...] = Field((), description="Trained on the first seed only: deep, lora, adapter, bitfit")
    rates: dict[str, tuple[float, ...]] = Field(description="Method -> learning rates tried; dev chooses")
    tuning: Tuning
    timing_repeats: int = Field(ge=2, description="Interleaved repeats of a training step")
    resamples: int = Field(1000, ge=100, description="Bootstrap resamples of every verdict")

    @model_validator(mode="after")
    def _known(self) -> "Lpt":
        if missing := {"naive", "input", "full"} - set(self.judged):
            raise ValueError(f"judged: {', '.join(sorted(missing))} cannot be left out, the claims compare them")
        with_rates([*self.generators, *self.judged, *self.ranked], self.rates)
        return self


PAPER = Paper(
    slug="lpt",
    title="Late Prompt Tuning: A Late Prompt Could Be Better Than Many Prompts",
    authors="Liu et al., Findings of EMNLP 2022",
    arxiv="2210.11292",
    parameters=Lpt,
)


@flow(name="lpt", timeout_seconds=24 * 3600, task_runner=runner())
def lpt(params: Lpt) -> dict[str, Any]:
    """Tune late prompts and their baselines on a handful of examples, and judge quality, speed and memory."""
    with open_run("lpt", PAPER.title, params) as found:
        names = params.datasets.of(params.data)
        data = [load_dataset(params.data, name, ["classification", "classification of a pair"]) for name in names.tasks]
        more = names.unlabelled if params.encoder.head == "words" else ()
        texts = [load_dataset(params.data, name) for name in more]
        model = prepare_encoder(params.encoder, [*data, *texts], data, params.device)
        shots = [
            [draw_shots(d, params.shots, params.evaluated, params.templates, seed) for d in data]
            for seed in params.seeds
        ]

        chosen = [choose(params, model, first) for first in shots[0]]
        tuned = {
            method: [
                [settled(params, model, s, chosen[at], method, seed) for at, s in enumerate(row)]
                for seed, row in zip(params.seeds, shots, strict=True)
            ]
            for method in ("late", *params.judged)
        }
        few = {
            method: [
                [settled(params, model, s, c, method, params.seeds[0]) for s, c in zip(shots[0], chosen, strict=True)]
            ]
            for method in params.ranked
        }
        place = names.tasks.index(names.timed)
        late = chosen[place]["late"]
        times = time_tuning(
            model, shots[0][place], late["method"], params.layer, params.tuning.model_dump() | head_of(params),
            params.timing_repeats, params.device,
        )  # fmt: skip

        claims = quality_claims(tuned, names.tasks) + cost_claims(times, names.timed)
        found.claims = [judge_claim(claim, params.resamples) for claim in claims]
        found.datasets = {d["name"]: d["content"] for d in [*data, *texts]}
        describe(found, params, tuned, few, chosen, times, model)
        found.notes += notes_on_shots(shots)
    return found.report


def head_of(params: Lpt) -> dict[str, str]:
    """Which head reads the encoder."""
    return {"head": params.encoder.head}


def tune(params: Lpt, model: Any, shots: Any, method: str, layer: int, rate: float, seed: int) -> Any:
    """One training."""
    settings = params.tuning.model_dump() | head_of(params)
    return tune_encoder.submit(method, model, shots, layer, rate, settings, seed, params.device)


def choose(params: Lpt, model: Any, shots: Any) -> dict[str, Any]:
    """The best on dev with the first seed: each method's rate, and the late prompt's kind; and the layers' curve."""
    seed = params.seeds[0]
    methods = dict.fromkeys([*params.generators, *params.judged, *params.ranked])
    pairs = [(method, rate) for method in methods for rate in params.rates[method]]
    trials = {(m, rate): tune(params, model, shots, m, params.layer, rate, seed) for m, rate in pairs}
    found = {m: best([trials[m, rate].result() for rate in params.rates[m]]) for m in methods}
    late = best([found[m] for m in params.generators])
    curve = [tune(params, model, shots, late["method"], n, late["rate"], seed) for n in params.layers]
    return found | {"late": late, "layers": [future.result() for future in curve]}


def best(tuned: list[Any]) -> Any:
    """The training with the best dev score; the first of equals."""
    return max(tuned, key=lambda t: t["score"])


def settled(params: Lpt, model: Any, shots: Any, chosen: dict[str, Any], method: str, seed: int) -> Any:
    """A training with the settings that dev chose."""
    like = chosen[method]
    return tune(params, model, shots, like["method"], params.layer, like["rate"], seed).result()


def quality_claims(tuned: dict[str, Any], tasks: tuple[str, ...]) -> list[Claim]:
    """Late against input prompts, generated against free, and against full fine-tuning."""
    shared = {"metric": "accuracy", "statistic": "mean", "datasets": list(tasks), "ours": joined(tuned["late"])}
    return [
        Claim(
            id="late_beats_input", baseline_name="prompt at the input", baseline=joined(tuned["input"]), **shared,
            statement="A generated prompt in the middle beats prompt tuning at the input",
        ),
        Claim(
            id="generated_beats_free", baseline_name="free vectors at the same layer", baseline=joined(tuned["naive"]),
            statement="A late prompt made of the text beats free vectors at the same layer", **shared,
        ),
        Claim(
            id="late_keeps_full", baseline_name="full fine-tuning", baseline=joined(tuned["full"]), **shared,
            compare="ratio", margin=0.97, statement="A late prompt keeps 97 % of full fine-tuning's accuracy",
        ),
    ]  # fmt: skip


def cost_claims(times: dict[str, Any], dataset: str) -> list[Claim]:
    """A training step's seconds and activation memory against prompt tuning at the input."""
    return [
        Claim(
            id="step_speed", metric="seconds of a step, input prompt / late prompt", compare="ratio", margin=1.5,
            statement="A training step of the late prompt is at least 1.5 times as fast", statistic="median",
            ours=[times["input"]], baseline=[times["late"]], baseline_name="late prompt", datasets=[dataset],
        ),
        Claim(
            id="step_memory", metric="bytes kept for the backward pass", compare="ratio", margin=0.6, statistic="mean",
            statement="The late prompt keeps at most 60 % of the activations", lower_is_better=True,
            ours=[times["bytes late"]], baseline=[times["bytes input"]], baseline_name="prompt at the input",
            datasets=[dataset],
        ),
    ]  # fmt: skip


def describe(
    found: Any, params: Lpt, tuned: dict[str, Any], few: dict[str, Any], chosen: Any, times: Any, model: Any
) -> None:
    """Metrics, plots and notes of the report."""
    bars: dict[str, dict[str, list[float]]] = {}
    for method, rows in (tuned | few).items():
        for at, first in enumerate(rows[0]):
            values = [row[at]["accuracy"] for row in rows]
            bars.setdefault(first["dataset"], {})[method] = values
            found.metrics[f"{first['dataset']}.{method}.accuracy"] = sum(values) / len(values)
            found.metrics[f"trained.{method}"] = float(first["trained"])
    curves: dict[str, list[tuple[float, float]]] = {}
    bits: dict[str, list[tuple[float, float]]] = {}
    for one in chosen:
        for t in one["layers"]:
            found.metrics[f"{t['dataset']}.layer{t['layer']}.dev"] = t["score"]
            found.metrics[f"{t['dataset']}.layer{t['layer']}.accuracy"] = t["accuracy"]
            found.metrics[f"{t['dataset']}.layer{t['layer']}.bits"] = t["information"]
            curves.setdefault(t["dataset"], []).append((t["layer"], t["accuracy"]))
            bits.setdefault(t["dataset"], []).append((t["layer"], t["information"]))
        late = one["late"]
        found.notes.append(f"{late['dataset']}: {late['method']} was chosen on dev.")
    for way in ("late", "stored", "input", "full"):
        found.metrics[f"step.{way}.seconds"] = times[f"median {way}"] / 3
        found.metrics[f"step.{way}.megabytes"] = times[f"median bytes {way}"] / 2**20
    found.metrics["stored.speedup"] = times["median late"] / times["median stored"]
    found.metrics["stored.different"] = times["different"]
    if model.get("score") is not None:
        found.metrics["masked_lm.accuracy"] = model["score"]
    found.model = params.encoder.model
    found.notes += [
        "Trainings among which dev chose: late (kinds and rates) "
        f"{sum(len(params.rates[g]) for g in params.generators)}; "
        + "; ".join(f"{m} {len(params.rates[m])}" for m in [*params.judged, *params.ranked])
        + ".",
        "Trained parameters differ by method: see trained.*; frozen parts run without dropout in training too.",
        "Late prompts train on stored states of their layer; stored.different counts test answers that this changes in "
        "the trainings that are timed.",
        "bits: what a linear probe finds of the labels in the mean last state, a lower bound of mutual information.",
    ]
    found.children = [
        (f"{name}-{t['dataset']}-seed{seed}", {"method": name, "seed": seed, "layer": t["layer"]}, t["history"])
        for name, rows in (tuned | few).items()
        for seed, row in zip(params.seeds, rows, strict=False)
        for t in row
    ]
    found.draw["accuracy.png"] = lambda path: plots.draw_bars(bars, path, ylabel="test accuracy")
    found.draw["layers.png"] = lambda path: plots.draw_lines(
        curves, path, xlabel="insertion layer", ylabel="test accuracy (first seed)"
    )
    found.draw["information.png"] = lambda path: plots.draw_lines(
        bits, path, xlabel="insertion layer", ylabel="bits of the label (first seed)"
    )
