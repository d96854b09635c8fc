"""Bias of a metric on minimal pairs (Sun et al. 2022, section 2; their get_bias_score.py).

Letters: K pairs; scores lie as candidate 0 and 1 of pair 0, candidate 0 and 1 of pair 1, ...
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from paperflows.components.errors import InputError

Array = NDArray[np.float64]


def pair_differences(scores: Sequence[float] | Array) -> Array:
    """Signed differences (K,) within pairs, after all (2K,) scores of one attribute were spread over 0 to 100.

    A metric that gives all candidates the same score does not tell them apart: its differences are 0.

    Raises:
        InputError: an odd number of scores.
    """
    values = np.asarray(scores, dtype=np.float64)
    if len(values) < 2 or len(values) % 2:
        raise InputError(f"minimal pairs: {len(values)} scores are not pairs")
    spread = values.max() - values.min()
    if not spread > 0:
        return np.zeros(len(values) // 2)
    normal = 100 * (values - values.min()) / spread
    return normal[0::2] - normal[1::2]


def bias(scores: Sequence[float] | Array) -> float:
    """Mean absolute difference within pairs, 0 to 100."""
    return float(np.abs(pair_differences(scores)).mean())


def polarised_bias(scores: Sequence[float] | Array) -> float:
    """Mean signed difference: above 0 where the first candidate of a pair is preferred on the whole."""
    return float(pair_differences(scores).mean())
