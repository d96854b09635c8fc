"""Can a model foresee where another one errs? Predictors of right-or-wrong bits from the text, and their measures.

Letters: N texts, L layers (bits a text).
Source: HashEE (Sun et al. 2022), section 2; measures as in its repository's difficulty/metrics.py.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def bag_of_words(train: Sequence[str], other: Sequence[Sequence[str]]) -> list[Array]:
    """Counts of the words of the training texts, for these and for the other texts."""
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(min_df=2, binary=True, dtype=np.float32)
    return [counter.fit_transform(train), *(counter.transform(texts) for texts in other)]


def predict_bits(features: Array, bits: Array, held_out: Array, *, strength: float = 0.1) -> Array:
    """(M, L) predicted bits of the held-out texts: one logistic regression a layer, the majority where it is alone."""
    from sklearn.linear_model import LogisticRegression

    columns = []
    for layer in range(bits.shape[1]):
        truth = bits[:, layer]
        if truth.min() == truth.max():
            columns.append(np.full(held_out.shape[0], truth[0]))
        else:
            fitted = LogisticRegression(C=strength, max_iter=200, tol=1e-3).fit(features, truth)
            columns.append(fitted.predict(held_out))
    return np.stack(columns, 1).astype(np.float64)


def majority_bits(bits: Array, count: int) -> Array:
    """(count, L) each layer's more frequent bit: what a predictor must beat."""
    return np.tile((bits.mean(0) >= 0.5).astype(np.float64), (count, 1))


def set_recall(truth: Array, said: Array, *, bit: int) -> float:
    """Recall of the set of layers with this bit, averaged over the texts that have one.

    With bit 0 (the model errs) the paper's sensitivity, with bit 1 its specificity.
    """
    has = truth == bit
    some = has.any(1)
    if not some.any():
        return 0.0
    found = ((said == bit) & has)[some].sum(1) / has[some].sum(1)
    return float(found.mean())


def bit_measures(truth: Array, said: Array) -> dict[str, float]:
    """Mean accuracy over layers, sensitivity, specificity and their geometric mean."""
    sensitivity, specificity = set_recall(truth, said, bit=0), set_recall(truth, said, bit=1)
    return {
        "accuracy": float((truth == said).mean()),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "g_mean": float(np.sqrt(sensitivity * specificity)),
    }
