"""Ranks of true answers among all candidates. Letters: M questions, C candidates."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def ranks(scores: Floats, gold: NDArray[np.int64], left_out: NDArray[np.bool_] | None = None) -> Floats:
    """(M,) rank of the gold candidate from 1; tied candidates share the mean of their ranks, so that ties do not help.

    Args:
        scores: (M, C), higher is better.
        left_out: (M, C) true for other right answers (filtered ranking, Bordes et al. 2013); the gold one stays in.
    """
    rows = np.arange(len(scores))
    scores = scores.astype(np.float64).copy()
    of_gold = scores[rows, gold]
    if left_out is not None:
        scores[left_out] = -np.inf
        scores[rows, gold] = of_gold
    above = (scores > of_gold[:, None]).sum(1)
    tied = (scores == of_gold[:, None]).sum(1) - 1
    return 1.0 + above + tied / 2
