"""HashEE: a fixed hash sends each token to an exit layer, the same in training and use; nobody judges difficulty.

Consistent hashes against inconsistent ones at equal compute, the frequency hash against thresholds (entropy,
patience, BERxiT) and truncated models, whether difficulty could be learnt at all, and a language model with exits.
Everything starts from the same jointly trained exits, as the paper starts from ElasticBERT.
"""

from typing import Any

from prefect import flow
from pydantic import Field, model_validator

from paperflows.flows.early_exit import (
    TimedTasks,
    Timing,
    Training,
    batch_sizes,
    describe_times,
    draw_curves,
    mean,
    speed_claim,
)
from paperflows.flows.params import BySource, FlowParameters, Section
from paperflows.flows.registry import Paper
from paperflows.tasks.claims import Claim, judge_claim
from paperflows.tasks.data import load_dataset
from paperflows.tasks.difficulty import foresee_errors, study_difficulty
from paperflows.tasks.exits import SPLITS, fetch_encoder, train_exits
from paperflows.tasks.hashed_lm import train_hashed_lm
from paperflows.tasks.hashing import join_outputs, time_hashed, train_hashed
from paperflows.tasks.run import open_run
from paperflows.tasks.runner import runner
from paperflows.tasks.tradeoff import outputs_along, rank_methods, trace_policy, trace_static, trace_truncated


class Corpora(TimedTasks):
    """Names of datasets by their part in the flow."""

    difficulty: str | None = Field(description="Splits model_* (bits) and human_*; none takes the bits of the exits")
    text: str = Field(description="Texts of the language models")


class LanguageModel(Section):
    """The small language model, trained from nothing with and without exits."""

    speedup: float = Field(gt=1, description="Of the layers, by token mass")
    width: int = Field(ge=8, le=4096, description="Hidden size")
    layers: int = Field(ge=2, le=48, description="Transformer layers")
    heads: int = Field(ge=1, le=64, description="Attention heads")
    vocab_size: int = Field(ge=100, le=100_000, description="WordPiece vocabulary, learnt from the texts")
    max_length: int = Field(ge=8, le=512, description="Tokens kept of a text")
    examples: int = Field(ge=1, description="Training texts")
    evaluated: int = Field(ge=1, description="Test texts")
    steps: int = Field(ge=1, description="Optimiser steps")
    batch_size: int = Field(ge=1, description="Texts a step")
    learning_rate: float = Field(gt=0, description="Of the training")
    prompt: int = Field(ge=1, description="First tokens of a test text that are given where it is continued")
    written: int = Field(ge=1, description="Tokens of the continuation, and of the text that it is compared with")

    @model_validator(mode="after")
    def _fits(self) -> "LanguageModel":
        if self.prompt + self.written > self.max_length:
            raise ValueError(
                f"written: {self.prompt} tokens and {self.written} more exceed max_length {self.max_length}"
            )
        return self


class Hashee(FlowParameters):
    """Parameters of the flow `hashee`."""

    datasets: BySource[Corpora]
    encoder: str = Field(description="minilm, a folder or a Hugging Face id of a BERT-like encoder")
    f1_of: dict[str, str] = Field(description="Dataset -> class whose F1 is averaged with accuracy (MRPC in GLUE)")
    warm_steps: int = Field(ge=1, description="Steps of the joint training that everything starts from")
    training: Training
    buckets: int = Field(ge=1, description="Buckets of equal numbers of types in the paper's hash")
    shallow: int = Field(ge=1, description="Layers of the cut encoder, for larger speed-ups")
    equal_speedup: float = Field(gt=1, description="Speed-up at which hashes are compared, by token mass")
    depths: tuple[int, ...] = Field(min_length=1, description="Depths of truncated models")
    ranked_seeds: int = Field(ge=1, description="Seeds of arms that are ranked but that no claim needs")
    budgets: tuple[float, ...] = Field(min_length=1, description="Shares of the full FLOPs at which rules are set")
    difficulty_examples: int = Field(ge=1, description="Texts that predictors of difficulty learn from")
    difficulty_steps: int = Field(ge=1, description="Steps of the encoder that is fine-tuned to predict difficulty")
    lm: LanguageModel
    timing: Timing
    resamples: int = Field(1000, ge=100, description="Bootstrap resamples of every verdict")


PAPER = Paper(
    slug="hashee",
    title="A Simple Hash-Based Early Exiting Approach For Language Understanding and Generation",
    authors="Sun et al., Findings of ACL 2022",
    arxiv="2203.01670",
    parameters=Hashee,
)

JUDGED = ("frequency", "frequency shallow", "frequency equal", "consistent equal", "inconsistent equal")
EQUAL = ("frequency", "information", "cluster", "consistent", "inconsistent", "rare_first", "position")


@flow(name="hashee", timeout_seconds=24 * 3600, task_runner=runner())
def hashee(params: Hashee) -> dict[str, Any]:
    """Send tokens out by hash, and judge that against thresholds, against chance and against the clock."""
    with open_run("hashee", PAPER.title, params) as found:
        names = params.datasets.of(params.data)
        kinds = ["classification", "classification of a pair"]
        data = [load_dataset(params.data, name, kinds, ["train", "validation", "test"]) for name in names.tasks]
        text = load_dataset(params.data, names.text, splits=["train", "test"])
        bits = load_dataset(params.data, names.difficulty) if names.difficulty else None

        start = fetch_encoder(params.encoder)
        t = params.training.model_dump()
        warm = [
            [
                train_exits(
                    "equilibrium", start, d, None, t | {"steps": params.warm_steps}, seed, params.device, True, ()
                )
                for d in data
            ]
            for seed in params.seeds
        ]
        few = warm[: params.ranked_seeds]
        hashed = {
            name: train_hashes(params, warm if name in JUDGED else few, data, *arm)
            for name, arm in arms_of(params).items()
        }
        joint, rules, static = train_baselines(params, warm, data)

        place = names.tasks.index(names.timed)
        times = time_hashed(
            hashed["frequency"][0][place], warm[0][place]["model"], data[place], warm[0][place]["depth"],
            params.timing.model_dump(), params.device,
        )  # fmt: skip
        known = (bits, joint[0][0], data[0], params.training.evaluated, params.difficulty_examples)
        t = params.training.model_dump() | {"steps": params.difficulty_steps}
        tuned = {
            kind: foresee_errors(kind, start, *known, t, params.seeds[0], params.device)
            for kind in (("model", "human") if bits else ("model",))
        }
        learnt = study_difficulty(*known, tuned)
        lm = params.lm.model_dump(exclude={"speedup"})
        models = {
            speedup: [train_hashed_lm(text, speedup, lm, seed, params.device) for seed in params.seeds[:3]]
            for speedup in (params.lm.speedup, None)
        }

        claims = hash_claims(hashed, rules, names) + difficulty_claims(learnt) + other_claims(times, models, names)
        found.claims = [judge_claim(claim, params.resamples) for claim in claims]
        found.datasets = {d["name"]: d["content"] for d in [*data, text, *([bits] if bits else [])]}
        describe(found, params, hashed, rules, static, warm, times, learnt, models)
        found.keep = {
            "frequency": hashed["frequency"][0][place]["model"],
            "continuations": models[params.lm.speedup][0]["outputs"],
        }
    return found.report


def going_on(params: Hashee) -> dict[str, Any]:
    """The training of every arm: from the joint model, with the texts that come after those it has seen."""
    return params.training.model_dump() | {"before": params.warm_steps}


def arms_of(params: Hashee) -> dict[str, tuple[str, int | None, float | None]]:
    """Name -> (hash, layers kept, speed-up by token mass; none: the paper's equal numbers of types)."""
    arms: dict[str, tuple[str, int | None, float | None]] = {
        "frequency": ("frequency", None, None),
        "frequency shallow": ("frequency", params.shallow, None),
    }
    return arms | {f"{kind} equal": (kind, None, params.equal_speedup) for kind in EQUAL}


def train_hashes(
    params: Hashee, warm: Any, data: list[Any], kind: str, depth: int | None, speedup: float | None
) -> list[list[Any]]:
    """One arm: for each seed, the hashed classifier of each dataset."""
    futures = [
        [
            train_hashed.submit(
                kind, start["model"], d, depth or start["depth"], speedup, params.buckets, going_on(params),
                params.f1_of, seed, params.device, kind == "frequency" and depth is None and speedup is None,
            )
            for start, d in zip(row, data, strict=True)
        ]
        for seed, row in zip(params.seeds, warm, strict=False)
    ]  # fmt: skip
    return [[future.result() for future in row] for row in futures]


def train_baselines(params: Hashee, warm: Any, data: list[Any]) -> tuple[Any, dict[str, list[Any]], dict[str, Any]]:
    """Exits and truncated models trained on from the same start for the same steps, and their curves."""
    t = going_on(params)

    def go_on(method: str, depth: int | None, seeds: int | None = None) -> list[list[Any]]:
        splits = ("test",) if method == "last" else SPLITS
        return [
            [
                train_exits(method, start["model"], d, depth, t, seed, params.device, False, splits)
                for start, d in zip(row, data, strict=True)
            ]
            for seed, row in zip(params.seeds, warm[:seeds], strict=False)
        ]

    few = params.ranked_seeds
    joint, sure = go_on("equilibrium", None), go_on("confidence", None, few)
    cut = [go_on("last", depth, few) for depth in (*params.depths, None)]
    budgets, f1_of = list(params.budgets), params.f1_of
    rules = {
        "entropy": [trace_policy(e, "entropy", budgets, f1_of, 0) for e in joint],
        "patience": [trace_policy(e, "patience", budgets, f1_of, 0) for e in joint],
        "berxit": [trace_policy(e, "learned", budgets, f1_of, 0) for e in sure],
        "truncated": [
            trace_truncated([list(group) for group in zip(*models, strict=True)], f1_of)
            for models in zip(*cut, strict=True)
        ],
    }
    return joint, rules, {"joint static": [trace_static(e, f1_of) for e in joint]}


def hash_claims(hashed: Any, rules: Any, names: Corpora) -> list[Claim]:
    """Consistency, content, and hashing against every rule at the hash's own cost."""
    shared = {"metric": "ELUE quality", "statistic": "accuracy_f1", "datasets": list(names.tasks)}

    def outputs(arm: str) -> list[Any]:
        return [join_outputs(row) for row in hashed[arm]]

    def rule_at(rule: str, arm: str) -> list[Any]:
        return [
            outputs_along(curve, {h["dataset"]: [h["cost"]] for h in row})
            for curve, row in zip(rules[rule], hashed[arm], strict=True)
        ]

    def versus(arm: str, rule: str) -> Claim:
        speed = mean([1 / h["cost"] for row in hashed[arm] for h in row])
        return Claim(
            id=f"{arm.replace(' ', '_')}_beats_{rule}", baseline_name=f"{rule} at the same FLOPs", **shared,
            statement=f"Hashing by frequency ({arm}, {speed:.1f}x) beats {rule} at equal FLOPs",
            ours=outputs(arm), baseline=rule_at(rule, arm),
        )  # fmt: skip

    return [
        Claim(
            id="consistent_beats_inconsistent", baseline_name="a new draw for every occurrence", **shared,
            statement="A token that always leaves at the same layer is better than one that leaves by lot",
            ours=outputs("consistent equal"), baseline=outputs("inconsistent equal"),
        ),
        Claim(
            id="frequency_beats_random_hash", baseline_name="random but consistent", **shared,
            statement="Frequent words first beats a random consistent hash of the same histogram",
            ours=outputs("frequency equal"), baseline=outputs("consistent equal"),
        ),
        *(versus(arm, rule) for arm in ("frequency", "frequency shallow") for rule in ("entropy", "patience")),
    ]  # fmt: skip


def difficulty_claims(learnt: dict[str, Any]) -> list[Claim]:
    """Difficulty can hardly be foreseen: the predictor's gain is within a margin."""
    shared = {"statistic": "mean", "datasets": [learnt["name"]]}
    claims = [
        Claim(
            id="model_difficulty_not_learnable", metric="mean accuracy over layers", margin=-0.02, **shared,
            statement="Foreseeing where a model errs gains less than 2 points over each layer's majority",
            ours=[learnt["majority"]], baseline=[learnt["predictor"]], baseline_name="best predictor",
        )
    ]  # fmt: skip
    if "human" in learnt:
        claims.append(
            Claim(
                id="human_difficulty_not_learnable", metric="accuracy", margin=-0.15, **shared,
                statement="Foreseeing where annotators disagree stays below 65 % (chance is 50 %)",
                ours=[learnt["coin"]], baseline=[learnt["human"]], baseline_name="best predictor",
            )
        )  # fmt: skip
    return claims


def other_claims(times: dict[str, Any], models: Any, names: Corpora) -> list[Claim]:
    """The clock at the larger batch size, and the language model."""
    early, full = models.values()
    return [
        speed_claim(times, batch_sizes(times)[-1], names.timed),
        Claim(
            id="language_model", metric="next-token accuracy", compare="ratio", statistic="ratio_of_sums", margin=0.95,
            statement=f"A language model whose tokens leave by hash ({1 / early[0]['cost']:.2f}x) keeps 95 % of the "
            "accuracy of one trained without",
            ours=[m["outputs"] for m in early], baseline=[m["outputs"] for m in full], baseline_name="all layers",
            datasets=[names.text],
        ),
    ]  # fmt: skip


def describe(
    found: Any, params: Hashee, hashed: Any, rules: Any, static: Any, warm: Any, times: Any, learnt: Any, models: Any
) -> None:
    """Metrics, leaderboard, plots and notes of the report."""
    for arm, rows in hashed.items():
        for place, first in enumerate(rows[0]):
            found.metrics[f"{first['dataset']}.{arm}.quality"] = mean([row[place]["quality"] for row in rows])
            found.metrics[f"{first['dataset']}.{arm}.speedup"] = mean([1 / row[place]["cost"] for row in rows])
    submitted = {name: [c["points"] for c in curves] for name, curves in {**static, **rules}.items()}
    submitted |= {
        f"hash {arm}": [{h["dataset"]: [[h["cost"], h["quality"]]] for h in row} for row in rows]
        for arm, rows in hashed.items()
    }
    sizes = {name: warm[0][0]["parameters"] for name in (*static, *rules)}
    found.leaderboard = rank_methods(
        submitted, "joint static", sizes | {f"hash {arm}": rows[0][0]["parameters"] for arm, rows in hashed.items()}
    )
    found.metrics |= {f"difficulty.{k}": v for k, v in learnt["measures"].items()}
    for speedup, runs in models.items():
        label = "full" if speedup is None else "hashed"
        found.metrics |= {
            f"lm.{label}.{k}": mean([run[k] for run in runs])
            for k in ("accuracy", "perplexity", "chrf", "cost", "cost_layers")
        }
    found.model = params.encoder
    found.notes = [
        "Everything starts from exits trained jointly on the same task, and is trained on for the same steps.",
        "Arms called equal are set to one speed-up on the training texts; the inconsistent hash has the histogram and "
        "the unseen tokens of the consistent one. What each really cost on test stands in the metrics.",
        f"lm.*.chrf: test texts continued from their first {params.lm.prompt} tokens, greedily and, where tokens "
        f"leave, by skipping, against the {params.lm.written} tokens that follow.",
    ]
    found.children = [
        (f"{arm}-{h['dataset']}-seed{seed}", {"method": arm, "seed": seed}, h["history"])
        for arm, rows in hashed.items()
        for seed, row in zip(params.seeds, rows, strict=False)
        for h in row
    ]
    describe_times(found, times)
    draw_curves(found, submitted, ylabel="quality")
