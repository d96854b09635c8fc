"""BBTv2: prompts at every layer found by forward passes alone, layer by layer (Sun et al., 2022).

CMA-ES in a random subspace a layer, against CMA-ES at the input alone (BBT), random candidates in the same subspaces
and no search, for the same number of forward calls; and against what gradients give on the same examples. What lies
below the layer tuned is computed once.
"""

from typing import Any

from prefect import flow
from pydantic import Field, model_validator

from paperflows.flows.params import BySource, FlowParameters, Section
from paperflows.flows.prompts import Corpora, Encoder, Tuning, joined, notes_on_shots, prepare_encoder, with_rates
from paperflows.flows.registry import Paper
from paperflows.tasks import plots
from paperflows.tasks.blackbox import search_prompts, time_prefixes
from paperflows.tasks.claims import Claim, judge_claim
from paperflows.tasks.data import load_dataset
from paperflows.tasks.prompts import draw_shots, probe_shots, tune_encoder
from paperflows.tasks.run import open_run
from paperflows.tasks.runner import runner


class Search(Section):
    """A search by forward calls; the same budget for all."""

    length: int = Field(ge=1, le=512, description="Vectors of a prompt")
    dimensions: int = Field(ge=2, le=5000, description="Of each random subspace")
    population: int = Field(ge=4, le=1000, description="Candidates at a time; each counts as a forward call")
    budget: int = Field(ge=4, description="Forward calls in all")
    sigma: float = Field(gt=0, description="First step of CMA-ES")
    alpha: float = Field(gt=0, description="Scale of the first candidates' prompts, in units of their projection's")
    projection: str = Field(
        pattern="^(states|normal|uniform)$",
        description="states: scaled like what enters each layer; normal: at the input like the word embeddings, as in "
        "the paper; uniform: one scale for every layer, as in BBT's first version",
    )
    loss: str = Field(pattern="^(cross_entropy|hinge)$", description="On the logits of the labels")
    margin: float = Field(2.0, gt=0, description="Of the hinge loss")
    max_length: int = Field(ge=8, le=512, description="Tokens kept of a text")
    evaluate_every: int = Field(ge=1, description="Calls between looks at dev; the best prompts are kept")


class Bbtv2(FlowParameters):
    """Parameters of the flow `bbtv2`."""

    datasets: BySource[Corpora]
    encoder: Encoder
    templates: dict[str, Any] = Field({}, description="Dataset -> pattern, words, sentences, for datasets of your own")
    shots: int = Field(ge=2, description="Examples of each class in train, and as many others in dev")
    evaluated: int = Field(ge=1, description="Test examples, at most")
    search: Search
    compare_heads: bool = Field(description="Also score a masked-LM head without a search, to see what it can tell")
    tuning: Tuning
    rates: dict[str, tuple[float, ...]] = Field(description="Method by gradient -> learning rates tried; dev chooses")
    ranked: tuple[str, ...] = Field((), description="Methods by gradient beside input, on the first seed only")
    timing_repeats: int = Field(ge=2, description="Interleaved repeats of a sweep over all layers")
    resamples: int = Field(1000, ge=100, description="Bootstrap resamples of every verdict")

    @model_validator(mode="after")
    def _known(self) -> "Bbtv2":
        with_rates(["input", *self.ranked], self.rates)
        return self


PAPER = Paper(
    slug="bbtv2",
    title="BBTv2: Towards a Gradient-Free Future with Large Language Models",
    authors="Sun et al., EMNLP 2022",
    arxiv="2205.11200",
    parameters=Bbtv2,
)

SEARCHES = ("bbtv2", "bbt", "random", "manual")


@flow(name="bbtv2", timeout_seconds=24 * 3600, task_runner=runner())
def bbtv2(params: Bbtv2) -> dict[str, Any]:
    """Search prompts on a few examples without gradients, and judge that at equal calls and against gradients."""
    with open_run("bbtv2", PAPER.title, params) as found:
        names = params.datasets.of(params.data)
        data = [load_dataset(params.data, name, ["classification", "classification of a pair"]) for name in names.tasks]
        texts = [load_dataset(params.data, name) for name in names.unlabelled]
        model = prepare_encoder(params.encoder, [*data, *texts], data, params.device)
        shots = [
            [draw_shots(d, params.shots, params.evaluated, params.templates, seed) for d in data]
            for seed in params.seeds
        ]

        searched = {method: search_all(params, model, method, shots) for method in SEARCHES}
        chosen = [choose_rates(params, model, first) for first in shots[0]]
        tuned = {"input": tune_all(params, model, "input", shots, chosen)}
        tuned |= {m: tune_all(params, model, m, shots[:1], chosen) for m in params.ranked}
        tuned["probe"] = [[probe_shots(model, s, search_settings(params), params.device) for s in row] for row in shots]
        words = score_words(params, [*data, *texts], data, shots[0]) if params.compare_heads else None

        place = names.tasks.index(names.timed)
        times = time_prefixes(model, shots[0][place], search_settings(params), params.timing_repeats, params.device)
        claims = claims_of(searched, tuned, times, names)
        found.claims = [judge_claim(claim, params.resamples) for claim in claims]
        found.datasets = {d["name"]: d["content"] for d in [*data, *texts]}
        describe(found, params, searched, tuned, words, times)
        found.notes += notes_on_shots(shots)
    return found.report


def search_settings(params: Bbtv2) -> dict[str, Any]:
    """What a search takes."""
    return params.search.model_dump() | {"head": params.encoder.head}


def search_all(params: Bbtv2, model: Any, method: str, shots: list[list[Any]]) -> list[list[Any]]:
    """One search for every seed and dataset."""
    futures = [
        [search_prompts.submit(method, model, s, search_settings(params), seed, params.device) for s in row]
        for seed, row in zip(params.seeds, shots, strict=True)
    ]
    return [[future.result() for future in row] for row in futures]


def tune(params: Bbtv2, model: Any, method: str, shots: Any, rate: float, seed: int) -> Any:
    """One training by gradient, with prompts as long as the searched ones."""
    settings = params.tuning.model_dump() | {"head": params.encoder.head, "length": params.search.length}
    return tune_encoder(method, model, shots, 1, rate, settings, seed, params.device)


def choose_rates(params: Bbtv2, model: Any, shots: Any) -> dict[str, float]:
    """Method -> the learning rate that is best on dev with the first seed."""
    rates = {}
    for method in ("input", *params.ranked):
        tried = [tune(params, model, method, shots, rate, params.seeds[0]) for rate in params.rates[method]]
        rates[method] = max(tried, key=lambda t: t["score"])["rate"]
    return rates


def tune_all(
    params: Bbtv2, model: Any, method: str, shots: list[list[Any]], chosen: list[dict[str, float]]
) -> list[list[Any]]:
    """One training for every seed of `shots` and every dataset."""
    return [
        [tune(params, model, method, s, rates[method], seed) for s, rates in zip(row, chosen, strict=True)]
        for seed, row in zip(params.seeds, shots, strict=False)
    ]


def score_words(params: Bbtv2, texts: list[Any], data: list[Any], shots: list[Any]) -> dict[str, Any]:
    """A masked-LM head trained for this encoder: its accuracy on masked tokens, and label words without a search."""
    model = prepare_encoder(params.encoder, texts, data, params.device, head="words")
    settings = search_settings(params) | {"head": "words"}
    manual = [search_prompts("manual", model, s, settings, params.seeds[0], params.device) for s in shots]
    return {"masked_lm": model["score"], "manual": manual}


def claims_of(searched: dict[str, Any], tuned: dict[str, Any], times: dict[str, Any], names: Any) -> list[Claim]:
    """Searches at equal calls, the share of what gradients give, and the speed of stored prefixes."""
    shared = {"metric": "accuracy", "statistic": "mean", "datasets": list(names.tasks)}
    rows = {name: joined(some) for name, some in searched.items()}
    return [
        Claim(
            id="layers_beat_input", ours=rows["bbtv2"], baseline=rows["bbt"], baseline_name="BBT at equal calls",
            statement="Searching at every layer beats searching at the input", **shared,
        ),
        Claim(
            id="layers_beat_random", ours=rows["bbtv2"], baseline=rows["random"], **shared,
            baseline_name="random candidates at equal calls",
            statement="Searching at every layer beats random candidates in the same subspaces",
        ),
        Claim(
            id="input_beats_random", ours=rows["bbt"], baseline=rows["random"], **shared,
            baseline_name="random candidates at equal calls",
            statement="Searching at the input beats random candidates at every layer",
        ),
        Claim(
            id="layers_beat_manual", ours=rows["bbtv2"], baseline=rows["manual"], baseline_name="no search", **shared,
            statement="Searching at every layer beats no prompt at all",
        ),
        Claim(
            id="keeps_gradient", ours=rows["bbtv2"], baseline=joined(tuned["input"]), compare="ratio", margin=0.95,
            baseline_name="prompt tuning by gradient", **shared,
            statement="Without a gradient, 95 % of what prompt tuning at the input reaches with one",
        ),
        Claim(
            id="prefix_speed", metric="seconds of a sweep, everything / stored", statistic="median", compare="ratio",
            statement="Starting from stored prefixes, a sweep over all layers is at least 1.5 times as fast",
            ours=[times["everything"]], baseline=[times["stored"]], baseline_name="stored prefixes", margin=1.5,
            datasets=[names.timed],
        ),
    ]  # fmt: skip


def describe(found: Any, params: Bbtv2, searched: Any, tuned: Any, words: Any, times: Any) -> None:
    """Metrics, plots and notes of the report."""
    bars: dict[str, dict[str, list[float]]] = {}
    curves: dict[str, list[tuple[float, float]]] = {}
    for method, rows in (searched | tuned).items():
        for at, first in enumerate(rows[0]):
            values = [row[at]["accuracy"] for row in rows]
            bars.setdefault(first["dataset"], {})[method] = values
            found.metrics[f"{first['dataset']}.{method}.accuracy"] = sum(values) / len(values)
            found.metrics[f"{first['dataset']}.{method}.dev"] = sum(row[at]["score"] for row in rows) / len(rows)
            if method in SEARCHES and first["calls"]:
                found.metrics[f"{method}.calls"] = float(first["calls"])
                found.metrics[f"{method}.layers_a_call"] = first["layers_run"] / first["calls"]
                curves[f"{method} {first['dataset']}"] = [(h["step"], h["loss"]) for h in first["history"]]
    depth = times["depth"]
    found.metrics["prefix.layers_ratio"] = depth * depth / (depth * (depth + 1) / 2)
    found.metrics["prefix.largest_difference"] = times["difference"]
    found.model = params.encoder.model
    found.notes = [
        "Checked in every search: no gradient can be taken of a loss, and by a hash of all weights that none changed.",
        f"{params.search.budget} calls are {params.search.budget // (params.search.population * depth)} populations "
        "for each layer; the paper takes 8,000 calls.",
        f"Prompt tuning by gradient has the learning rate that is best on dev with the first seed, of "
        f"{len(params.rates['input'])}, and is taken at the best of {params.tuning.evaluations} looks at dev; a search "
        "may also keep the prompts that it starts from.",
        f"prefix.layers_ratio is what stored prefixes can gain at {depth} layers by counting layers.",
    ]
    if words:
        found.metrics["masked_lm.accuracy"] = words["masked_lm"]
        for one in words["manual"]:
            found.metrics[f"{one['dataset']}.manual_words.accuracy"] = one["accuracy"]
        found.notes.append(
            "manual_words: label words at the mask token of a masked-LM head trained for this encoder; manual: cosines "
            "with the labels' sentences, which the searches here use."
        )
    found.children = [
        (f"{name}-{t['dataset']}-seed{seed}", {"method": name, "seed": seed}, t["history"])
        for name, rows in (searched | tuned).items()
        for seed, row in zip(params.seeds, rows, strict=False)
        for t in row
    ]
    found.draw["accuracy.png"] = lambda path: plots.draw_bars(bars, path, ylabel="test accuracy")
    found.draw["search.png"] = lambda path: plots.draw_lines(
        curves, path, xlabel="forward calls", ylabel="training loss (first seed)"
    )
