"""States that enter the lowest prompted layer, computed once and kept in a memory-mapped file.

What lies below a late prompt is frozen and runs without dropout, so its states are the same in every epoch.

Letters: N texts, B batch, T tokens, D width, S tokens of all texts together.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paperflows.components.prompts.tuning import PromptedClassifier
from paperflows.components.prompts.verbalizer import Prompted
from paperflows.components.training.batching import token_budget_batches


class StoredStates:
    """(S, D) float32 states on disk, read a batch at a time.

    Args:
        states: the array, one row a token.
        lengths: (N,) tokens of each text.
        places, target: as in `Prompted`.
    """

    def __init__(self, states: np.ndarray, lengths: np.ndarray, places: np.ndarray, target: Tensor) -> None:
        self.states, self.lengths, self.places, self.target = states, lengths, places, target
        self._starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])

    def batch(self, rows: np.ndarray) -> dict[str, Any]:
        """hidden (B, T, D), mask (B, T), place and target (B,) of these rows; padding is zero."""
        lengths = self.lengths[rows]
        columns = np.arange(int(lengths.max()))
        inside = columns[None] < lengths[:, None]
        places = np.where(inside, self._starts[rows][:, None] + columns[None], 0)
        hidden = np.asarray(self.states[places]) * inside[..., None].astype(np.float32)
        at = torch.from_numpy(rows)
        return {
            "hidden": torch.from_numpy(hidden), "mask": torch.from_numpy(inside.astype(np.int64)),
            "place": torch.from_numpy(self.places[rows]), "target": self.target[at],
        }  # fmt: skip


@torch.inference_mode()
def store_states(model: PromptedClassifier, texts: Prompted, file: Path, *, token_budget: int = 4096) -> StoredStates:
    """Run the lower half of `model` over all texts once and keep its states in `file` (.npy, memory-mapped)."""
    lengths = texts.table.lengths
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    shape = (int(lengths.sum()), model.encoder.width)
    out = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)
    device = next(model.parameters()).device
    model.eval()
    for rows in token_budget_batches(lengths, budget=token_budget):
        batch = texts.batch(rows)
        hidden = model.lower(batch["tokens"].to(device), batch["mask"].to(device)).hidden.float().cpu().numpy()
        inside = batch["mask"].bool().numpy()
        columns = np.arange(inside.shape[1])
        out[(starts[rows][:, None] + columns[None])[inside]] = hidden[inside]
    out.flush()
    return StoredStates(np.load(file, mmap_mode="r"), lengths, texts.places, texts.target)
