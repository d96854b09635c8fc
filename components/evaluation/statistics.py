"""What is compared: one number from the outputs of a system on N examples, and from those of each resample.

Letters: N examples, K columns of an output that is counts.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


def mean_statistic(gold: Array, output: Array) -> Array:
    """Mean of the output over the last axis; for per-example scores such as accuracy (gold is not read)."""
    return output.mean(-1)


def f1(gold: Array, output: Array) -> Array:
    """F1 from the sums of counts (..., N, 3): hits, said, true; such as entities of sentences (gold is not read)."""
    hits, said, true = np.moveaxis(output.sum(-2), -1, 0)
    return 2 * hits / np.maximum(said + true, 1e-12)


def f1_gap(gold: Array, output: Array) -> Array:
    """Difference of two systems' F1 from the counts of both (..., N, 6); the effect is a difference of differences."""
    return f1(gold, output[..., :3]) - f1(gold, output[..., 3:])


def accuracy_f1(gold: Array, output: Array) -> Array:
    """Mean of accuracy and F1 from (..., N, 4): right, hits, said, true; GLUE's measure of MRPC (gold is not read)."""
    return (output[..., 0].mean(-1) + f1(gold, output[..., 1:])) / 2


def ratio_of_sums(gold: Array, output: Array) -> Array:
    """Sum of the first column over the sum of the second, (..., N, 2); such as right tokens over tokens."""
    top, bottom = np.moveaxis(output.sum(-2), -1, 0)
    return top / np.maximum(bottom, 1e-12)


def median(gold: Array, output: Array) -> Array:
    """Median over the last axis; for times of repeats (gold is not read)."""
    return np.median(output, axis=-1)


def spearman(gold: Array, output: Array) -> Array:
    """Spearman's rank correlation along the last axis, ties by average rank; nan where one side is constant."""
    from scipy.stats import rankdata

    a, b = rankdata(gold, axis=-1), rankdata(output, axis=-1)
    a, b = a - a.mean(-1, keepdims=True), b - b.mean(-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1))


def macro_f1(gold: Array, output: Array) -> Array:
    """Mean of the F1 of each class that a row of `gold` has, along the last axis; both hold class numbers."""
    total, classes = np.zeros(output.shape[:-1]), np.zeros(output.shape[:-1])
    for label in np.unique(gold):
        hit = ((gold == label) & (output == label)).sum(-1)
        there = (gold == label).any(-1)
        total += there * 2 * hit / np.maximum(1, (gold == label).sum(-1) + (output == label).sum(-1))
        classes += there
    return total / np.maximum(1, classes)
