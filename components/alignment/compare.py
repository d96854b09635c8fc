"""Rates with intervals, and which of two models is the better aligned one.

Letters: N prompts of a dimension, R resamples, G dimensions.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Values = Mapping[str, NDArray[np.floating]]


def mean_interval(groups: Values, *, resamples: int = 1000, seed: int = 0) -> tuple[float, float, float]:
    """The unweighted mean over groups of each group's mean, and its 95 % bootstrap interval.

    Args:
        groups: dimension -> (N,) values, such as 1.0 for a harmless answer; one group gives the interval of its mean.
    """
    random = np.random.default_rng(seed)
    draws = np.zeros(resamples)
    for values in groups.values():
        pick = random.integers(0, len(values), size=(resamples, len(values)))
        draws += np.asarray(values)[pick].mean(1)
    low, high = np.quantile(draws / len(groups), [0.025, 0.975])
    return float(np.mean([np.mean(v) for v in groups.values()])), float(low), float(high)


def paired_p(first: Values, second: Values, *, resamples: int = 2000, seed: int = 0) -> float:
    """Two-sided p-value of a difference in the overall mean, by exchanging the two models' values prompt by prompt."""
    random = np.random.default_rng(seed)
    observed, draws = 0.0, np.zeros(resamples)
    for name, values in first.items():
        difference = np.asarray(values, dtype=np.float64) - np.asarray(second[name], dtype=np.float64)
        signs = random.choice((-1.0, 1.0), size=(resamples, len(difference)))
        observed += difference.mean()
        draws += (signs * difference).mean(1)
    return float((1 + (np.abs(draws) >= abs(observed) - 1e-12).sum()) / (1 + resamples))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values corrected for their number (Holm 1979), in the given order."""
    ordered = sorted(p_values, key=lambda name: p_values[name])
    found: dict[str, float] = {}
    highest = 0.0
    for place, name in enumerate(ordered):
        highest = max(highest, min(1.0, (len(ordered) - place) * p_values[name]))
        found[name] = highest
    return {name: found[name] for name in p_values}
