"""How good a ranking is, by query. Letters: Q queries, K results."""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def hits(ranking: NDArray[np.int64], relevant: Sequence[Collection[int]]) -> NDArray[np.bool_]:
    """(Q, K): whether each ranked passage (Q, K) is among its query's relevant ones."""
    return np.array([[number in set(of) for number in row] for row, of in zip(ranking.tolist(), relevant, strict=True)])


def recall(ranking: NDArray[np.int64], relevant: Sequence[Collection[int]], k: int) -> Array:
    """(Q,) share of the relevant passages among the first `k`; 0 where nothing is relevant."""
    return hits(ranking, relevant)[:, :k].sum(1) / _counts(relevant)


def mean_reciprocal_rank(ranking: NDArray[np.int64], relevant: Sequence[Collection[int]], k: int) -> Array:
    """(Q,) 1 / rank of the first relevant passage among the first `k`, 0 where there is none; its mean is the MRR."""
    found = hits(ranking, relevant)[:, :k]
    return np.where(found.any(1), 1.0 / (found.argmax(1) + 1), 0.0)


def ndcg(ranking: NDArray[np.int64], relevant: Sequence[Collection[int]], k: int) -> Array:
    """(Q,) discounted cumulative gain of the first `k` over that of the best order, for relevance 0 or 1."""
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    found = hits(ranking, relevant)[:, :k]
    gained = found @ discount[: found.shape[1]]
    best = np.concatenate([[0.0], np.cumsum(discount)])[np.minimum(_counts(relevant), k).astype(int)]
    return gained / best


def _counts(relevant: Sequence[Collection[int]]) -> Array:
    return np.maximum(1, [len(set(of)) for of in relevant]).astype(np.float64)
