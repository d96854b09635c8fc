"""ELUE and ElasticBERT: one encoder with an exit at every layer, scored by whole curves of quality against FLOPs.

Joint training with gradients in equilibrium gives all depths at once (static use) and lets easy texts leave early
(dynamic use). Against models truncated and trained apart, PABEE and BERxiT, for the same steps on the same data, and
DeeBERT, whose exits are trained for as many steps after its encoder; thresholds come from validation; FLOPs are
counted, milliseconds measured.
"""

from typing import Any

from prefect import flow
from pydantic import Field

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
from paperflows.tasks.claims import Claim, PaperFigure, judge_claim
from paperflows.tasks.data import collect_sentences, load_dataset
from paperflows.tasks.exits import SPLITS, fetch_encoder, pretrain_exits, train_exits
from paperflows.tasks.run import open_run
from paperflows.tasks.runner import runner
from paperflows.tasks.timing import time_exits
from paperflows.tasks.tradeoff import (
    costs_of,
    mean_outputs,
    outputs_along,
    rank_methods,
    trace_policy,
    trace_static,
    trace_truncated,
)


class Corpora(TimedTasks):
    """Names of datasets by their part in the flow."""

    pretraining: tuple[str, ...] = Field(min_length=1, description="Texts of the multi-exit pre-training")


class Pretraining(Section):
    """The small BERT trained from nothing, with the losses at all layers or at the last."""

    width: int = Field(ge=8, le=4096, description="Hidden size")
    layers: int = Field(ge=2, le=48, description="Transformer layers")
    heads: int = Field(ge=1, le=64, description="Attention heads")
    vocab_size: int = Field(ge=100, le=100_000, description="WordPiece vocabulary, learnt from the texts")
    max_length: int = Field(ge=8, le=512, description="Tokens kept of a text")
    groups: int = Field(ge=1, le=12, description="Groups of exits taken in turn")
    steps: int = Field(ge=1, description="Steps with exits; without, as many more as the same FLOPs allow")
    batch_size: int = Field(ge=1, description="Texts a step")
    learning_rate: float = Field(gt=0, description="Of the pre-training")
    fine_tuning_rate: float = Field(gt=0, description="Of the fine-tuning after it")
    sentences: int = Field(ge=1, description="Texts used")


class Elue(FlowParameters):
    """Parameters of the flow `elue`."""

    datasets: BySource[Corpora]
    encoder: str = Field(description="minilm, a folder or a Hugging Face id of a BERT-like encoder")
    f1_of: dict[str, str] = Field(description="Dataset -> class whose F1 is averaged with accuracy (MRPC in GLUE)")
    depths: tuple[int, ...] = Field(min_length=1, description="Depths at which models are truncated and trained apart")
    ranked_seeds: int = Field(ge=1, description="Seeds of methods that are ranked but that no claim needs")
    training: Training
    budgets: tuple[float, ...] = Field(min_length=1, description="Shares of the full FLOPs at which rules are set")
    headline: float = Field(gt=0, lt=1, description="Budget on validation of the claim at 50 % of the FLOPs on test")
    pretraining: Pretraining
    timing: Timing
    resamples: int = Field(1000, ge=100, description="Bootstrap resamples of every verdict")


PAPER = Paper(
    slug="elue",
    title="Towards Efficient NLP: A Standard Evaluation and A Strong Baseline",
    authors="Liu et al., NAACL 2022",
    arxiv="2110.07038",
    parameters=Elue,
)

RANKED = {"plain_sum": "sum", "pabee": "depth", "berxit": "confidence"}
RULES = {"elastic entropy": ("elastic", "entropy"), "elastic patience": ("elastic", "patience")}
RULES |= {"pabee": ("pabee", "patience"), "berxit": ("berxit", "learned"), "deebert": ("deebert", "entropy")}
RULES |= {"random exits": ("elastic", "control")}
SIX_LAYERS = "GLUE dev average, ElasticBERT-base-6L against BERT-base-6L"


@flow(name="elue", timeout_seconds=24 * 3600, task_runner=runner())
def elue(params: Elue) -> dict[str, Any]:
    """Train every depth at once, let easy texts leave, and judge it against models trained for one depth."""
    with open_run("elue", PAPER.title, params) as found:
        names = params.datasets.of(params.data)
        kinds = ["classification", "classification of a pair"]
        data = [load_dataset(params.data, name, kinds, ["train", "validation", "test"]) for name in names.tasks]
        texts = [load_dataset(params.data, name, splits=["train"]) for name in names.pretraining]
        start = fetch_encoder(params.encoder)

        exits = train_all(params, start, data)
        static = {m: [trace_static(e, params.f1_of) for e in exits[m]] for m in ("elastic", *RANKED, "deebert")}
        static["truncated"] = [trace_truncated(e, params.f1_of) for e in by_depth(params, exits)]
        curves = {
            name: [
                trace_policy(e, rule, list(params.budgets), params.f1_of, seed)
                for seed, e in zip(params.seeds, exits[model], strict=False)
            ]
            for name, (model, rule) in RULES.items()
        }
        half = [trace_policy(e, "entropy", [params.headline], params.f1_of, 0) for e in exits["elastic"]]

        place = names.tasks.index(names.timed)
        times = time_exits(
            exits["elastic"][0][place],
            data[place],
            "entropy",
            params.headline,
            params.timing.model_dump(),
            params.device,
        )
        pretrained = pretrain_both(params, texts, data)

        claims = claims_of(params, static, curves, half, pretrained, names)
        claims += [speed_claim(times, size, names.timed) for size in batch_sizes(times)]
        found.claims = [judge_claim(claim, params.resamples) for claim in claims]
        found.datasets = {d["name"]: d["content"] for d in [*data, *texts]}
        describe(found, params, exits, static, curves, half, times)
        found.keep = {"elastic": exits["elastic"][0][place]["model"]}
    return found.report


def train_all(params: Elue, start: Any, data: list[Any]) -> dict[str, list[list[Any]]]:
    """Every method: for each seed, the exits on each dataset."""
    t = params.training.model_dump()

    def train(method: str, depth: int | None, keep: bool = False, seeds: int | None = None) -> list[list[Any]]:
        splits = ("test",) if method == "last" else SPLITS
        futures = [
            [train_exits.submit(method, start, d, depth, t, seed, params.device, keep, splits) for d in data]
            for seed in params.seeds[:seeds]
        ]
        return [[future.result() for future in row] for row in futures]

    exits = {"elastic": train("equilibrium", None, keep=True)}
    exits |= {name: train(method, None, seeds=params.ranked_seeds) for name, method in RANKED.items()}
    exits |= {f"truncated{n}": train("last", n) for n in params.depths}
    exits["full"] = train("last", None, keep=True)
    exits["deebert"] = [
        [
            train_exits("frozen", e["model"], d, None, t | {"before": t["steps"]}, seed, params.device)
            for e, d in zip(row, data, strict=True)
        ]
        for seed, row in zip(params.seeds, exits["full"][: params.ranked_seeds], strict=False)
    ]
    return exits


def by_depth(params: Elue, exits: dict[str, list[list[Any]]]) -> list[list[list[Any]]]:
    """For each seed and dataset, the truncated models from the shallowest to the full one."""
    models = [exits[f"truncated{n}"] for n in params.depths] + [exits["full"]]
    return [[list(group) for group in zip(*(m[i] for m in models), strict=True)] for i in range(len(params.seeds))]


def pretrain_both(params: Elue, texts: list[Any], data: list[Any]) -> dict[str, list[Any]]:
    """Exits of two small BERTs after the same joint fine-tuning: pre-trained at all layers, or at the last."""
    p = params.pretraining
    corpus = collect_sentences([*texts, *data], data, 10_000, p.sentences, 0)
    settings = p.model_dump(exclude={"fine_tuning_rate", "sentences"})
    tuning = params.training.model_dump() | {
        "learning_rate": p.fine_tuning_rate, "head_rate": 1.0, "freeze_embeddings": False,
        "max_length": min(p.max_length, params.training.max_length),
    }  # fmt: skip
    traced: dict[str, list[Any]] = {}
    for kind in ("groups", "last"):
        start = pretrain_exits(corpus, kind, settings, 0, params.device)
        traced[kind] = [
            trace_static(
                [train_exits("equilibrium", start, d, None, tuning, s, params.device, False, ("test",)) for d in data],
                params.f1_of,
            )
            for s in params.seeds
        ]
    return traced


def claims_of(params: Elue, static: Any, curves: Any, half: Any, pretrained: Any, names: Corpora) -> list[Claim]:
    """The paper's claims, for these datasets; quality is the mean over tasks."""
    shared = {"metric": "ELUE quality", "statistic": "accuracy_f1", "datasets": list(names.tasks)}
    depths = len(params.depths)
    every = costs_of(static["truncated"][0])
    below = {name: costs[:depths] for name, costs in every.items()}
    entropy = curves["elastic entropy"]

    def along(curve: str, others: list[Any]) -> list[Any]:
        return [outputs_along(c, costs_of(o)) for c, o in zip(static[curve], others, strict=True)]

    def means(traced: list[Any], first: int = 0, last: int | None = None) -> list[Any]:
        return [mean_outputs(t, first, last) for t in traced]

    return [
        Claim(
            id="joint_equals_truncated", baseline_name="truncated, trained apart", margin=-0.005, **shared,
            statement="One joint training is as good on the mean of depths as models truncated and trained for each",
            ours=[outputs_along(c, below) for c in static["elastic"]],
            baseline=[mean_outputs(c, 0, depths) for c in static["truncated"]],
        ),
        Claim(
            id="entropy_keeps_quality", baseline_name="all layers", margin=0.97, compare="ratio", **shared,
            statement="Leaving by entropy keeps 97 % of the quality at half of the FLOPs",
            ours=means(half), baseline=[mean_outputs(c, -1) for c in static["elastic"]],
        ),
        Claim(
            id="dynamic_beats_static", baseline_name="the same model cut", **shared,
            statement="ELUE score: leaving by entropy beats cutting the same model at equal FLOPs",
            ours=means(entropy), baseline=along("elastic", entropy),
        ),
        Claim(
            id="entropy_beats_random", baseline_name="random exits", **shared,
            statement="Leaving by entropy beats its exit layers dealt at random, at equal FLOPs",
            ours=means(entropy),
            baseline=[outputs_along(r, costs_of(e)) for r, e in zip(curves["random exits"], entropy, strict=True)],
        ),
        Claim(
            id="exits_in_pretraining", baseline_name="losses at the last layer", **shared,
            statement="Pre-training with losses at every layer gives better exits below the top, for equal FLOPs",
            ours=means(pretrained["groups"], 0, -1), baseline=means(pretrained["last"], 0, -1),
            paper=PaperFigure(ours=0.833, baseline=0.792, where=SIX_LAYERS),
        ),
    ]  # fmt: skip


def describe(found: Any, params: Elue, exits: Any, static: Any, curves: Any, half: Any, times: Any) -> None:
    """Metrics, leaderboard, plots and notes of the report."""
    submitted = {f"{name} static": [c["points"] for c in traced] for name, traced in static.items()}
    submitted |= {name: [c["points"] for c in traced] for name, traced in curves.items()}
    sizes = {name: exits[model][0][0]["parameters"] for name, (model, _) in RULES.items()}
    sizes |= {f"{name} static": exits["elastic"][0][0]["parameters"] for name in static}
    sizes["truncated static"] = sum(e["parameters"] for e in by_depth(params, exits)[0][0])
    found.leaderboard = rank_methods(submitted, "elastic static", sizes)
    for method, traced in static.items():
        for dataset, points in traced[0]["points"].items():
            for at, (_, _, setting) in enumerate(points):
                values = [t["points"][dataset][at][1] for t in traced]
                found.metrics[f"{dataset}.{method}.depth{setting:.0f}"] = mean(values)
    for dataset in half[0]["points"]:
        costs = [h["points"][dataset][0][0] for h in half]
        found.metrics[f"{dataset}.half.cost"] = mean(costs)
        found.metrics[f"{dataset}.half.quality"] = mean([h["points"][dataset][0][1] for h in half])
    found.metrics["training_runs.joint"] = 1.0
    found.metrics["training_runs.truncated"] = sum(params.depths) / exits["elastic"][0][0]["depth"]
    found.model = params.encoder
    found.notes = [
        "Costs are shares of the full model's FLOPs (matrix products, exits included), each text at its own length.",
        "The encoder had no multi-exit pre-training; that is judged on a small BERT trained here from nothing, once "
        "for each way: seeds vary its fine-tuning.",
    ]
    found.children = [
        (f"{name}-{e['dataset']}-seed{seed}", {"method": name, "seed": seed}, e["history"])
        for name, rows in exits.items()
        for seed, row in zip(params.seeds, rows, strict=False)
        for e in row
    ]
    describe_times(found, times)
    drawn = {"elastic static", "truncated static", *RULES}
    draw_curves(found, {name: value for name, value in submitted.items() if name in drawn}, ylabel="quality")
