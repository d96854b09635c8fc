"""Tokenise once, address batches by step number, pad with tensor operations.

Letters: N texts, B texts in a batch, T tokens of the longest text in it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


class TokenTable:
    """N tokenised texts in one flat array, so that a padded batch is a single gather.

    Args:
        rows: token ids of each text, special tokens included.
        pad_id: id used for padding.
    """

    def __init__(self, rows: Sequence[Sequence[int]], *, pad_id: int) -> None:
        self.lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
        self._flat = (
            np.concatenate([np.asarray(row, dtype=np.int64) for row in rows]) if len(rows) else np.zeros(0, int)
        )
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)[:-1]]) if len(rows) else np.zeros(0, int)
        self.pad_id = pad_id

    def __len__(self) -> int:
        return len(self.lengths)

    @classmethod
    def from_texts(
        cls, texts: Sequence[str], tokenizer: Any, *, max_length: int, pairs: Sequence[str] | None = None
    ) -> "TokenTable":
        """Tokenise `texts` (with their second texts `pairs`), cutting each row at `max_length` tokens."""
        if not texts:
            return cls([], pad_id=tokenizer.pad_token_id)
        both = (list(texts),) if pairs is None else (list(texts), list(pairs))
        rows = tokenizer(*both, truncation=True, max_length=max_length, return_attention_mask=False)["input_ids"]
        return cls(rows, pad_id=tokenizer.pad_token_id)

    def pad(self, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        """Token ids and attention mask of the given texts, both (B, T) int64."""
        lengths = self.lengths[indices]
        columns = np.arange(int(lengths.max()))
        inside = columns[None, :] < lengths[:, None]
        positions = np.where(inside, self._starts[indices][:, None] + columns[None, :], 0)
        ids = np.where(inside, self._flat[positions], self.pad_id)
        return torch.from_numpy(ids), torch.from_numpy(inside.astype(np.int64))


class Batches:
    """The batch of every training step, a pure function of (seed, step): resuming needs only the step number.

    Args:
        lengths: (N,) cost of each example, used to group similar lengths; None for plain shuffling (which in-batch
            negatives need: grouped lengths would make them easier to tell apart by length).
        n: number of examples when `lengths` is None.
        batch_size: examples a step; the last short batch of an epoch is dropped when N >= batch_size.
        seed: of the shuffling.
    """

    WINDOW = 50  # batches sorted together when grouping by length

    def __init__(self, *, batch_size: int, seed: int, lengths: np.ndarray | None = None, n: int | None = None) -> None:
        size = len(lengths) if lengths is not None else n
        if not size:
            raise ValueError("no examples to make batches of")
        self._n, self._lengths, self._seed = size, lengths, seed
        self.batch_size = min(batch_size, size)
        self.per_epoch = size // self.batch_size
        self._epoch, self._order = -1, np.zeros((0, 0), int)

    def at(self, step: int) -> np.ndarray:
        """Indices (B,) of the examples of step `step` >= 0."""
        epoch, position = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._shuffle(epoch)
        return self._order[position]

    def _shuffle(self, epoch: int) -> np.ndarray:
        random = np.random.default_rng([self._seed, epoch])
        order = random.permutation(self._n)
        if self._lengths is not None:
            window = self.WINDOW * self.batch_size
            chunks = [order[start : start + window] for start in range(0, self._n, window)]
            order = np.concatenate([chunk[np.argsort(self._lengths[chunk], kind="stable")] for chunk in chunks])
        batches = order[: self.per_epoch * self.batch_size].reshape(self.per_epoch, self.batch_size)
        return random.permutation(batches, axis=0)


def token_budget_batches(lengths: np.ndarray, *, budget: int) -> list[np.ndarray]:
    """Split texts, longest first, into batches whose padded size B * T stays within `budget` tokens.

    Args:
        lengths: (N,) tokens of each text.
        budget: padded tokens a batch; a single longer text makes a batch of its own.

    Returns:
        Index arrays that cover 0..N-1 once.
    """
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        size = max(1, budget // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + size])
        start += size
    return batches
