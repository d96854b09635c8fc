"""Rectify-Router: turn the waste of a top-k mixture of experts into worth (Zeng et al., 2024).

A top-k router drops the tokens that its favourite experts have no room for, and computes zeros in the empty slots of
the others. Rectified, dropped tokens go to the best expert of their own worker, and empty slots to the tokens that
score highest for them. Language models with each way of routing are trained on Ray workers that share the experts,
from the same start, on the same passages, and compared in bits per byte and in seconds a step.
"""

from statistics import fmean
from typing import Annotated, Any, Literal

from prefect import flow
from pydantic import Field, model_validator

from paperflows.flows.params import BySource, FlowParameters, Section
from paperflows.flows.registry import Paper
from paperflows.tasks import plots
from paperflows.tasks.claims import Claim, bare, judge_claim
from paperflows.tasks.data import load_dataset
from paperflows.tasks.moe import Variant, time_moe, train_moe
from paperflows.tasks.passages import Corpus, build_passages
from paperflows.tasks.run import open_run
from paperflows.tasks.runner import runner


class Passages(Section):
    """What is cut from the corpora."""

    length: int = Field(ge=8, le=8192, description="Tokens predicted in a passage; a token is a byte for model tiny")
    train: int = Field(ge=1, description="Training passages of a corpus, at most")
    held_out: int = Field(ge=1, description="Passages of a corpus in validation and in test, at most")


class Decoder(Section):
    """The decoder whose feed-forward layers become experts."""

    model: str = Field(description="tiny: from scratch, by the fields below; else a Llama-like model to copy from")
    width: int = Field(ge=8, description="Width of the tiny decoder")
    layers: int = Field(ge=1, description="Layers of the tiny decoder")
    heads: int = Field(ge=1, description="Attention heads of the tiny decoder")
    hidden: int = Field(ge=8, description="Hidden width of an expert, and of the dense reference")


class Training(Section):
    """One variant's training; the same for all."""

    steps: int = Field(ge=1, description="Optimiser steps")
    batch_size: int = Field(ge=1, description="Passages a step, of all workers together")
    learning_rate: float = Field(gt=0, description="Peak, after 10 % warm-up")
    balance: float = Field(ge=0, description="Weight of the load-balance loss")
    z: float = Field(ge=0, description="Weight of the router z-loss")
    checkpoint_every: int = Field(ge=1, description="Steps between two checkpoints of all workers")
    restarts: int = Field(ge=0, le=100, description="How often workers are started again after one died")


class RectifyRouter(FlowParameters):
    """Parameters of the flow `rectify_router`."""

    corpora: BySource[Annotated[tuple[Corpus, ...], Field(min_length=1)]]
    passages: Passages
    decoder: Decoder
    training: Training
    workers: int = Field(ge=1, le=1024, description="Ray workers that share the experts, one core or GPU each")
    experts: int = Field(ge=2, le=1024, description="Experts of a layer, on all workers together")
    capacity_factor: float = Field(gt=0, le=16, description="Slots of an expert as a multiple of an even share")
    combine: tuple[Literal["score", "normalised", "straight_through"], ...] = Field(
        min_length=1, description="Weights of a token's experts; validation chooses, with the first seed"
    )
    variants: tuple[str, ...] = Field(min_length=2, description="Ways of routing to compare; names of VARIANTS")
    timing_repeats: int = Field(ge=3, description="Timed training steps of each variant, in turns")
    resamples: int = Field(1000, ge=100, description="Bootstrap resamples of every verdict")

    @model_validator(mode="after")
    def _consistent(self) -> "RectifyRouter":
        if self.experts % self.workers:
            raise ValueError(f"experts: {self.experts} cannot be spread evenly over {self.workers} workers")
        if self.training.batch_size % self.workers:
            raise ValueError(
                f"training.batch_size: {self.training.batch_size} is no multiple of {self.workers} workers"
            )
        if unknown := set(self.variants) - set(VARIANTS):
            raise ValueError(f"variants: unknown {', '.join(sorted(unknown))}; expected {', '.join(VARIANTS)}")
        if missing := {"top1", "both"} - set(self.variants):
            raise ValueError(f"variants: {', '.join(sorted(missing))} cannot be left out, the claims compare them")
        return self


PAPER = Paper(
    slug="rectify_router",
    title="Turn Waste into Worth: Rectifying Top-k Router of MoE",
    authors="Zeng et al., 2024",
    arxiv="2402.12399",
    parameters=RectifyRouter,
)

VARIANTS: dict[str, dict[str, Any]] = {
    "top1": {},
    "intra": {"rectify": ("intra",)},
    "fill": {"rectify": ("fill",)},
    "both": {"rectify": ("intra", "fill")},
    "random": {"rectify": ("random",)},
    "dropless": {"capacity_factor": None},
    "top2": {"k": 2},
    "top2_both": {"k": 2, "rectify": ("intra", "fill")},
    "dense": {"experts": 0},
}


@flow(name="rectify_router", timeout_seconds=7 * 24 * 3600, task_runner=runner())
def rectify_router(params: RectifyRouter) -> dict[str, Any]:
    """Train mixtures of experts with a plain and a rectified router on Ray workers, and judge what rectifying pays."""
    with open_run("rectify_router", PAPER.title, params) as found:
        corpora = params.corpora.of(params.data)
        loaded = {name: load_dataset(params.data, name) for name in dict.fromkeys(c.dataset for c in corpora)}
        passages = build_passages(
            list(corpora), [loaded[c.dataset] for c in corpora], params.decoder.model, params.passages.length,
            params.passages.train, params.passages.held_out, params.training.batch_size, 0,
        )  # fmt: skip
        tried = try_combine(params, passages)
        variants = {name: min(kinds, key=lambda kind: kind[1]["validation"])[0] for name, kinds in tried.items()}
        trained = {n: [train(params, n, v, passages, seed) for seed in params.seeds] for n, v in variants.items()}
        models = {name: [future.result() for future in by_seed] for name, by_seed in trained.items()}
        times = time_moe(
            variants, {name: bare(by_seed[0]) for name, by_seed in models.items()}, passages,
            start_of(params, passages), params.workers, params.training.batch_size, params.timing_repeats,
            params.seeds[0], params.device,
        )  # fmt: skip
        found.claims = [judge_claim(c, params.resamples) for c in claims_of(models, times, [c.name for c in corpora])]
        found.datasets = {data["name"]: data["content"] for data in loaded.values()}
        describe(found, params, variants, models, times)
        for name, kinds in tried.items():
            for kind, model in kinds:
                found.metrics[f"validation.{kind.combine}.{name}"] = model["validation"]
    return found.report


def start_of(params: RectifyRouter, passages: Any) -> dict[str, Any]:
    """What every variant starts from."""
    if params.decoder.model != "tiny":
        return {"model": params.decoder.model}
    return {
        **params.decoder.model_dump(), "vocabulary": passages["vocabulary"], "positions": params.passages.length,
    }  # fmt: skip


def train(params: RectifyRouter, name: str, variant: Variant, passages: Any, seed: int) -> Any:
    """Submit one training of one variant."""
    t = params.training
    return train_moe.submit(
        name, variant, passages, start_of(params, passages), params.workers, t.steps, t.batch_size, t.learning_rate,
        t.balance, t.z, t.checkpoint_every, t.restarts, seed, params.device,
    )  # fmt: skip


def try_combine(params: RectifyRouter, passages: Any) -> dict[str, list[tuple[Variant, Any]]]:
    """Every variant with each way to weigh its experts, trained with the first seed."""
    tried: dict[str, list[tuple[Variant, Any]]] = {}
    for name in params.variants:
        settings = {"experts": params.experts, "capacity_factor": params.capacity_factor, **VARIANTS[name]}
        rules = params.combine if settings["experts"] else params.combine[:1]
        kinds = [Variant(**settings, combine=rule) for rule in rules]
        tried[name] = [(kind, train(params, name, kind, passages, params.seeds[0])) for kind in kinds]
    return {name: [(kind, future.result()) for kind, future in kinds] for name, kinds in tried.items()}


def claims_of(models: dict[str, Any], times: Any, corpora: list[str]) -> list[Claim]:
    """The paper's claims, for these texts: less is better everywhere."""

    def bits(identity: str, ours: str, baseline: str, statement: str) -> Claim:
        return Claim(
            id=identity, statement=statement, metric="bits per byte, test passages", ours=models[ours],
            baseline=models[baseline], baseline_name=baseline, datasets=corpora, statistic="mean",
            lower_is_better=True,
        )  # fmt: skip

    claims = [bits("rectified_beats_top1", "both", "top1", "Both rectifications beat the plain top-1 router")]
    optional = [
        ("intra_beats_top1", "intra", "top1", "Rectifying dropped tokens alone beats the plain top-1 router"),
        ("fill_beats_top1", "fill", "top1", "Filling empty slots alone beats the plain top-1 router"),
        ("score_beats_random", "intra", "random", "Rerouting dropped tokens by score beats rerouting them at random"),
        ("rectified_beats_top2", "top2_both", "top2", "Both rectifications beat the plain top-2 router"),
        (
            "rectified_beats_dense",
            "both",
            "dense",
            "The rectified mixture beats a dense model of equal active width",
        ),
    ]
    claims += [bits(*claim) for claim in optional if {claim[1], claim[2]} <= models.keys()]
    step = Claim(
        id="overhead",
        statement="Rectifying both ways makes a training step at most 10 % longer",
        metric="seconds a step, median",
        ours=[times["of"]["both"]],
        baseline=[times["of"]["top1"]],
        baseline_name="top1",
        datasets=["seconds"],
        statistic="median",
        compare="ratio",
        margin=1.1,
        lower_is_better=True,
    )
    return [*claims, step]


def describe(
    found: Any, params: RectifyRouter, variants: dict[str, Variant], models: dict[str, Any], times: Any
) -> None:
    """Metrics, plots and notes of the report."""
    waste = ("dropped", "rectified", "skipped", "padded", "useful", "bytes_sent")
    curves: dict[str, dict[str, list[tuple[float, float]]]] = {"step": {}, "seconds": {}, "flops": {}}
    for name, by_seed in models.items():
        first = by_seed[0]["history"]
        for corpus in by_seed[0]["bits"]:
            found.metrics[f"bits.{corpus}.{name}"] = fmean([m["bits"][corpus] for m in by_seed])
        found.metrics[f"bits.mean.{name}"] = fmean([fmean(list(m["bits"].values())) for m in by_seed])
        for share in by_seed[0]["test_shares"]:
            found.metrics[f"test.{share}.{name}"] = fmean([m["test_shares"][share] for m in by_seed])
        found.metrics[f"seconds_a_step.{name}"] = times["seconds"][name]
        tokens = params.training.batch_size * params.passages.length
        found.metrics[f"tokens_a_second.{name}"] = tokens / times["seconds"][name]
        found.metrics[f"flops_a_step.{name}"] = times["flops"][name]
        late = first[len(first) // 2 :]
        for share in waste:
            if f"routing.{share}" in first[0]:
                found.metrics[f"{share}.{name}"] = fmean([point[f"routing.{share}"] for point in late])
        loss = [(p["step"], fmean([m["history"][i]["nats"] for m in by_seed])) for i, p in enumerate(first)]
        curves["step"][name] = loss
        curves["seconds"][name] = [(step * times["seconds"][name], value) for step, value in loss]
        curves["flops"][name] = [(step * times["flops"][name] / 1e9, value) for step, value in loss]
    found.draw["loss_seconds.png"] = lambda path: plots.draw_lines(
        curves["seconds"], path, xlabel="steps, in seconds of a timed step", ylabel="nats a token, training batches"
    )
    found.draw["loss_flops.png"] = lambda path: plots.draw_lines(
        curves["flops"], path, xlabel="billion floating-point operations", ylabel="nats a token, training batches"
    )
    for share in ("dropped", "padded"):
        lines = {
            name: [(p["step"], 100 * p[f"routing.{share}"]) for p in by_seed[0]["history"]]
            for name, by_seed in models.items()
            if f"routing.{share}" in by_seed[0]["history"][0]
        }
        found.draw[f"{share}.png"] = lambda path, lines=lines, share=share: plots.draw_lines(
            lines, path, xlabel="step", ylabel=f"{share}, %"
        )
    for name in ("top1", "both"):
        load = {
            f"layer {layer}": [
                [point[f"load.layer{layer}.expert{e}"] for e in range(params.experts)]
                for point in models[name][0]["history"]
            ]
            for layer in range(_layers(models[name][0]["history"][0]))
        }
        found.draw[f"load_{name}.png"] = lambda path, load=load: plots.draw_heat(
            load, path, xlabel="expert", ylabel="reported step"
        )
    d = params.decoder
    tiny = f"decoder of {d.layers} layers of width {d.width}, {params.experts} experts of hidden width {d.hidden}"
    found.model = tiny if d.model == "tiny" else f"{d.model} with {params.experts} copies of each feed-forward layer"
    rules = ", ".join(f"{name}: {v.combine}" for name, v in variants.items() if v.experts)
    found.notes = [
        f"Weights of experts chosen on validation (bits per byte `validation.RULE.VARIANT`, first seed): {rules}. "
        "The balance loss and the capacity are of each worker's own tokens; loads of experts are of all workers. "
        "A choice that finds no slot is dropped, a slot that no token takes is padded; shares are of the second half "
        "of the first seed's training. bytes_sent is what all workers together send each other in a training step, "
        "forward and backward, without the gradients of shared weights; flops_a_step is theirs together too. The paper "
        "reports 4.7 points of accuracy over the plain top-1 router, with "
        "Llama 2 7B; here bits per byte are compared.",
        "With a capacity, who keeps a slot and who fills one is decided over the whole batch, so that a position's "
        "logits depend on the other tokens of its batch, later ones too. Bits per byte of variants with a capacity "
        "compare variants on equal batches; they are not the likelihood of an autoregressive model. Those of dense and "
        "dropless are, since they are causal. Test batches mix the corpora as training's do; test.dropped, "
        "test.skipped, test.rectified and test.padded are shares of that pass, over all seeds.",
    ]
    found.children = [
        (f"{name}-seed{seed}", {"method": name, "seed": seed}, model["history"])
        for name, by_seed in models.items()
        for seed, model in zip(params.seeds, by_seed, strict=True)
    ]
    found.keep = {f"{name}_seed{params.seeds[0]}": models[name][0] for name in ("top1", "both")}


def _layers(point: dict[str, float]) -> int:
    return 1 + max(int(key.split(".")[1].removeprefix("layer")) for key in point if key.startswith("load."))
