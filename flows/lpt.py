"""LPT: a prompt put in the middle of a frozen encoder, made of the text itself (Late Prompt Tuning, Liu et al., 2022).

Late prompts, free or generated, against prompts at the input and at every layer, LoRA, adapters, biases, full
fine-tuning and a linear probe: the same handful of examples, and for all but the probe the same head over the labels
and the same steps. Learning rates, generator and insertion layer are chosen on dev examples with the first seed.
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
from paperflows.tasks.prompts import check_layers, draw_shots, probe_shots, time_tuning, tune_encoder
from paperflows.tasks.run import open_run
from paperflows.tasks.runner import runner


class Lpt(FlowParameters):
    """Parameters of the flow `lpt`."""

    datasets: BySource[Corpora]
    encoder: Encoder
    templates: dict[str, Any] = Field({}, description="Dataset -> pattern, words, sentences, for datasets of your own")
    shots: int = Field(ge=2, description="Examples of each class in train, and as many others in dev")
    evaluated: int = Field(ge=1, description="Test examples, at most")
    layer: int = Field(ge=1, description="Layers that the text passes before a late prompt enters, in the first trials")
    layers: tuple[int, ...] = Field(description="Insertion layers tried next, by the best of those; dev chooses")
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

LATE = ("naive", "npg", "appg", "mppg")  # methods that read the layer


@flow(name="lpt", timeout_seconds=24 * 3600, task_runner=runner())
def lpt(params: Lpt) -> dict[str, Any]:
    """Tune late prompts and their baselines on a handful of examples, and judge quality, speed and memory."""
    with open_run("lpt", PAPER.title, params) as found:
        names = params.datasets.of(params.data)
        data = [load_dataset(params.data, name, ["classification", "classification of a pair"]) for name in names.tasks]
        more = names.unlabelled if params.encoder.head == "words" else ()
        texts = [load_dataset(params.data, name) for name in more]
        model = prepare_encoder(params.encoder, [*data, *texts], data, params.device)
        check_layers(model, [params.layer, *params.layers])
        shots = [
            [draw_shots(d, params.shots, params.evaluated, params.templates, seed) for d in data]
            for seed in params.seeds
        ]

        chosen = [choose(params, model, first) for first in shots[0]]
        tuned = {method: tune_all(params, model, method, shots, chosen) for method in ("late", *params.judged)}
        tuned["probe"] = [[probe_shots(model, s, settings_of(params), params.device) for s in row] for row in shots]
        few = {method: tune_all(params, model, method, shots[:1], chosen) for method in params.ranked}
        place = names.tasks.index(names.timed)
        late = chosen[place]["late"]
        times = time_tuning(
            model, shots[0][place], late["method"], late["layer"], settings_of(params), params.timing_repeats,
            params.device,
        )  # fmt: skip

        claims = quality_claims(tuned, names.tasks) + cost_claims(times, names.timed)
        found.claims = [judge_claim(claim, params.resamples) for claim in claims]
        found.datasets = {d["name"]: d["content"] for d in [*data, *texts]}
        describe(found, params, tuned, few, chosen, times, model)
        found.notes += notes_on_shots(shots)
    return found.report


def settings_of(params: Lpt) -> dict[str, Any]:
    """What every training takes."""
    return params.tuning.model_dump() | {"head": params.encoder.head}


def tune(params: Lpt, model: Any, shots: Any, method: str, layer: int, rate: float, seed: int) -> Any:
    """One training."""
    return tune_encoder.submit(method, model, shots, layer, rate, settings_of(params), seed, params.device)


def choose(params: Lpt, model: Any, shots: Any) -> dict[str, Any]:
    """The best on dev with the first seed: the late prompt's kind, rate, then layer; the rates of all other methods.

    Prompts judged beside the late one enter at its layer. "layers": the late prompt at every layer tried.
    """

    def tries(method: str, layer: int) -> list[Any]:
        return [tune(params, model, shots, method, layer, rate, params.seeds[0]) for rate in params.rates[method]]

    others = dict.fromkeys([*params.judged, *params.ranked])
    trials = {method: tries(method, params.layer) for method in others if method not in LATE}
    first = best([future for kind in params.generators for future in tries(kind, params.layer)])
    curve = [
        tune(params, model, shots, first["method"], layer, first["rate"], params.seeds[0])
        for layer in dict.fromkeys([params.layer, *params.layers])
    ]
    late = best(curve)
    trials |= {method: tries(method, late["layer"]) for method in others if method in LATE}
    found = {method: best(some) for method, some in trials.items()}
    return found | {"late": late, "layers": [future.result() for future in curve]}


def best(tried: list[Any]) -> Any:
    """The training with the best dev score; the first of equals."""
    return max([future.result() for future in tried], key=lambda t: t["score"])


def tune_all(
    params: Lpt, model: Any, method: str, shots: list[list[Any]], chosen: list[dict[str, Any]]
) -> list[list[Any]]:
    """One training for every seed of `shots` and every dataset, with the settings that dev chose."""
    futures = [
        [
            tune(params, model, s, c[method]["method"], c[method]["layer"], c[method]["rate"], seed)
            for s, c in zip(row, chosen, strict=True)
        ]
        for seed, row in zip(params.seeds, shots, strict=False)
    ]
    return [[future.result() for future in row] for row in futures]


def quality_claims(tuned: dict[str, Any], tasks: tuple[str, ...]) -> list[Claim]:
    """Late against input prompts, generated against free, and against full fine-tuning and a linear probe."""
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
        Claim(
            id="late_beats_probe", baseline_name="linear probe of the frozen encoder", baseline=joined(tuned["probe"]),
            statement="A late prompt beats a linear probe", **shared,
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
            id="step_memory", metric="bytes kept for the backward pass", compare="ratio", margin=0.6,
            statement="The late prompt keeps at most 60 % of the activations", lower_is_better=True, statistic="median",
            ours=[times["bytes late"]], baseline=[times["bytes input"]], baseline_name="prompt at the input",
            datasets=[dataset],
        ),
    ]  # fmt: skip


def late_trials(params: Lpt) -> int:
    """Trainings among which dev chooses the late prompt: kinds and rates, then the other layers."""
    return sum(len(params.rates[g]) for g in params.generators) + len({params.layer, *params.layers}) - 1


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
        for t in sorted(one["layers"], key=lambda t: t["layer"]):
            found.metrics[f"{t['dataset']}.layer{t['layer']}.dev"] = t["score"]
            found.metrics[f"{t['dataset']}.layer{t['layer']}.accuracy"] = t["accuracy"]
            found.metrics[f"{t['dataset']}.layer{t['layer']}.bits"] = t["information"]
            curves.setdefault(t["dataset"], []).append((t["layer"], t["accuracy"]))
            curves.setdefault(f"{t['dataset']} dev", []).append((t["layer"], t["score"]))
            bits.setdefault(t["dataset"], []).append((t["layer"], t["information"]))
        late = one["late"]
        found.metrics[f"{late['dataset']}.late.layer"] = float(late["layer"])
        found.notes.append(f"{late['dataset']}: {late['method']} at layer {late['layer']} was chosen on dev.")
    for way in ("late", "stored", "input", "full"):
        found.metrics[f"step.{way}.seconds"] = times[f"median {way}"] / 3
        found.metrics[f"step.{way}.megabytes"] = times[f"median bytes {way}"] / 2**20
    found.metrics["stored.speedup"] = times["median late"] / times["median stored"]
    found.metrics["stored.different"] = times["different"]
    if model.get("score") is not None:
        found.metrics["masked_lm.accuracy"] = model["score"]
    found.model = params.encoder.model
    found.notes += [
        f"Trainings among which dev chose: late (kinds and rates, then layers) {late_trials(params)}; "
        + "; ".join(f"{m} {len(params.rates[m])}" for m in [*params.judged, *params.ranked])
        + f". Of equals, the first tried: rates and layers in the order of the parameters, layer {params.layer} first. "
        "The probe chooses its strength anew with every seed, all others what they chose with the first.",
        "Naive prompts enter at the layer chosen for the late prompt, where their rate was chosen; steps are timed at "
        "that of the timed dataset.",
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
        curves, path, xlabel="insertion layer", ylabel="accuracy, test and dev (first seed)"
    )
    found.draw["information.png"] = lambda path: plots.draw_lines(
        bits, path, xlabel="insertion layer", ylabel="bits of the label (first seed)"
    )
