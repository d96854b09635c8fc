"""A judge that is simulated from the answer key: what a judge of a given quality would do. For analysis only."""

import math
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
