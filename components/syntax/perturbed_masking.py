"""Impact matrices by perturbed masking (Wu et al. 2020, section 2; Dai et al. 2021, section 3.2).

F[i, j] is the Euclidean distance between the state of word i when i is masked, and when i and j are masked: how much
word j matters for word i. Letters: N words, T pieces, M maskings, D width.

A sentence needs N maskings of one word and N (N - 1) / 2 of two; the run with {i, j} masked serves F[i, j] and F[j, i].
Sentences of equal length are computed together, so that no batch holds padding.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from paperflows.components.syntax.words import pieces_of, pooling_matrix


@torch.inference_mode()
def impact_matrices(
    model: nn.Module, tokenizer: Any, sentences: Sequence[Sequence[str]], *, token_budget: int = 4096
) -> list[NDArray[np.float32]]:
    """F (N, N) of each sentence.

    Args:
        model: a transformers encoder; the states of its last layer are compared (drop layers to compare lower ones).
        token_budget: pieces a batch.
    """
    model.eval()
    device = next(model.parameters()).device
    pieces = pieces_of(tokenizer, sentences)
    by_length: dict[int, list[int]] = defaultdict(list)
    for number, (ids, _) in enumerate(pieces):
        by_length[len(ids)].append(number)
    out: list[NDArray[np.float32]] = [np.zeros((len(words), len(words)), np.float32) for words in sentences]
    for length, numbers in sorted(by_length.items()):
        rows = max(1, token_budget // length)
        states = _States(model, device, rows)
        for number in numbers:
            ids, owner = pieces[number]
            states.add(number, *_maskings(ids, owner, len(sentences[number]), tokenizer.mask_token_id))
        for number, pooled in states.finish().items():
            out[number] = _distances(pooled, len(sentences[number]))
    return out


def _maskings(ids: list[int], owner: NDArray[np.int64], n: int, mask_id: int) -> tuple[Tensor, Tensor]:
    """Masked ids (M, T) and which states to average (M, 2, T): single maskings first, then pairs i < j in row order."""
    first, second = np.triu_indices(n, k=1)
    one = np.concatenate([np.arange(n), first])
    two = np.concatenate([np.arange(n), second])
    masked = (owner[None, :] == one[:, None]) | (owner[None, :] == two[:, None])
    pool = pooling_matrix(owner, n)
    rows = np.where(masked, mask_id, np.array(ids)[None, :])
    return torch.from_numpy(rows), torch.from_numpy(np.stack([pool[one], pool[two]], axis=1))


def _distances(pooled: Tensor, n: int) -> NDArray[np.float32]:
    """F (N, N) from the averaged states (M, 2, D) of all maskings of one sentence."""
    single, pairs = pooled[:n, 0], pooled[n:]
    first, second = np.triu_indices(n, k=1)
    out = np.zeros((n, n), np.float32)
    out[first, second] = (single[first] - pairs[:, 0]).norm(dim=-1).numpy()
    out[second, first] = (single[second] - pairs[:, 1]).norm(dim=-1).numpy()
    return out


class _States:
    """Collects maskings of equal length and runs them in full batches."""

    def __init__(self, model: nn.Module, device: torch.device, rows: int) -> None:
        self._model, self._device, self._rows = model, device, rows
        self._owners: list[tuple[int, int]] = []
        self._ids: list[Tensor] = []
        self._pools: list[Tensor] = []
        self._done: list[Tensor] = []
        self._waiting = 0

    def add(self, number: int, ids: Tensor, pools: Tensor) -> None:
        self._owners.append((number, len(ids)))
        self._ids.append(ids)
        self._pools.append(pools)
        self._waiting += len(ids)
        if self._waiting >= self._rows:
            self._run(self._waiting - self._waiting % self._rows)

    def finish(self) -> dict[int, Tensor]:
        """Averaged states (M, 2, D) by sentence."""
        self._run(self._waiting)
        everything = torch.cat(self._done)
        found, start = {}, 0
        for number, count in self._owners:
            found[number] = everything[start : start + count]
            start += count
        return found

    def _run(self, count: int) -> None:
        if not count:
            return
        ids, pools = torch.cat(self._ids), torch.cat(self._pools)
        for start in range(0, count, self._rows):
            part = slice(start, min(start + self._rows, count))
            hidden = self._model(input_ids=ids[part].to(self._device)).last_hidden_state.float()
            self._done.append(torch.bmm(pools[part].to(self._device), hidden).cpu())
        self._ids, self._pools, self._waiting = [ids[count:]], [pools[count:]], self._waiting - count
