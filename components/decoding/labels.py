"""From scores of generations to the configuration each input should be decoded with, without learning noise.

Letters: N inputs, C configurations, M samples.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def shrunken(scores: Floats, weight: float) -> Floats:
    """(N, C) mean scores pulled to the mean of their configuration over all inputs of the family.

    q(x, c) = (M mean(x, c) + weight * mean(c)) / (M + weight), so that a lucky sample does not make a label.

    Args:
        scores: (N, C, M) of one family.
    """
    samples = scores.shape[2]
    return (samples * scores.mean(2) + weight * scores.mean((0, 2))) / (samples + weight)


def label_inputs(scores: Floats, weight: float) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Configuration (N,) of each input by its shrunken score, and which inputs are flat: no configuration matters.

    It is chosen on the first half of the samples, and stands if it beats the family's best configuration on the other
    half too. All other inputs, and with them ties and flat ones, get the family's best.

    Args:
        scores: (N, C, M) of one family, M >= 2.
    """
    half = scores.shape[2] // 2
    value, check = shrunken(scores[..., :half], weight), scores[..., half:].mean(2).round(12)
    best = int(scores.mean((0, 2)).argmax())
    # argmax takes the first of equals: let that be the family's best
    first = np.concatenate([[best], np.delete(np.arange(value.shape[1]), best)])
    chosen = first[value[:, first].round(12).argmax(1)]
    stands = check[np.arange(len(scores)), chosen] > check[:, best]
    flat = np.ptp(scores.mean(2), axis=1) < 1e-12
    return np.where(stands, chosen, best), flat


def half_split_oracle(scores: Floats) -> Floats:
    """(N,) score of the best configuration of each input, chosen on half of the samples and scored on the other half.

    Both halves take both roles. Choosing and scoring on the same samples would count luck as skill.

    Args:
        scores: (N, C, M) with M >= 2.
    """
    half = scores.shape[2] // 2
    one, two = scores[..., :half].mean(2), scores[..., half:].mean(2)
    rows = np.arange(len(scores))
    return (two[rows, one.argmax(1)] + one[rows, two.argmax(1)]) / 2


def normalise(scores: Floats, low: float, high: float) -> Floats:
    """Scores on the scale where `low` is 0 and `high` is 1."""
    return (scores - low) / (high - low) if high > low else np.zeros_like(scores)


def mutual_information(values: Sequence[float], groups: Sequence[str]) -> tuple[float, Floats]:
    """Mutual information in bits between two labellings (plug-in estimate), and its (N,) pointwise terms."""
    _, value = np.unique(np.asarray(values), return_inverse=True)
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    joint = np.zeros((value.max() + 1, group.max() + 1))
    np.add.at(joint, (value, group), 1.0 / len(value))
    ratio = joint / (joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True))
    terms = np.log2(ratio[value, group])
    return float(terms.mean()), terms
