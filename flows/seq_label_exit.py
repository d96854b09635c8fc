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
from paperflows.tasks.taggers import best_words, time_words, trace_words, train_tagger
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
    more_rate: float = Field(gt=0, description="Of the encoder in stage 2")
    head_rate: float = Field(gt=0, description="Factor on the learning rate of exits, which start fresh")


class SeqLabelExit(FlowParameters):
    """Parameters of the flow `seq_label_exit`."""

    datasets: BySource[TimedTasks]
    encoder: str = Field(description="minilm, a folder or a Hugging Face id of a BERT-like encoder")
    frozen: str = Field(
        pattern="^(renorm|copy)$", description="A frozen state: normalised by each layer anew, or copied as it is"
    )
    training: Training
    reaches: tuple[int, ...] = Field(min_length=1, description="k of the windows tried; validation chooses")
    thresholds: tuple[float, ...] = Field(min_length=2, description="delta, of TOKEE's lower half of the layers")
    sentence_thresholds: tuple[float, ...] = Field(min_length=2, description="delta of SENTEE")
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


@flow(name="seq_label_exit", timeout_seconds=24 * 3600, task_runner=runner())
def seq_label_exit(params: SeqLabelExit) -> dict[str, Any]:
    """Tag words with an encoder that they leave one by one, and judge that against sentences, depths and the clock."""
    with open_run("seq_label_exit", PAPER.title, params) as found:
        names = params.datasets.of(params.data)
        data = [load_dataset(params.data, name, ["tagging", "relations"]) for name in names.tasks]
        start = fetch_encoder(params.encoder)

        taggers = train_all(params, start, data)
        tokee = {model: trace_all(params, taggers[model], data, windows(params)) for model in ("sampled", "continued")}
        sentee = trace_all(params, taggers["continued"], data, [{"name": "sentee", "sentence": True}])
        ablations = trace_all(params, taggers["sampled"][:1], data, variants(params))
        dealt = trace_all(params, taggers["random"], data, windows(params)[:1])

        place = names.tasks.index(names.timed)
        times = time_words(
            taggers["sampled"][0][place], data[place], windows(params)[0], 1 / params.speedups[0],
            tokee["sampled"][0][place][0], params.timing.model_dump(), params.device,
        )  # fmt: skip

        claims = [
            *claims_of(params, taggers, tokee, sentee, names),
            speed_claim(times, batch_sizes(times)[-1], names.timed),
        ]
        found.claims = [judge_claim(claim, params.resamples) for claim in claims]
        found.datasets = {d["name"]: d["content"] for d in data}
        describe(found, params, taggers, tokee, sentee, ablations, dealt, times)
        found.keep = {"tagger": taggers["sampled"][0][place]}
    return found.report


def train_all(params: SeqLabelExit, start: Any, data: list[Any]) -> dict[str, list[list[Any]]]:
    """Stage 1, and from it: self-sampling, the same steps of stage 1, random exits; truncated models apart."""
    t = params.training.model_dump()
    first = t | {"steps": params.training.steps}
    second = t | {
        "steps": params.training.more_steps, "learning_rate": params.training.more_rate, "head_rate": 1.0,
        "reaches": list(params.reaches), "thresholds": list(params.thresholds),
    }  # fmt: skip
    whole = t | {"steps": params.training.steps + params.training.more_steps}

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
    """TOKEE's rules that validation chooses from."""
    return [{"name": f"tokee k{reach}", "reach": reach} for reach in params.reaches]


def variants(params: SeqLabelExit) -> list[dict[str, Any]]:
    """What TOKEE is taken apart into: the repository's window, no copying, exits dealt at random."""
    widest = max(params.reaches)
    return [
        {"name": f"tokee k{widest} all words", "reach": widest, "over": "all"},
        {"name": "tokee k0 nothing copied", "copied": False},
        {"name": "tokee k0 exits at random", "control": 0},
    ]


def trace_all(
    params: SeqLabelExit, taggers: Any, data: list[Any], rules: list[dict[str, Any]]
) -> list[list[list[Any]]]:
    """For each seed and dataset, one curve a rule."""
    t = params.training.model_dump()
    return [
        [
            [
                trace_words(
                    tagger, d, rule,
                    list(params.sentence_thresholds if rule.get("sentence") else params.thresholds), t, params.device,
                )
                for rule in rules
            ]
            for tagger, d in zip(row, data, strict=True)
        ]
        for row in taggers
    ]  # fmt: skip


def claims_of(params: SeqLabelExit, taggers: Any, tokee: Any, sentee: Any, names: TimedTasks) -> list[Claim]:
    """The paper's claims; thresholds and windows are those that validation prefers at each speed-up."""
    shared = {"metric": "F1 or accuracy", "statistic": "f1", "datasets": list(names.tasks)}
    low, high = params.speedups

    def at(curves: list[Any], speedup: float) -> list[Any]:
        return [best_words(by_dataset, 1 / speedup) for by_dataset in curves]

    def cut(speedup: float) -> list[Any]:
        costs = {name: [1 / speedup] for name in names.tasks}
        return [join_outputs([outputs_along(t["static"], costs) for t in row]) for row in taggers["continued"]]

    full = [join_outputs([mean_outputs(t["static"], -1) for t in row]) for row in taggers["continued"]]
    ours = {speedup: at(tokee["sampled"], speedup) for speedup in (low, high)}
    claims = [
        Claim(
            id=f"tokee_keeps_quality_{speedup:g}x", margin=margin, compare="ratio", **shared,
            statement=f"TOKEE at {speedup:g}x keeps {margin:.0%} of the full model's quality",
            ours=ours[speedup], baseline=full, baseline_name="all layers, same steps",
        )
        for speedup, margin in ((low, 0.97), (high, 0.93))
    ]  # fmt: skip
    for speedup in (low, high):
        claims += [
            Claim(
                id=f"tokee_beats_sentee_{speedup:g}x", margin=-0.003, **shared,
                statement=f"At {speedup:g}x words that leave one by one are no worse than sentences that leave",
                ours=ours[speedup], baseline=at(sentee, speedup), baseline_name="SENTEE, same steps",
            ),
            Claim(
                id=f"tokee_beats_static_{speedup:g}x", **shared,
                statement=f"At {speedup:g}x TOKEE beats cutting the joint model at equal FLOPs",
                ours=ours[speedup], baseline=cut(speedup), baseline_name="the joint model cut, same steps",
            ),
        ]  # fmt: skip
        layers = len(taggers["joint"][0][0]["static"]["points"][names.tasks[0]])
        if fitting := [n for n in params.depths if n <= layers / speedup]:
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
            statement=f"Self-sampling beats stage 1 trained on for the same steps, at {high:g}x",
            ours=ours[high], baseline=at(tokee["continued"], high), baseline_name="stage 1 continued",
        )
    )  # fmt: skip
    if len(params.reaches) > 1:
        wider = [[curves[1:] for curves in row] for row in tokee["sampled"]]
        alone = [[curves[:1] for curves in row] for row in tokee["sampled"]]
        claims.append(
            Claim(
                id="window_helps", **shared,
                statement=f"Looking at the neighbours beats looking at the word alone, at {high:g}x",
                ours=at(wider, high), baseline=at(alone, high), baseline_name="k = 0",
            )
        )  # fmt: skip
    return claims


def describe(
    found: Any, params: SeqLabelExit, taggers: Any, tokee: Any, sentee: Any, ablations: Any, dealt: Any, times: Any
) -> None:
    """Metrics, leaderboard, plots and notes of the report."""
    submitted = {"joint static": _points([[t["static"]] for t in row] for row in taggers["continued"])}
    submitted["sentee"] = _points(sentee)
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
    found.model = params.encoder
    found.notes = [
        "Entity F1 as seqeval's default counts (an I- without B- starts an entity); parts of speech by accuracy.",
        "Every model but stage 1 has had the steps of both stages. Costs include the exits on all words.",
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
