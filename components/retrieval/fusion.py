"""Several rankings as one. Letters: Q queries, K results of each ranking."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def reciprocal_rank(
    rankings: Sequence[NDArray[np.int64]], k: int, *, smoothing: float = 60.0
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Reciprocal rank fusion (Cormack et al., 2009): a passage scores the sum of 1 / (smoothing + its rank).

    Args:
        rankings: passage numbers (Q, K_i), best first, rank 1 in the first column; -1 is no passage.
        k: passages kept of each query.

    Returns:
        Scores and passage numbers, both (Q, k), best first, equal scores by number; where a query has fewer than `k`,
        number -1 with score 0.
    """
    ids = np.concatenate(rankings, axis=1)
    points = np.concatenate([1.0 / (smoothing + 1 + np.arange(r.shape[1])) for r in rankings])
    queries = np.repeat(np.arange(len(ids)), ids.shape[1])
    there = ids.ravel() >= 0
    both = np.stack([queries[there], ids.ravel()[there]])
    distinct, place = np.unique(both, axis=1, return_inverse=True)
    total = np.bincount(place.ravel(), weights=np.tile(points, len(ids))[there], minlength=distinct.shape[1])
    order = np.lexsort((distinct[1], -total, distinct[0]))
    owner, number, total = distinct[0][order], distinct[1][order], total[order]
    rank = np.arange(len(owner)) - np.searchsorted(owner, owner)
    kept = rank < k
    found, scores = np.full((len(ids), k), -1, np.int64), np.zeros((len(ids), k))
    found[owner[kept], rank[kept]], scores[owner[kept], rank[kept]] = number[kept], total[kept]
    return scores, found
