"""BM25 by the library bm25s (Robertson's, k1 = 1.5, b = 0.75; Lucene's idf), saved and memory-mapped.

Letters: Q queries, K results.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
from numpy.typing import NDArray

from paperflows.components.errors import InputError

logging.getLogger("bm25s").setLevel(logging.WARNING)  # the library sets it to DEBUG for every program


class BM25Index:
    """Passages by the words they share with a query."""

    def __init__(self, index: bm25s.BM25) -> None:
        self._index = index

    def __len__(self) -> int:
        return int(self._index.scores["num_docs"])

    def search(self, queries: Sequence[str], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores and passage numbers, both (Q, K), best first; fewer passages than `k` give as many as there are."""
        k = min(k, len(self))
        if not queries:
            return np.zeros((0, k), np.float32), np.zeros((0, k), np.int64)
        ids, scores = self._index.retrieve(_tokens(queries), k=k, show_progress=False, backend_selection="numpy")
        return scores.astype(np.float32), ids.astype(np.int64)

    def save(self, folder: Path) -> None:
        """Write the index into `folder` (arrays and JSON, no pickle)."""
        self._index.save(folder, show_progress=False)


def build_bm25(texts: Sequence[str]) -> BM25Index:
    """An index of `texts`; a passage's number is its place.

    Raises:
        InputError: there are no texts.
    """
    if not texts:
        raise InputError("no passages to index")
    index = bm25s.BM25()
    index.index(_tokens(texts), show_progress=False)
    return BM25Index(index)


def open_bm25(folder: Path) -> BM25Index:
    """A saved index, its arrays memory-mapped."""
    return BM25Index(bm25s.BM25.load(folder, mmap=True, show_progress=False))


def _tokens(texts: Sequence[str]) -> Any:
    return bm25s.tokenize(list(texts), stopwords="en", return_ids=False, show_progress=False)
