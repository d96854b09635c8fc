"""Quality against FLOPs: curves of static and dynamic exits, outputs for claims at equal cost, the leaderboard."""

from typing import Any

from paperflows.tasks.claims import OUTPUTS
from paperflows.tasks.exits import ExitsArtifact
from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import Artifact, new_artifact, open_artifact

CURVE = "curve.safetensors"


class CurveArtifact(Artifact):
    """Per-example outputs of every point by dataset, and the points: [cost share, quality, setting]."""

    points: dict[str, list[list[float]]]


def _signals(exits: ExitsArtifact) -> Any:
    from safetensors.torch import load_file

    folder = open_artifact(exits)
    return load_file(folder / "validation.safetensors"), load_file(folder / "test.safetensors")


def _sizes(exits: ExitsArtifact) -> Any:
    from paperflows.components.early_exit.curves import Sizes

    return Sizes(width=exits["width"], inner=exits["inner"], depth=exits["depth"])


def _positive(exits: ExitsArtifact, f1_of: dict[str, str]) -> int | None:
    name = f1_of.get(exits["dataset"])
    return exits["labels"].index(name) if name in exits["labels"] else None


def store_curves(curves: dict[str, Any]) -> CurveArtifact:
    """Curves (`components.early_exit.curves.Curve`) by dataset as one artifact."""
    from safetensors.numpy import save_file

    with new_artifact() as (folder, artifact):
        save_file({name: curve.columns for name, curve in curves.items()}, folder / CURVE)
    points = {
        name: [[float(v) for v in point] for point in zip(c.costs, c.qualities(), c.settings, strict=True)]
        for name, c in curves.items()
    }
    return CurveArtifact(**artifact, points=points)


@cached_task(name="trace_static")
def trace_static(exits: list[ExitsArtifact], f1_of: dict[str, str]) -> CurveArtifact:
    """Each dataset's model cut at every depth."""
    from paperflows.components.early_exit.curves import static_curve

    return store_curves(
        {e["dataset"]: static_curve(_signals(e)[1], _sizes(e), positive=_positive(e, f1_of)) for e in exits}
    )


@cached_task(name="trace_truncated")
def trace_truncated(exits: list[list[ExitsArtifact]], f1_of: dict[str, str]) -> CurveArtifact:
    """Models trained apart, one a depth (for each dataset, shallowest first, the full one last)."""
    import numpy as np

    from paperflows.components.early_exit.curves import Curve, Sizes, full_flops, static_curve

    curves = {}
    for models in exits:
        full = full_flops(_signals(models[-1])[1], _sizes(models[-1]))
        ends = []
        for e in models:
            signals = _signals(e)[1]
            own = static_curve(signals, _sizes(e), positive=_positive(e, f1_of))
            cost = full_flops(signals, Sizes(e["width"], e["inner"], e["depth"]))
            ends.append((cost / full, own.columns[-1], float(e["depth"])))
        costs, columns, settings = zip(*ends, strict=True)
        curves[models[0]["dataset"]] = Curve(np.array(costs), np.stack(columns), settings)
    return store_curves(curves)


@cached_task(name="trace_policy", task_run_name="trace_policy-{rule}")
def trace_policy(
    exits: list[ExitsArtifact], rule: str, budgets: list[float], f1_of: dict[str, str], seed: int
) -> CurveArtifact:
    """A dynamic rule on test, its settings chosen on validation for each budget (share of the full FLOPs).

    Args:
        rule: entropy, patience, learned, or "control": the entropy rule's exit layers dealt at random by `seed`.
    """
    from paperflows.components.early_exit.curves import control_curve, policy_curve

    curves = {}
    for e in exits:
        (validation, test), sizes, positive = _signals(e), _sizes(e), _positive(e, f1_of)
        if rule == "control":
            curves[e["dataset"]] = control_curve(validation, test, sizes, budgets, seed=seed, positive=positive)
        else:
            curves[e["dataset"]] = policy_curve(rule, validation, test, sizes, budgets, positive=positive)
    return store_curves(curves)


@cached_task(name="mean_outputs")
def mean_outputs(curve: CurveArtifact, first: int = 0, last: int | None = None) -> Artifact:
    """Outputs of a system that takes one of the curve's points `first`..`last` (exclusive) at random."""
    from safetensors.numpy import load_file, save_file

    columns = load_file(open_artifact(curve) / CURVE)
    with new_artifact() as (folder, artifact):
        save_file({name: value[first:last].mean(0) for name, value in columns.items()}, folder / OUTPUTS)
    return artifact


@cached_task(name="outputs_along")
def outputs_along(curve: CurveArtifact, costs: dict[str, list[float]]) -> Artifact:
    """Outputs of a curve at other costs, by interpolation between its points (see `tradeoff.mixture`), then the mean.

    Args:
        costs: dataset -> costs, such as those of the points of another method.
    """
    import numpy as np
    from safetensors.numpy import load_file, save_file

    from paperflows.components.evaluation.tradeoff import reference_weights

    columns, outputs = load_file(open_artifact(curve) / CURVE), {}
    for name, value in columns.items():
        weights = reference_weights(costs[name], [point[0] for point in curve["points"][name]]).mean(0)
        outputs[name] = np.tensordot(weights, value, axes=1)
    with new_artifact() as (folder, artifact):
        save_file(outputs, folder / OUTPUTS)
    return artifact


def costs_of(curve: CurveArtifact) -> dict[str, list[float]]:
    """Costs of a curve's points by dataset."""
    return {name: [point[0] for point in points] for name, points in curve["points"].items()}


@cached_task(name="rank_methods")
def rank_methods(
    submissions: dict[str, list[dict[str, list[list[float]]]]], reference: str, parameters: dict[str, int]
) -> list[dict[str, Any]]:
    """The leaderboard: each method's ELUE score against the reference's points, by dataset and on average.

    Args:
        submissions: method -> for each seed: dataset -> points [cost share, quality, ...]. Any method may submit.
        reference: the method whose points everything is compared with, such as the joint model at every depth.
        parameters: method -> number of its model's parameters.
    """
    import numpy as np

    from paperflows.components.evaluation.tradeoff import area_between, clamped, elue_score, front_shares

    rows = []
    for dataset in submissions[reference][0]:
        known = [[(p[0], p[1]) for p in seed[dataset]] for seed in submissions[reference]]
        shares = front_shares({m: [(p[0], p[1]) for p in seeds[0][dataset]] for m, seeds in submissions.items()})
        for method, seeds in submissions.items():
            curves = [[(p[0], p[1]) for p in seed[dataset]] for seed in seeds]
            pairs = list(zip(curves, known, strict=True))
            areas = [area for area in (area_between(c, k) for c, k in pairs) if area is not None]
            rows.append(
                {
                    "dataset": dataset,
                    "method": method,
                    "score": float(np.mean([elue_score(c, k) for c, k in pairs])),
                    "area": float(np.mean(areas)) if areas else None,
                    "front_share": shares[method],
                    "points": len(curves[0]),
                    "clamped": clamped([p[0] for p in curves[0]], [p[0] for p in known[0]]),
                    "parameters": parameters.get(method),
                }
            )
    return rows


@cached_task(name="time_exits")
def time_exits(
    exits: ExitsArtifact, data: Any, rule: str, budget: float, timing: dict[str, Any], device: str
) -> dict[str, Any]:
    """Seconds of the plain full model and of the run that skips, interleaved, and whether they say the same.

    Args:
        exits: with its kept model; its validation exits choose the rule's setting for `budget`.
        timing: texts, repeats, batch_sizes, shortest and longest (tokens of the texts taken; the longest texts where
            too few are that long), max_length.

    Returns:
        For each batch size the artifacts of both times, the FLOPs speed-up of these texts, and how many texts got
        another prediction or exit than from the exits of a full pass.
    """
    import numpy as np
    import torch
    from safetensors.numpy import save_file

    from paperflows.components.early_exit import curves, flops, sentences
    from paperflows.components.early_exit.dynamic import run_early
    from paperflows.components.early_exit.exits import pool
    from paperflows.components.early_exit.policies import POLICIES, replay
    from paperflows.components.early_exit.storage import load_classifier
    from paperflows.components.evaluation.timing import time_interleaved
    from paperflows.tasks.data import read_split

    assert exits["model"] is not None
    model, tokenizer, labels = load_classifier(open_artifact(exits["model"]))
    place = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    model.to(place)
    validation, sizes = _signals(exits)[0], _sizes(exits)
    policy = POLICIES[rule](curves.setting_at(rule, validation, sizes, budget))
    rows = sentences.sample(read_split(data, "test"), 10**9, seed=0)
    every = sentences.labelled(rows, tokenizer, labels, max_length=timing["max_length"])
    lengths = every.table.lengths
    fit = np.flatnonzero((lengths >= timing["shortest"]) & (lengths <= timing["longest"]))[: timing["texts"]]
    if len(fit) < timing["texts"]:
        fit = np.argsort(-lengths, kind="stable")[: timing["texts"]]
    fit = fit[np.argsort(-lengths[fit], kind="stable")]
    texts = sentences.labelled([rows[i] for i in fit], tokenizer, labels, max_length=timing["max_length"])
    full = sentences.exit_signals(model, texts)
    left = replay(policy, full["logits"], full["confidence"])
    said = full["logits"][torch.arange(len(left)), left - 1].argmax(-1)
    cost = {"width": exits["width"], "inner": exits["inner"], "outputs": max(1, len(labels))}
    spent = flops.sentence_flops(texts.table.lengths, left, **cost)
    whole = flops.static_flops(texts.table.lengths, exits["depth"], **cost)
    found: dict[str, Any] = {"rule": rule, "texts": len(fit), "mean_tokens": float(texts.table.lengths.mean())}

    @torch.inference_mode()
    def plain(ids: Any, mask: Any) -> Any:
        hidden = model.encoder.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return model.exits[-1](pool(hidden, mask, model.pooling))

    for size in timing["batch_sizes"]:
        taken = np.arange(len(fit)) if size > 1 else np.arange(0, len(fit), 4)
        batches = [texts.table.pad(taken[i : i + size]) for i in range(0, len(taken), size)]
        batches = [(ids.to(place), mask.to(place)) for ids, mask in batches]
        runs = [run_early(model, ids, mask, policy) for ids, mask in batches]
        same = torch.cat([logits.argmax(-1).cpu() for logits, _ in runs]) == said[taken]
        same &= torch.cat([layers.cpu() for _, layers in runs]) == left[taken]

        def once(run: Any, batches: Any = batches) -> None:
            for ids, mask in batches:
                run(ids, mask)
            if place.type == "cuda":
                torch.cuda.synchronize()

        seconds = time_interleaved(
            {"full": lambda once=once: once(plain), "early": lambda once=once: once(  # type: ignore[misc]
                lambda ids, mask: run_early(model, ids, mask, policy))},
            repeats=timing["repeats"],
        )  # fmt: skip
        kept = {}
        for way, values in seconds.items():
            with new_artifact() as (folder, artifact):
                save_file({exits["dataset"]: values}, folder / OUTPUTS)
            kept[way] = artifact
        found[f"batch{size}"] = {
            **kept, "flops_speedup": float(whole[taken].mean() / spent[taken].mean()), "different": int((~same).sum()),
        }  # fmt: skip
    return found
