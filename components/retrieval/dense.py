"""Dense retrieval: unit vectors in a faiss index, exact or approximate.

Letters: N passages, Q queries, K results, D width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from paperflows.components.errors import InputError

IndexKind = Literal["flat", "ivfpq", "hnsw"]
LONGEST = 512  # tokens of a text
_PQ_BITS = 8  # a codebook of 256 entries for each part, so that training needs at least as many passages


def passage_encoder(model: str, *, device: str = "auto") -> Any:
    """A sentence encoder (`minilm`, a folder or a hub id) that reads as far as it has positions, 512 tokens at most.

    What BM25 would find at the end of a passage must not be cut off here.
    """
    from paperflows.components.models.encoder import load_encoder

    encoder = load_encoder(model, device=device, max_length=LONGEST)
    config: Any = encoder.encoder.config
    # RoBERTa counts positions from behind its padding id
    first = (config.pad_token_id or 0) + 1 if "roberta" in config.model_type else 0
    encoder.max_length = min(LONGEST, int(getattr(config, "max_position_embeddings", LONGEST)) - first)
    return encoder


def encode(encoder: Any, texts: Sequence[str], *, prefix: str = "") -> NDArray[np.float32]:
    """Unit vectors (N, D) of `texts` by a `SentenceEncoder`: their inner products are cosines.

    Args:
        prefix: what the encoder was trained to see before texts of this kind, such as "query: ".
    """
    vectors = np.ascontiguousarray(encoder.embed([prefix + text for text in texts]).numpy(), dtype=np.float32)
    faiss.normalize_L2(vectors)
    return vectors


class DenseIndex:
    """A faiss index of inner products; on a GPU where faiss sees one.

    Args:
        probes: lists of an IVF index that a search looks into.
        breadth: candidates that an HNSW search keeps.
    """

    def __init__(self, index: Any, *, probes: int = 16, breadth: int = 64) -> None:
        if isinstance(index, faiss.IndexIVF):
            index.nprobe = probes
        elif isinstance(index, faiss.IndexHNSW):
            index.hnsw.efSearch = breadth
        movable = faiss.get_num_gpus() > 0 and not isinstance(index, faiss.IndexHNSW)
        self._index = faiss.index_cpu_to_all_gpus(index) if movable else index
        self._stored = index

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(self, vectors: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Inner products and passage numbers, both (Q, K), best first, of query vectors (Q, D).

        An approximate index that finds fewer than K fills the rest with number -1.
        """
        return self._index.search(vectors, min(k, len(self)))

    def save(self, path: Path) -> None:
        """Write the index to one file."""
        faiss.write_index(self._stored, str(path))


def build_dense(vectors: NDArray[np.float32], kind: IndexKind = "flat", *, seed: int = 0) -> DenseIndex:
    """An index of unit vectors (N, D).

    Args:
        kind: "flat" compares with every passage; "ivfpq" looks into a few of about sqrt(N) lists, each vector in D / 8
            bytes; "hnsw" walks a graph of neighbours.

    Raises:
        InputError: there are no vectors, or fewer than an IVF-PQ index needs to be trained.
    """
    count, width = vectors.shape
    if not count:
        raise InputError("no passages to index")
    if kind == "ivfpq" and count < 2**_PQ_BITS:
        raise InputError(f"an IVF-PQ index needs at least {2**_PQ_BITS} passages, got {count}")
    parts = next(parts for parts in (width // 8, width // 4, 1) if parts and width % parts == 0)
    lists = max(1, min(int(count**0.5), count // 39))  # faiss asks for 39 training points a list
    names = {"flat": "Flat", "ivfpq": f"IVF{lists},PQ{parts}x{_PQ_BITS}", "hnsw": "HNSW32,Flat"}
    index = faiss.index_factory(width, names[kind], faiss.METRIC_INNER_PRODUCT)
    if isinstance(index, faiss.IndexIVF):
        index.cp.seed = seed
    index.train(vectors)
    index.add(vectors)
    return DenseIndex(index)


def open_dense(path: Path, **search: int) -> DenseIndex:
    """A saved index, its codes memory-mapped (a GPU copies them).

    Args:
        search: `probes` or `breadth` of `DenseIndex`.
    """
    return DenseIndex(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC), **search)
