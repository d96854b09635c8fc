"""What every modality offers: signals to ids and back. Letters: N items, D width of a frame or patch, K codes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class MediaTokenizer(Protocol):
    """Signals of one modality as ids 0 .. n_ids - 1.

    Attributes:
        n_ids: size of the code book, all levels together.
        rate: ids of an item, in words.
        exact: ids that every item has; None where the length varies.
        begin, end: names of the tokens around a block.
    """

    n_ids: int
    rate: str
    exact: int | None
    begin: str
    end: str

    def encode(self, signals: Sequence[Any]) -> list[list[int]]:
        """Ids of each signal."""
        ...

    def decode(self, ids: Sequence[int]) -> Any:
        """The signal of one item's ids."""
        ...

    def save(self, folder: Path) -> None:
        """Write what `load` of its class reads."""
        ...


def quantizer(width: int, codes: int, levels: int = 1) -> nn.Module:
    """A code book that follows its vectors by moving averages, starts from k-means and restarts dead codes.

    Args:
        levels: residual levels, each with a code book of its own; 1 is plain vector quantization.
    """
    from vector_quantize_pytorch import ResidualVQ, VectorQuantize

    options: dict[str, Any] = {
        "dim": width, "codebook_size": codes, "kmeans_init": True, "kmeans_iters": 20, "decay": 0.9,
        "threshold_ema_dead_code": 2, "rotation_trick": False,
    }  # fmt: skip
    if levels == 1:
        return VectorQuantize(**options)
    return ResidualVQ(num_quantizers=levels, **options)


def fit_quantizer(book: nn.Module, vectors: Tensor, *, steps: int, batch: int, seed: int) -> None:
    """Let a code book of one level follow (N, D) vectors; it moves by averages alone, so there is no loss."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    book.train()
    with torch.no_grad():
        for _ in range(steps):
            book(vectors[torch.randint(len(vectors), (min(batch, len(vectors)),), generator=generator)][None])
    book.eval()


@torch.inference_mode()
def nearest(book: nn.Module, vectors: Tensor) -> Tensor:
    """(N,) codes of (N, D) vectors."""
    indices: Tensor = book(vectors[None])[1][0]
    return indices


def codebook(book: nn.Module) -> Tensor:
    """(K, D) vectors of a code book of one level."""
    found: Tensor = book.codebook  # type: ignore[assignment]
    return found.detach()


def perplexity(rows: Sequence[Sequence[int]], n_ids: int) -> float:
    """How many codes are in use: two to the power of the entropy of their distribution, at most `n_ids`."""
    counts: NDArray[np.float64] = np.bincount([i for row in rows for i in row], minlength=n_ids).astype(float)
    share = counts[counts > 0] / counts.sum()
    return float(np.exp(-(share * np.log(share)).sum()))
