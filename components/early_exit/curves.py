"""From stored exits to points of quality and cost: static depths, rules at budgets, and the control.

Per-example outputs have four columns (right, hit, said, true): quality is the mean of accuracy and F1 over their sums,
which is plain accuracy where hit = right and said = true = 1. A mixture of two points is the mixture of their columns.

Letters: N texts, L layers, C classes, P points.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paperflows.components.early_exit.flops import sentence_flops, static_flops
from paperflows.components.early_exit.policies import POLICIES, Policy, entropy, fixed_policy, replay
from paperflows.components.evaluation.statistics import accuracy_f1, f1

Array = NDArray[np.float64]
Signals = Mapping[str, Tensor]


@dataclass(frozen=True)
class Sizes:
    """What FLOPs depend on."""

    width: int
    inner: int
    depth: int


@dataclass(frozen=True)
class Curve:
    """P points: cost as a share of the full model's FLOPs (P,), per-example columns, a setting each.

    Columns are (P, N, 4) for `accuracy_f1`, or (P, N, 3) for `f1` (taggers).
    """

    costs: Array
    columns: Array
    settings: tuple[float, ...]

    def qualities(self) -> Array:
        """(P,) mean of accuracy and F1, or F1."""
        statistic = f1 if self.columns.shape[-1] == 3 else accuracy_f1
        return np.asarray(statistic(np.zeros(1), self.columns), dtype=np.float64)


def columns_of(logits: Tensor, target: Tensor, *, positive: int | None = None) -> Array:
    """(N, 4) columns of predictions; `positive` is the class whose F1 counts beside accuracy."""
    said = logits.argmax(-1)
    right = (said == target).double()
    one = torch.ones_like(right)
    if positive is None:
        return torch.stack([right, right, one, one], -1).numpy()
    is_said, is_true = (said == positive).double(), (target == positive).double()
    return torch.stack([right, is_said * is_true, is_said, is_true], -1).numpy()


def full_flops(signals: Signals, sizes: Sizes) -> float:
    """Mean FLOPs of the full encoder with its last exit alone: what every cost is a share of."""
    outputs = signals["logits"].shape[-1]
    return float(
        static_flops(signals["lengths"], sizes.depth, width=sizes.width, inner=sizes.inner, outputs=outputs).mean()
    )


def static_curve(signals: Signals, sizes: Sizes, *, positive: int | None = None) -> Curve:
    """Every exit as the whole model's end: what cutting the model at each depth gives."""
    logits, depth = signals["logits"], signals["logits"].shape[1]
    outputs, full = logits.shape[-1], full_flops(signals, sizes)
    costs = [
        static_flops(signals["lengths"], n, width=sizes.width, inner=sizes.inner, outputs=outputs).mean() / full
        for n in range(1, depth + 1)
    ]
    columns = [columns_of(logits[:, n], signals["target"], positive=positive) for n in range(depth)]
    return Curve(np.array(costs), np.stack(columns), tuple(float(n) for n in range(1, depth + 1)))


def policy_point(
    signals: Signals, policy: Policy, sizes: Sizes, *, confidence: bool = False, positive: int | None = None
) -> tuple[float, Array, Tensor]:
    """Cost share, columns (N, 4) and executed layers (N,) of one rule."""
    exits = replay(policy, signals["logits"], signals["confidence"])
    chosen = signals["logits"][torch.arange(len(exits)), exits - 1]
    flops = sentence_flops(
        signals["lengths"], exits, width=sizes.width, inner=sizes.inner, outputs=chosen.shape[-1], confidence=confidence
    )
    return (
        float(flops.mean()) / full_flops(signals, sizes),
        columns_of(chosen, signals["target"], positive=positive),
        exits,
    )


def settings_of(rule: str, validation: Signals) -> list[float]:
    """Settings to try of a rule, from the dearest to the cheapest; thresholds are quantiles seen on validation."""
    shares = np.linspace(0.005, 0.995, 100)
    if rule == "patience":
        return [float(t) for t in range(validation["logits"].shape[1] - 1, 0, -1)]
    if rule == "learned":
        return [float(q) for q in np.quantile(validation["confidence"].numpy(), 1 - shares)]
    return [float(q) for q in np.quantile(entropy(validation["logits"]).numpy(), shares)]


def setting_at(rule: str, validation: Signals, sizes: Sizes, budget: float) -> float:
    """The dearest setting whose cost on validation is within `budget` (share of full FLOPs); else the cheapest."""
    settings = settings_of(rule, validation)
    for setting in settings:
        cost, _, _ = policy_point(validation, POLICIES[rule](setting), sizes, confidence=rule == "learned")
        if cost <= budget:
            return setting
    return settings[-1]


def policy_curve(
    rule: str,
    validation: Signals,
    test: Signals,
    sizes: Sizes,
    budgets: Sequence[float],
    *,
    positive: int | None = None,
) -> Curve:
    """The rule on test at settings that validation chose for each budget; patience takes all its settings."""
    if rule == "patience":
        settings = settings_of(rule, validation)
    else:
        settings = list(dict.fromkeys(setting_at(rule, validation, sizes, budget) for budget in budgets))
    points = [
        policy_point(test, POLICIES[rule](s), sizes, confidence=rule == "learned", positive=positive) for s in settings
    ]
    return Curve(np.array([p[0] for p in points]), np.stack([p[1] for p in points]), tuple(settings))


def control_curve(
    validation: Signals,
    test: Signals,
    sizes: Sizes,
    budgets: Sequence[float],
    *,
    seed: int,
    positive: int | None = None,
) -> Curve:
    """The entropy rule's exit layers dealt to the texts at random: its histogram without its knowledge."""
    random, points = np.random.default_rng(seed), []
    for budget in budgets:
        setting = setting_at("entropy", validation, sizes, budget)
        _, _, exits = policy_point(test, POLICIES["entropy"](setting), sizes)
        dealt = exits[torch.from_numpy(random.permutation(len(exits)))]
        points.append(policy_point(test, fixed_policy(dealt), sizes, positive=positive))
    return Curve(np.array([p[0] for p in points]), np.stack([p[1] for p in points]), tuple(budgets))
