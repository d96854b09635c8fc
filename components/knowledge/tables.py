"""Rows of entities outside the model: a step touches the rows of its batch and nothing else.

Letters: E rows, D width, U rows of a step.
"""

from pathlib import Path

import torch
from torch import Tensor, nn


class RowTable(nn.Module):
    """Embeddings with a row-sparse Adam whose step counts are per row, in memory or mapped from files.

    `pull` gives rows as a leaf of the graph; when the backward pass reaches it, the gradient is pushed: the rows are
    updated and no dense gradient ever exists. What a device holds depends on the batch alone.

    Args:
        rows: (E, D) start.
        learning_rate: of Adam (betas 0.9 and 0.999, as in the official code).
        folder: where to keep the rows and their moments in files; None keeps them in memory.
    """

    def __init__(self, rows: Tensor, *, learning_rate: float, folder: Path | None = None) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        empty = torch.zeros_like(rows)
        self.rows: Tensor
        self.first: Tensor
        self.second: Tensor
        self.steps: Tensor
        for name, start in (("rows", rows.clone()), ("first", empty.clone()), ("second", empty.clone())):
            self.register_buffer(name, start if folder is None else _mapped(folder / f"{name}.bin", start))
        self.register_buffer("steps", torch.zeros(len(rows), dtype=torch.long))

    def pull(self, ids: Tensor, device: torch.device | str) -> Tensor:
        """Rows (U, D) of distinct ids (U,) on a device; with gradients enabled, their update follows the backward."""
        rows = self.rows[ids.cpu()].to(device)
        if torch.is_grad_enabled() and self.training:
            rows.requires_grad_(True)
            rows.register_post_accumulate_grad_hook(lambda leaf: self._push_leaf(ids.cpu(), leaf))
        return rows

    @torch.no_grad()
    def push(self, ids: Tensor, gradient: Tensor) -> None:
        """One Adam step of some rows.

        Args:
            ids: (U,) distinct.
            gradient: (U, D).
        """
        gradient = gradient.to(self.rows.device, self.rows.dtype)
        self.steps[ids] += 1
        count = self.steps[ids][:, None].to(self.rows.dtype)
        first = 0.9 * self.first[ids] + 0.1 * gradient
        second = 0.999 * self.second[ids] + 0.001 * gradient.square()
        self.first[ids], self.second[ids] = first, second
        step = (first / (1 - 0.9**count)) / ((second / (1 - 0.999**count)).sqrt() + 1e-8)
        self.rows[ids] -= self.learning_rate * step

    @torch.no_grad()
    def append(self, rows: Tensor) -> None:
        """Further rows (X, D), without a history; their ids follow the last. A table in files is not appended to."""
        for name, more in (("rows", rows), ("first", torch.zeros_like(rows)), ("second", torch.zeros_like(rows))):
            setattr(self, name, torch.cat([getattr(self, name), more.to(self.rows)]))
        self.steps = torch.cat([self.steps, torch.zeros(len(rows), dtype=torch.long)])

    def _push_leaf(self, ids: Tensor, leaf: Tensor) -> None:
        assert leaf.grad is not None
        self.push(ids, leaf.grad)
        leaf.grad = None

    def _apply(self, fn: object, recurse: bool = True) -> "RowTable":
        """Stays where it is when the model moves to a device."""
        return self


def _mapped(path: Path, start: Tensor) -> Tensor:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensor = torch.from_file(str(path), shared=True, size=start.numel(), dtype=start.dtype).view(start.shape)
    tensor.copy_(start)
    return tensor
