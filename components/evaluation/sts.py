"""Semantic textual similarity: Spearman's rho of cosines against human scores, and embeddings for transfer tasks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from paperflows.components.errors import InputError

Embed = Callable[[Sequence[str]], Tensor]
Rows = Sequence[Mapping[str, Any]]


def cosine_scores(embed: Embed, rows: Rows) -> NDArray[np.float64]:
    """Cosine similarity (N,) of `text` and `text_pair` of each row; all texts embedded in one call."""
    texts = [row["text"] for row in rows] + [row["text_pair"] for row in rows]
    vectors = F.normalize(embed(texts), dim=-1)
    return (vectors[: len(rows)] * vectors[len(rows) :]).sum(-1).double().numpy()


def sts_all(splits: Mapping[str, Rows], names: Sequence[str] | None = None) -> list[Mapping[str, Any]]:
    """The "all" setting of SentEval: the sources of a dataset concatenated before the correlation is taken.

    Args:
        splits: rows by split. A dataset with a `test` split is scored on it alone; one whose splits are sources
            (STS 12-16) is scored on all of them together.
        names: the splits to take instead.

    Raises:
        InputError: there is something to train on or to choose by, and no test.
    """
    if not names and "test" not in splits and (seen := splits.keys() & {"train", "validation"}):
        raise InputError(f"a dataset with a split {min(seen)} needs a split test to be scored on; it has {[*splits]}")
    chosen = names or (["test"] if "test" in splits else sorted(splits))
    return [row for name in chosen for row in splits[name]]


def transfer_correct(embed: Embed, train: Rows, validation: Rows, test: Rows, *, seed: int = 0) -> NDArray[np.float64]:
    """Which test rows (N,) a logistic regression on frozen embeddings labels correctly (SentEval's transfer tasks).

    Pairs are represented as (|u - v|, u * v). The inverse regularisation C is chosen on validation accuracy.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x_train, x_val, x_test = (_features(embed, rows) for rows in (train, validation, test))
    y_train, y_val, y_test = ([str(row["label"]) for row in rows] for rows in (train, validation, test))
    best: tuple[float, Any] | None = None
    for c in (0.001, 0.01, 0.1, 1.0):
        fitted = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=300, tol=1e-3, random_state=seed))
        fitted.fit(x_train, y_train)
        accuracy = float(fitted.score(x_val, y_val))
        if best is None or accuracy > best[0]:
            best = (accuracy, fitted)
    assert best is not None
    return (best[1].predict(x_test) == np.asarray(y_test)).astype(np.float64)


def _features(embed: Embed, rows: Rows) -> NDArray[np.float32]:
    first = embed([row["text"] for row in rows]).numpy()
    if "text_pair" not in rows[0]:
        return first
    second = embed([row["text_pair"] for row in rows]).numpy()
    return np.concatenate([np.abs(first - second), first * second], axis=1)
