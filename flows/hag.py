"""HAG: can a language model choose its own decoding configuration? (Wang et al., 2024).

Inputs of several families want different decoding: sums want greedy, continuations want sampling. For inputs of
validation every configuration worth trying is tried; the model is then taught to write the best one and to answer when
it is told one. On test it writes its settings, the decoder is set to them, and it reads them and answers; beside it the
same weights answer under fixed, random and otherwise chosen configurations, which they are told in the same way.

The paper searches one setting after another for every input. Here each family is searched so on a few inputs, and all
configurations kept of it are tried on every input: an input's score is pulled to its configuration's mean over the
family, and methods are compared by such means, so that every input needs a score under the same configurations.
"""

from statistics import fmean
from typing import Any

from prefect import flow
from pydantic import Field, model_validator

from paperflows.flows.params import BySource, FlowParameters, Section
from paperflows.flows.registry import Paper
from paperflows.tasks import plots
from paperflows.tasks.claims import Claim, judge_claim
from paperflows.tasks.data import load_dataset
from paperflows.tasks.decoding import (
    Family,
    best_single,
    choose_configurations,
    collect_family,
    label_inputs,
    prune_grid,
    ship_settings,
    sweep,
    train_writer,
)
from paperflows.tasks.run import open_run
from paperflows.tasks.runner import runner
from paperflows.tasks.self_regulation import (
    answer_by_methods,
    best_by_input,
    choose_recorded,
    constant_outputs,
    select_by_embedding,
    tune_writer,
)


class Inputs(Section):
    """What is asked, by the source of the data."""

    families: dict[str, Family] = Field(min_length=2, description="Name of a family -> its dataset and wordings")
    recorded: str = Field("", description="Dataset of chains recorded under several configurations, if there is one")


class Decoder(Section):
    """The tiny decoder, for `model: tiny`."""

    vocabulary: int = Field(ge=300, description="Byte-level tokens")
    width: int = Field(ge=8, description="Hidden size")
    layers: int = Field(ge=1, description="Layers")
    heads: int = Field(ge=1, description="Attention heads")
    hidden: int = Field(ge=8, description="Hidden size of the feed-forward layers")
    positions: int = Field(ge=32, description="Tokens of the longest input with its answer")


class Training(Section):
    """One training."""

    steps: int = Field(ge=1, description="Optimiser steps")
    batch_size: int = Field(ge=2, description="Sequences a step")
    learning_rate: float = Field(gt=0, description="Highest")


class Tuning(Training):
    """The tuning of a model that can answer already."""

    rank: int = Field(0, ge=0, le=1024, description="Of LoRA's updates; 0 tunes all weights")


class Search(Section):
    """The search for the best configuration of each validation input."""

    inputs: int = Field(ge=2, description="Validation inputs of a family")
    pruned_on: int = Field(ge=2, description="Of these, those on which the grid is pruned first")
    keep: int = Field(ge=1, description="Configurations kept of each family's walk")
    samples: int = Field(ge=2, description="Outputs of each input under each configuration")
    shrinkage: float = Field(4.0, ge=0, description="Samples that the family's mean counts for in an input's score")
    keep_flat: bool = Field(True, description="Learn from inputs on which all configurations score the same")


class Hag(FlowParameters):
    """Parameters of the flow `hag`."""

    inputs: BySource[Inputs]
    model: str = Field(description="tiny: trained here; else a folder or a Hugging Face id of a causal language model")
    decoder: Decoder
    encoder: str = Field(description="Encoder of the external selector: minilm, a folder or a Hugging Face id")
    training: Training = Field(description="Of the tiny decoder, before the search")
    grid: dict[str, tuple[float, ...]] = Field(description="Values of each setting; top_k 0 keeps all tokens")
    search: Search
    tuning: Tuning = Field(description="Of the settings, half of each batch; the other half goes on answering")
    limits: dict[str, int] = Field(description="Inputs of a family kept in train, validation and test")
    max_words: int = Field(ge=1, description="Of an input and of an answer")
    longest: int = Field(ge=1, description="Tokens of an output")
    evaluated: int = Field(ge=2, description="Test inputs of a family")
    samples: int = Field(ge=2, description="Outputs of each test input and method")
    resamples: int = Field(1000, ge=100, description="Bootstrap resamples of every verdict")

    @model_validator(mode="after")
    def _consistent(self) -> "Hag":
        if missing := {"train", "validation", "test"} - self.limits.keys():
            raise ValueError(f"limits: {', '.join(sorted(missing))} missing")
        for name, wanted, split in (
            ("search.inputs", self.search.inputs, "validation"),
            ("evaluated", self.evaluated, "test"),
        ):
            if wanted > self.limits[split]:
                raise ValueError(f"{name}: {wanted} are more than limits.{split} keeps, {self.limits[split]}")
        return self


PAPER = Paper(
    slug="hag",
    title="LLM can Achieve Self-Regulation via Hyperparameter Aware Generation",
    authors="Wang et al., Findings of ACL 2024",
    arxiv="2402.11251",
    parameters=Hag,
)

DEFAULT, GREEDY = [1.0, 1.0, 50, 1.0], [0.0, 1.0, 0, 1.0]
BASELINES = {
    "default": "the library's default",
    "random": "a random configuration for every input",
    "greedy": "greedy decoding",
    "global": "the best single configuration",
    "family": "the best configuration of each family, told its name",
    "selector": "a regression on a frozen embedding",
}


@flow(name="hag", timeout_seconds=3 * 24 * 3600, task_runner=runner())
def hag(params: Hag) -> dict[str, Any]:
    """Search the best configurations, teach the model to write them, and judge whether that pays."""
    with open_run("hag", PAPER.title, params) as found:
        wanted = params.inputs.of(params.data)
        grid, s, device = {k: list(v) for k, v in params.grid.items()}, params.search, params.device
        data = {f.dataset: load_dataset(params.data, f.dataset) for f in wanted.families.values()}
        families = [
            collect_family(name, f, data[f.dataset], params.limits, params.max_words)
            for name, f in wanted.families.items()
        ]
        kinds = [family.kind for family in wanted.families.values()]
        stored, default = None, DEFAULT
        if params.model != "tiny":
            default = ship_settings(params.model)
        else:
            decoder, training = params.decoder.model_dump(), params.training.model_dump()
            stored = train_writer(families, grid, decoder, training, params.seeds[0], device)

        walks = {
            f["name"]: prune_grid.submit(
                params.model, stored, f, kind, grid, s.pruned_on, s.samples, params.longest, device
            )
            for f, kind in zip(families, kinds, strict=True)
        }
        walked = {name: future.result() for name, future in walks.items()}
        configurations = choose_configurations(walked, s.keep)

        def search(split: str, model: Any, inputs: int, samples: int, seed: int, *, told: bool) -> list[Any]:
            swept = [
                sweep.submit(
                    params.model, model, f, kind, split, configurations, grid, inputs, samples, params.longest, seed,
                    device, told,
                )
                for f, kind in zip(families, kinds, strict=True)
            ]  # fmt: skip
            return [future.result() for future in swept]

        searched = search("validation", stored, s.inputs, s.samples, params.seeds[0] + 1000, told=False)
        labels = [
            label_inputs(f, scores, configurations, s.shrinkage, s.keep_flat)
            for f, scores in zip(families, searched, strict=True)
        ]
        single = configurations[best_single(families, searched)]
        tuning = [
            tune_writer.submit(params.model, stored, families, labels, grid, params.tuning.model_dump(), seed, device)
            for seed in params.seeds
        ]
        tuned = [future.result() for future in tuning]
        fixed = {
            "default": [default] * len(families),
            "greedy": [GREEDY] * len(families),
            "global": [single] * len(families),
            "family": [configurations[label["best"]] for label in labels],
        }
        selected = [
            select_by_embedding(f, families, searched, params.encoder, params.evaluated, device) for f in families
        ]
        answers = [
            answer_by_methods.submit(
                params.model, model, families, kinds, labels, fixed, selected, configurations, grid, params.evaluated,
                params.samples, params.longest, seed, device,
            )
            for model, seed in zip(tuned, params.seeds, strict=True)
        ]  # fmt: skip
        answered = [future.result() for future in answers]
        tested = search("test", tuned[0], params.evaluated, 2 * params.samples, params.seeds[0] + 2000, told=True)
        oracle = best_by_input(families, tested, labels)
        recorded = []
        if wanted.recorded:
            chains = load_dataset(params.data, wanted.recorded, ["reasoning chains"])
            data[wanted.recorded] = chains
            recorded = [choose_recorded(chains, params.encoder, 5, seed, device) for seed in params.seeds]

        named = BASELINES | ({} if params.model == "tiny" else {"default": "the settings that the model ships with"})
        claims = claims_of([f["name"] for f in families], answered, named, wanted.recorded, recorded)
        found.claims = [judge_claim(claim, params.resamples) for claim in claims]
        found.datasets = {d["name"]: d["content"] for d in data.values()}
        describe(found, params, families, walked, configurations, labels, fixed, answered, oracle, recorded, tuned)
    return found.report


def claims_of(
    families: list[str], answered: list[Any], named: dict[str, str], recorded_name: str, recorded: list[Any]
) -> list[Claim]:
    """The paper's claims, then the strong baselines, then the same question on a large model's recorded answers."""

    def of(method: str) -> list[dict[str, str]]:
        return [by_seed["of"][method] for by_seed in answered]

    def beats(identity: str, baseline: str, statement: str) -> Claim:
        return Claim(
            id=identity, statement=statement, metric="score, 0 to 1 in each family", ours=of("hag"),
            baseline=of(baseline), baseline_name=named[baseline], datasets=families, statistic="mean",
        )  # fmt: skip

    def passes(identity: str, output: str, bar: float, statement: str, metric: str) -> Claim:
        bars = [constant_outputs(hag, {output: bar}) for hag in of("hag")]
        return Claim(
            id=identity, statement=statement, metric=metric, ours=of("hag"), baseline=bars, baseline_name=f"{bar:g}",
            datasets=[output], statistic="mean",
        )  # fmt: skip

    claims = [
        beats("hag_beats_default", "default", f"The model's own settings beat {named['default']}"),
        beats("hag_beats_random", "random", "The model's own settings beat random ones"),
        beats("hag_beats_global", "global", "The model's own settings beat the best single configuration"),
        beats("hag_beats_greedy", "greedy", "The model's own settings beat greedy decoding"),
        beats("hag_beats_family", "family", "The model's own settings beat the best ones of each family"),
        beats("hag_beats_selector", "selector", "The model's own settings beat an external selector's"),
        passes("valid_settings", "valid", 0.99, "At least 99 % of the written settings are valid", "share valid"),
        passes(
            "settings_tell_families", "information", 0.5,
            "The written temperature tells more than half a bit about the family", "bits",
        ),
    ]  # fmt: skip
    for baseline, name in (("random", "a random configuration"), ("fixed", "the best fixed configuration")):
        if recorded:
            claims.append(
                Claim(
                    id=f"selector_beats_{baseline}_recorded",
                    statement=f"{recorded_name}: choosing by the question beats {name}",
                    metric="accuracy, contexts resampled", ours=[r["of"]["selector"] for r in recorded],
                    baseline=[r["of"][baseline] for r in recorded], baseline_name=name, datasets=[recorded_name],
                    statistic="ratio_of_sums",
                )
            )  # fmt: skip
    return claims


def describe(
    found: Any, params: Hag, families: list[Any], walked: Any, configurations: list[list[float]], labels: list[Any],
    fixed: Any, answered: list[Any], oracle: dict[str, float], recorded: list[Any], tuned: list[Any],
) -> None:  # fmt: skip
    """Metrics, plots, tables and notes of the report."""
    names = [f["name"] for f in families]
    for method in answered[0]["raw"]:
        for name in names:
            found.metrics[f"raw.{name}.{method}"] = fmean([a["raw"][method][name] for a in answered])
    for name, label in zip(names, labels, strict=True):
        found.metrics[f"temperature.{name}"] = fmean([a["temperatures"][name] for a in answered])
        found.metrics[f"oracle.{name}"] = oracle[name]
        found.metrics[f"flat.{name}"] = float(label["flat"])
    found.metrics["information_bits"] = fmean([a["information"] for a in answered])
    found.metrics["valid"] = fmean([a["valid"] for a in answered])
    for method in recorded[0]["mean"] if recorded else ():
        found.metrics[f"recorded.{method}"] = fmean([r["mean"][method] for r in recorded])
    best = [configurations[label["best"]] for label in labels]
    found.tables["Best configuration of each family, on validation"] = [
        {"family": name, "temperature": c[0], "top_p": c[1], "top_k": c[2], "repetition penalty": c[3]}
        for name, c in zip(names, best, strict=True)
    ]
    found.tables["Mean score on the way of the search"] = [
        {"family": name, "configuration": _said(entry["configuration"]), "score": round(entry["score"], 4)}
        for name, seen in walked.items()
        for entry in sorted(seen, key=lambda entry: -entry["score"])
    ]
    methods = list(answered[0]["raw"])
    groups = {name: {m: [a["raw"][m][name] for a in answered] for m in methods} for name in names}
    found.draw["scores.png"] = lambda path: plots.draw_bars(groups, path, ylabel="raw score")
    d = params.decoder
    tiny = f"decoder of {d.layers} layers of width {d.width}, trained here"
    found.model = tiny if params.model == "tiny" else params.model
    if params.tuning.rank:
        found.model += f", tuned by LoRA of rank {params.tuning.rank}"
    same = len({c[0] for c in best}) == 1
    found.notes = [
        f"{len(configurations)} configurations were tried on every validation input; the best single one is "
        f"{_said(fixed['global'][0])}. Every method answers with the same tuned weights and the same random numbers, "
        "and the settings stand in the prompt whoever chose them.",
        "The settings of an input are searched among these configurations, not one after another anew as in the paper; "
        "they are chosen on half of its samples and kept if they beat the family's best on the other half.",
        "Scores are normalised by the range of the families' mean scores over those configurations on validation; "
        "`raw` metrics are not. `oracle` chooses on half of the samples and scores on the other half.",
        "The model before the search, the search and its labels are those of the first seed; seeds vary what is learnt "
        "of them and what is drawn.",
    ]
    if same:
        found.notes.append(
            f"The best temperature of every family is {best[0][0]:g}: it cannot tell families apart in this run."
        )
    if recorded:
        found.notes.append(
            "The recorded answers differ by prompt and temperature; nearly all that a choice can gain there lies in "
            "the prompt."
        )
    found.children = [
        (f"tuned-seed{seed}", {"seed": seed}, model["history"]) for seed, model in zip(params.seeds, tuned, strict=True)
    ]
    found.keep = {"tuned": tuned[0]}


def _said(values: list[float]) -> str:
    return f"T {values[0]:g}, p {values[1]:g}, k {values[2]:g}, penalty {values[3]:g}"
