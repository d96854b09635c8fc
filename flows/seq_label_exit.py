"""SENTEE and TOKEE: taggers whose sentences, or single words, leave the encoder as soon as they are certain.

Stage 1 trains an exit at every layer; stage 2 trains on with words that leave as stage 1's own confidence says
(self-sampling), against stage 1 trained on for the same steps. Words that left are frozen and still attended to.
Quality is entity F1 for BIO tags and accuracy for parts of speech.
"""

from typing import Any

from prefect import flow
from pydantic import Field

from paperflows.flows.early_exit import TimedTasks, Timing, batch_sizes, describe_times, draw_curves, mean, speed_claim
from paperflows.flows.params import BySource, FlowParameters, Section
from paperflows.flows.registry import Paper
from paperflows.tasks.claims import Claim, judge_claim
from paperflows.tasks.data import load_dataset
from paperflows.tasks.exits import fetch_encoder
from paperflows.tasks.hashing import join_outputs
from paperflows.tasks.run import open_run
from paperflows.tasks.runner import runner
from paperflows.tasks.taggers import best_words, time_words, trace_sentences, trace_words, train_tagger
from paperflows.tasks.tradeoff import mean_outputs, outputs_along, rank_methods


class Training(Section):
    """Both stages; every method gets the steps of both."""

    examples: int = Field(ge=1, description="Training sentences drawn")
    validated: int = Field(ge=1, description="Validation sentences drawn, by which rules are chosen")
    evaluated: int = Field(ge=1, description="Test sentences drawn")
    max_length: int = Field(ge=8, le=512, description="Word pieces kept of a sentence")
    freeze_embeddings: bool = Field(description="Leave the embeddings as they are (saves a third of a small model)")
    steps: int = Field(ge=1, description="Optimiser steps of stage 1")
    more_steps: int = Field(ge=1, description="Optimiser steps of stage 2, and of what it is compared with")
    batch_size: int = Field(ge=1, description="Sentences a step")
    flooding: bool = Field(description="Stage 2 pushes no word's loss below what stage 1 reached")
    learning_rate: float = Field(gt=0, description="Of the encoder in stage 1")
    head_rate: float = Field(gt=0, description="Factor on it for the exits, which start fresh")
    more_rate: float = Field(gt=0, description="Learning rate of the encoder in stage 2")
    more_head_rate: float = Field(gt=0, description="Factor on it for the exits")


class SeqLabelExit(FlowParameters):
    """Parameters of the flow `seq_label_exit`."""

    datasets: BySource[TimedTasks]
    encoder: str = Field(description="minilm, a folder or a Hugging Face id of a BERT-like encoder")
    frozen: str = Field(
        pattern="^(renorm|copy)$", description="A frozen state: normalised by each layer anew, or copied as it is"
    )
    training: Training
    reaches: tuple[int, ...] = Field(
        min_length=1, description="k of the windows that stage 2 draws, and that are tried beside k = 0"
    )
    thresholds: tuple[float, ...] = Field(
        min_length=2, description="delta, of TOKEE's lower half of the layers: those that stage 2 draws"
    )
    measured: tuple[float, ...] = Field((), description="Those that TOKEE is measured at, if they are others")
    depths: tuple[int, ...] = Field(min_length=1, description="Depths of truncated models")
    ranked_seeds: int = Field(ge=1, description="Seeds of methods that are reported but that no claim needs")
    speedups: tuple[float, float] = Field(
        description="FLOPs speed-ups at which claims are judged; the second is larger"
    )
    timing: Timing
    resamples: int = Field(1000, ge=100, description="Bootstrap resamples of every verdict")


PAPER = Paper(
    slug="seq_label_exit",
    title="Accelerating BERT Inference for Sequence Labeling via Early-Exit",
    authors="Li et al., ACL 2021",
    arxiv="2105.13878",
    parameters=SeqLabelExit,
)

REACHED = 1.05  # a budget that costs exceed by no more


@flow(name="seq_label_exit", timeout_seconds=24 * 3600, task_runner=runner())
def seq_label_exit(params: SeqLabelExit) -> dict[str, Any]:
    """Tag words with an encoder that they leave one by one, and judge that against sentences, depths and the clock."""
    with open_run("seq_label_exit", PAPER.title, params) as found:
        names = params.datasets.of(params.data)
        splits = ["train", "validation", "test"]
        data = [load_dataset(params.data, name, ["tagging", "relations"], splits) for name in names.tasks]
        start = fetch_encoder(params.encoder)

        taggers = train_all(params, start, data)
        finely = params.measured or params.thresholds
        tokee = {
            model: trace_all(params, taggers[model], data, windows(params), finely)
            for model in ("sampled", "continued")
        }
        t = params.training.model_dump()
        sentee = [
            [trace_sentences(tagger, d, t, params.device) for tagger, d in zip(row, data, strict=True)]
            for row in taggers["continued"]
        ]
        coarsely = params.thresholds
        ablations = trace_all(params, taggers["sampled"][:1], data, variants(params), coarsely, chosen_from=False)
        dealt = trace_all(params, taggers["random"], data, windows(params)[:1], coarsely, chosen_from=False)

        place = names.tasks.index(names.timed)
        times = time_words(
            taggers["sampled"][0][place], data[place], windows(params)[0], 1 / params.speedups[0],
            tokee["sampled"][0][place][0], params.timing.model_dump(), params.device,
        )  # fmt: skip

        ours = {
            speedup: [best_words(row, dict.fromkeys(names.tasks, 1 / speedup)) for row in tokee["sampled"]]
            for speedup in params.speedups
        }
        chosen = {"sampled": ours} | {
            who: {speedup: at_equal_cost(curves, ours[speedup]) for speedup in params.speedups}
            for who, curves in (("continued", tokee["continued"]), ("sentee", sentee))
        }
        claims = [
            *claims_of(params, taggers, tokee, chosen, names),
            speed_claim(times, batch_sizes(times)[-1], names.timed),
        ]
        found.claims = [judge_claim(claim, params.resamples) for claim in claims]
        found.datasets = {d["name"]: d["content"] for d in data}
        describe(found, params, taggers, tokee, sentee, chosen, ablations, dealt, times)
        found.keep = {"tagger": taggers["sampled"][0][place]}
    return found.report


def at_equal_cost(curves: list[list[Any]], ours: list[Any]) -> list[Any]:
    """For each seed the best rule of these at what ours really spends, dataset by dataset."""
    return [best_words(row, one["costs"]) for row, one in zip(curves, ours, strict=True)]


def at(speedup: float, chosen: list[Any]) -> str:
    """How a claim names a speed-up: as asked for, or what TOKEE spends where its rules do not reach it."""
    dearest = max(cost for one in chosen for cost in one["costs"].values())
    return f"{speedup:g}x" if dearest <= REACHED / speedup else f"{1 / dearest:.2f}x (it does not reach {speedup:g}x)"


def train_all(params: SeqLabelExit, start: Any, data: list[Any]) -> dict[str, list[list[Any]]]:
    """Stage 1, and from it: self-sampling, the same steps of stage 1, random exits; truncated models apart."""
    t = params.training.model_dump()
    first = t | {"before": 0}
    second = t | {
        "steps": params.training.more_steps, "before": params.training.steps,
        "learning_rate": params.training.more_rate, "head_rate": params.training.more_head_rate,
        "reaches": list(params.reaches), "thresholds": list(params.thresholds),
    }  # fmt: skip
    whole = first | {"steps": params.training.steps + params.training.more_steps}

    def train(stage: str, starts: Any, settings: dict[str, Any], depth: int | None = None) -> list[list[Any]]:
        return [
            [
                train_tagger(stage, s, d, depth, params.frozen, settings, seed, params.device)
                for s, d in zip(row, data, strict=True)
            ]
            for seed, row in zip(params.seeds, starts, strict=False)
        ]

    fresh = [[start] * len(data) for _ in params.seeds]
    joint = train("joint", fresh, first)
    return {
        "joint": joint,
        "sampled": train("self_sampling", joint, second),
        "continued": train("joint", joint, second),
        "random": train("random_exits", joint[: params.ranked_seeds], second),
        **{f"truncated{n}": train("last", fresh, whole, n) for n in params.depths},
    }


def windows(params: SeqLabelExit) -> list[dict[str, Any]]:
    """TOKEE's rules that validation chooses from; the first looks at the word alone."""
    return [{"name": f"tokee k{reach}", "reach": reach} for reach in sorted({0, *params.reaches})]


def variants(params: SeqLabelExit) -> list[dict[str, Any]]:
    """What TOKEE is taken apart into: the repository's window, no copying, exits dealt at random."""
    widest = max(params.reaches)
    return [
        {"name": f"tokee k{widest} all words", "reach": widest, "over": "all"},
        {"name": "tokee k0 nothing copied", "copied": False},
        {"name": "tokee k0 exits at random", "control": 0},
    ]


def trace_all(
    params: SeqLabelExit, taggers: Any, data: list[Any], rules: list[dict[str, Any]], thresholds: tuple[float, ...],
    *, chosen_from: bool = True,
) -> list[list[list[Any]]]:  # fmt: skip
    """For each seed and dataset, one curve a rule."""
    t = params.training.model_dump()
    return [
        [
            [trace_words(tagger, d, rule, list(thresholds), t, params.device, chosen_from) for rule in rules]
            for tagger, d in zip(row, data, strict=True)
        ]
        for row in taggers
    ]


def claims_of(params: SeqLabelExit, taggers: Any, tokee: Any, chosen: Any, names: TimedTasks) -> list[Claim]:
    """The paper's claims; thresholds and windows are those that validation prefers at each speed-up (`chosen`)."""
    shared = {"metric": "F1 or accuracy", "statistic": "f1", "datasets": list(names.tasks)}
    low, high = params.speedups
    ours = chosen["sampled"]

    said = {speedup: at(speedup, ours[speedup]) for speedup in params.speedups}

    def cut(speedup: float) -> list[Any]:
        spent = [{name: [cost] for name, cost in one["costs"].items()} for one in ours[speedup]]
        return [
            join_outputs([outputs_along(t["static"], costs) for t in row])
            for row, costs in zip(taggers["continued"], spent, strict=True)
        ]

    full = [join_outputs([mean_outputs(t["static"], -1) for t in row]) for row in taggers["continued"]]
    claims = [
        Claim(
            id=f"tokee_keeps_quality_{speedup:g}x", margin=margin, compare="ratio", **shared,
            statement=f"TOKEE at {said[speedup]} keeps {margin:.0%} of the full model's quality",
            ours=ours[speedup], baseline=full, baseline_name="all layers, same steps",
        )
        for speedup, margin in ((low, 0.97), (high, 0.93))
    ]  # fmt: skip
    for speedup in (low, high):
        claims += [
            Claim(
                id=f"tokee_beats_sentee_{speedup:g}x", margin=-0.003, **shared,
                statement=f"At {said[speedup]} words that leave one by one are no worse than sentences that leave",
                ours=ours[speedup], baseline=chosen["sentee"][speedup], baseline_name="SENTEE, same steps",
            ),
            Claim(
                id=f"tokee_beats_static_{speedup:g}x", **shared,
                statement=f"At {said[speedup]} TOKEE beats cutting the joint model at equal FLOPs",
                ours=ours[speedup], baseline=cut(speedup), baseline_name="the joint model cut, same steps",
            ),
        ]  # fmt: skip
        layers = len(taggers["joint"][0][0]["static"]["points"][names.tasks[0]])
        fitting = [n for n in params.depths if n <= layers / speedup]
        if fitting and said[speedup] == f"{speedup:g}x":  # else no depth stands for what TOKEE spends
            cheap = taggers[f"truncated{max(fitting)}"]
            claims.append(
                Claim(
                    id=f"tokee_beats_truncated_{speedup:g}x", **shared,
                    statement=f"At {speedup:g}x TOKEE beats a model of {max(fitting)} layers that was trained for it",
                    ours=ours[speedup],
                    baseline=[join_outputs([mean_outputs(t["static"], -1) for t in row]) for row in cheap],
                    baseline_name="truncated, same steps",
                )
            )  # fmt: skip
    claims.append(
        Claim(
            id="self_sampling_helps", **shared,
            statement=f"Self-sampling beats stage 1 trained on for the same steps, at {said[high]}",
            ours=ours[high], baseline=chosen["continued"][high], baseline_name="stage 1 continued",
        )
    )  # fmt: skip
    if max(params.reaches) > 0:
        budget = dict.fromkeys(names.tasks, 1 / high)
        wider = [best_words([curves[1:] for curves in row], budget) for row in tokee["sampled"]]
        alone = at_equal_cost([[curves[:1] for curves in row] for row in tokee["sampled"]], wider)
        claims.append(
            Claim(
                id="window_helps", **shared,
                statement=f"Looking at the neighbours beats looking at the word alone, at {at(high, wider)}",
                ours=wider, baseline=alone, baseline_name="k = 0",
            )
        )  # fmt: skip
    return claims


def describe(
    found: Any, params: SeqLabelExit, taggers: Any, tokee: Any, sentee: Any, chosen: Any, ablations: Any, dealt: Any,
    times: Any,
) -> None:  # fmt: skip
    """Metrics, leaderboard, plots and notes of the report."""
    submitted = {"joint static": _points([[t["static"]] for t in row] for row in taggers["continued"])}
    for place, pooled in enumerate(("sentee", "sentee by the mean")):
        submitted[pooled] = _points([[c[place]] for c in row] for row in sentee)
    for model, curves in tokee.items():
        for place, rule in enumerate(windows(params)):
            submitted[f"{rule['name']}, {model}"] = _points([[c[place]] for c in row] for row in curves)
    submitted["tokee k0, random self-sampling"] = _points(dealt)
    sizes = dict.fromkeys(submitted, taggers["joint"][0][0]["parameters"])
    found.leaderboard = rank_methods(submitted, "joint static", sizes)
    for place, first in enumerate(taggers["joint"][0]):
        name = first["dataset"]
        for model in ("joint", "sampled", "continued"):
            for depth, _ in enumerate(first["static"]["points"][name]):
                values = [row[place]["static"]["points"][name][depth][1] for row in taggers[model]]
                found.metrics[f"{name}.{model}.exit{depth + 1}"] = mean(values)
        for n in params.depths:
            values = [row[place]["static"]["points"][name][-1][1] for row in taggers[f"truncated{n}"]]
            found.metrics[f"{name}.truncated.depth{n}"] = mean(values)
        for rule, curve in zip(variants(params), ablations[0][place], strict=True):
            for cost, quality, setting in curve["points"][name]:
                found.metrics[f"{name}.{rule['name']}.{setting:g}.speedup"] = 1 / cost
                found.metrics[f"{name}.{rule['name']}.{setting:g}.quality"] = quality
    for who, by_speedup in chosen.items():
        for speedup, at in by_speedup.items():
            for name in at[0]["costs"]:
                found.metrics[f"{name}.{who} at {speedup:g}x.speedup"] = mean([1 / one["costs"][name] for one in at])
    found.model = params.encoder
    found.notes = [
        "Entity F1 as seqeval's default counts (an I- without B- starts an entity); parts of speech by accuracy.",
        "Every model but stage 1 has had the steps of both stages, on the same sentences in the same order. Costs "
        "include the exits on all words. SENTEE and TOKEE take the rule that validation prefers: SENTEE of a hundred "
        "thresholds on the highest or the mean uncertainty, TOKEE of its windows and "
        f"{len(params.measured or params.thresholds)} thresholds each.",
    ]
    found.children = [
        (f"{model}-{t['dataset']}-seed{seed}", {"method": model, "seed": seed}, t["history"])
        for model, rows in taggers.items()
        for seed, row in zip(params.seeds, rows, strict=False)
        for t in row
    ]
    describe_times(found, times)
    draw_curves(found, submitted, ylabel="F1 or accuracy")


def _points(rows: Any) -> list[dict[str, list[list[float]]]]:
    """For each seed: dataset -> points, of the first curve of each dataset."""
    return [{name: points for curves in row for name, points in curves[0]["points"].items()} for row in rows]
