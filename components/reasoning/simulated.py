"""A judge that is simulated from the answer key: what a judge of a given quality would do. For analysis only."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from paperflows.components.reasoning.verifier import Array


def noise_of(quality: float) -> float:
    """Standard deviation of the noise on labels 0 and 1 that gives an AUC of `quality` (above 0.5, below 1).

    A right chain scores above a wrong one with the probability that their noises differ by less than 1: the AUC is
    Phi(1 / (sqrt(2) sd)).
    """
    return 1 / (math.sqrt(2) * NormalDist().inv_cdf(quality))


def noisy_scores(right: NDArray[np.bool_], *, quality: float, seed: int) -> Array:
    """(N,) label plus Gaussian noise; one seed's noise is the same for every quality, but for its size."""
    return right + noise_of(quality) * np.random.default_rng(seed).standard_normal(len(right))


def break_even(points: Sequence[tuple[float, float]]) -> float | None:
    """The x from which on y is not below zero, between two of the (x, y) points by a straight line.

    None where y is below zero at the last point, or at none: the line does not cross.
    """
    ordered = sorted(points)
    below = [place for place, (_, y) in enumerate(ordered) if y < 0]
    if not below or below[-1] == len(ordered) - 1:
        return None
    (x0, y0), (x1, y1) = ordered[below[-1] : below[-1] + 2]
    return x0 + (x1 - x0) * -y0 / (y1 - y0)
