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
        groups: dimension -> (N,) values, such as 1.0 for a harmless answer, NaN where there is none; one group gives
            the interval of its mean.
    """
    known = [values[~np.isnan(values)] for values in map(np.asarray, groups.values())]
    random = np.random.default_rng(seed)
    draws = np.zeros(resamples)
    for values in known:
        pick = random.integers(0, len(values), size=(resamples, len(values)))
        draws += values[pick].mean(1)
    low, high = np.quantile(draws / len(known), [0.025, 0.975])
    return float(np.mean([v.mean() for v in known])), float(low), float(high)


def paired_p(first: Values, second: Values, *, resamples: int = 2000, seed: int = 0) -> float:
    """Two-sided p-value of a difference in the overall mean, by exchanging the two models' values prompt by prompt.

    Prompts and dimensions for which one of them has no value (NaN) do not count; without any the p-value is 1.
    """
    random = np.random.default_rng(seed)
    observed, draws = 0.0, np.zeros(resamples)
    for name in [name for name in first if name in second]:
        difference = np.asarray(first[name], dtype=np.float64) - np.asarray(second[name], dtype=np.float64)
        difference = difference[~np.isnan(difference)]
        if not len(difference):
            continue
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
