"""Quality against FLOPs: curves of static and dynamic exits, outputs for claims at equal cost, the leaderboard."""

from typing import Any

from paperflows.components.errors import InputError
from paperflows.tasks.exits import ExitsArtifact
from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import OUTPUTS, Artifact, new_artifact, open_artifact

CURVE = "curve.safetensors"


class CurveArtifact(Artifact):
    """Per-example outputs of every point by dataset, and the points: [cost share, quality, setting]."""

    points: dict[str, list[list[float]]]


def signals_of(exits: ExitsArtifact, split: str = "test") -> Any:
    """Stored exits on a split."""
    from safetensors.torch import load_file

    return load_file(open_artifact(exits) / f"{split}.safetensors")


def sizes_of(exits: ExitsArtifact) -> Any:
    """What FLOPs depend on."""
    from paperflows.components.early_exit.curves import Sizes

    return Sizes(width=exits["width"], inner=exits["inner"], depth=exits["depth"])


def positive_class(dataset: str, labels: list[str], f1_of: dict[str, str]) -> int | None:
    """The number of the class whose F1 counts for this dataset, None where accuracy alone does.

    Raises:
        InputError: the dataset has no such class.
    """
    name = f1_of.get(dataset)
    if name is not None and name not in labels:
        raise InputError(f"f1_of: dataset {dataset!r} has no class {name!r}; it has {', '.join(labels)}")
    return None if name is None else labels.index(name)


def _positive(exits: ExitsArtifact, f1_of: dict[str, str]) -> int | None:
    return positive_class(exits["dataset"], exits["labels"], f1_of)


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
        {e["dataset"]: static_curve(signals_of(e), sizes_of(e), positive=_positive(e, f1_of)) for e in exits}
    )


@cached_task(name="trace_truncated")
def trace_truncated(exits: list[list[ExitsArtifact]], f1_of: dict[str, str]) -> CurveArtifact:
    """Models trained apart, one a depth (for each dataset, shallowest first, the full one last)."""
    import numpy as np

    from paperflows.components.early_exit.curves import Curve, Sizes, full_flops, static_curve

    curves = {}
    for models in exits:
        full = full_flops(signals_of(models[-1]), sizes_of(models[-1]))
        ends = []
        for e in models:
            signals = signals_of(e)
            own = static_curve(signals, sizes_of(e), positive=_positive(e, f1_of))
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
        validation, test = signals_of(e, "validation"), signals_of(e)
        sizes, positive = sizes_of(e), _positive(e, f1_of)
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
    """The leaderboard: each method's ELUE score against the reference's points, by dataset.

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
            pairs = list(zip(curves, known, strict=False))  # some methods have fewer seeds
            areas = [area for area in (area_between(c, k) for c, k in pairs) if area is not None]
            rows.append(
                {
                    "dataset": dataset,
                    "method": method,
                    "reference": reference,
                    "score": float(np.mean([elue_score(c, k) for c, k in pairs])),
                    "area": float(np.mean(areas)) if areas else None,
                    "front_share": shares[method],
                    "points": len(curves[0]),
                    "clamped": clamped([p[0] for p in curves[0]], [p[0] for p in known[0]]),
                    "parameters": parameters.get(method),
                }
            )
    return rows
