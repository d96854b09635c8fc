"""How much of the labels a model's states hold, as far as a linear probe can tell. Letters: N examples, D width."""

import numpy as np
from numpy.typing import NDArray


def label_information(states: NDArray[np.floating], labels: NDArray[np.integer], *, folds: int = 4) -> float:
    """A lower bound of the mutual information of states (N, D) and labels (N,), in bits, never below 0.

    The entropy of the labels minus the cross-entropy of a logistic regression on examples that it did not learn from
    (Barber and Agakov 2003); the bound that Late Prompt Tuning estimates in section 2 with a probing classifier.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    _, numbers, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(counts) < 2 or counts.min() < 2:
        return 0.0
    share = counts / counts.sum()
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    split = StratifiedKFold(min(folds, int(counts.min())), shuffle=True, random_state=0)
    said = cross_val_predict(probe, states, numbers, cv=split, method="predict_proba")
    bits = -np.log2(np.maximum(said[np.arange(len(numbers)), numbers], 1e-12)).mean()
    return max(0.0, float(-(share * np.log2(share)).sum() - bits))
