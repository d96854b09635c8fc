"""Quality against cost: the ELUE score, Pareto fronts, the area between two curves, points at a wanted cost.

Letters: P points of a curve, N examples.
Source: ELUE (Liu et al. 2022), section 3.3.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def mixture(costs: Sequence[float], wanted: float) -> Array:
    """Weights (P,) of the points whose mixture costs `wanted`: the two neighbours by linear interpolation.

    Drawing one of the two at random for each example has exactly this cost and, in expectation, this quality; outside
    the range of `costs` the end point gets all weight. Repeated costs count as one point, the last of them.
    """
    order = np.argsort(np.asarray(costs, dtype=np.float64), kind="stable")
    x = np.asarray(costs, dtype=np.float64)[order]
    weights = np.zeros(len(x))
    if wanted <= x[0]:
        weights[order[0]] = 1.0
    elif wanted >= x[-1]:
        weights[order[-1]] = 1.0
    else:
        right = int(np.searchsorted(x, wanted, side="right"))
        share = (wanted - x[right - 1]) / (x[right] - x[right - 1])
        weights[order[right - 1]], weights[order[right]] = 1 - share, share
    return weights


def reference_weights(costs: Sequence[float], reference: Sequence[float]) -> Array:
    """(P, R) weights of the R reference points at each of the P costs: p_ref(f) = weights @ p."""
    return np.stack([mixture(reference, cost) for cost in costs])


def clamped(costs: Sequence[float], reference: Sequence[float]) -> int:
    """How many points lie outside the reference's range of cost, where the score takes its end point."""
    return sum(not min(reference) <= cost <= max(reference) for cost in costs)


def elue_score(points: Sequence[tuple[float, float]], reference: Sequence[tuple[float, float]]) -> float:
    """Mean over (cost, quality) points of the quality minus the reference's at the same cost.

    The reference is interpolated linearly and continued flat.
    """
    costs, quality = np.array(points, dtype=np.float64).T
    known, level = np.array(reference, dtype=np.float64).T
    return float(np.mean(quality - reference_weights(list(costs), list(known)) @ level))


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the (cost, quality) points that none beats in both, one of them strictly; by rising cost."""
    front: list[int] = []
    best = -np.inf
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        cost, quality = points[index]
        equal = bool(front) and points[front[-1]] == (cost, quality)
        if quality > best or equal:
            front.append(index)
            best = max(best, quality)
    return front


def front_shares(curves: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, float]:
    """Each method's share of the joint Pareto front."""
    owners = [name for name, points in curves.items() for _ in points]
    front = pareto_front([point for points in curves.values() for point in points])
    return {name: sum(owners[i] == name for i in front) / len(front) for name in curves}


def area_between(points: Sequence[tuple[float, float]], reference: Sequence[tuple[float, float]]) -> float | None:
    """Mean height of one piecewise linear curve over another on their common range of cost; None without one.

    Unlike the ELUE score it does not depend on where the points lie.
    """
    first, second = (np.array(sorted(curve), dtype=np.float64).T for curve in (points, reference))
    low, high = max(first[0][0], second[0][0]), min(first[0][-1], second[0][-1])
    if not low < high:
        return None
    knots = np.unique(np.concatenate([first[0], second[0], [low, high]]))
    knots = knots[(knots >= low) & (knots <= high)]
    gap = np.interp(knots, *first) - np.interp(knots, *second)
    return float(np.trapezoid(gap, knots) / (high - low))
