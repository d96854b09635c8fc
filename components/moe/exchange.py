"""Rows to the workers of their experts and back, with exact sizes. W workers, G experts on each, M rows, d width."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

Group = Any  # a torch.distributed process group; None is a single process


@dataclass(frozen=True)
class Exchange:
    """How the rows of one batch travel between the workers of `group`.

    Args:
        sent: (W,) rows this worker sends to each.
        got: (W,) rows it gets from each.
        counts: (G,) rows of each of its own experts, from all workers together.
        order: (M',) puts rows as they arrive (worker by worker) into the order of the experts.
    """

    group: Group
    sent: list[int]
    got: list[int]
    counts: Tensor
    order: Tensor

    def start(self, rows: Tensor) -> "Travelling":
        """Send (M, d) rows, which are in the order of all experts; returns at once."""
        out = rows.new_empty(sum(self.got), rows.shape[1])
        work = dist.all_to_all_single(
            out, rows.detach().contiguous(), self.got, self.sent, group=self.group, async_op=True
        )
        return Travelling(self, rows, out, work)

    def back(self, rows: Tensor) -> Tensor:
        """(M', d) results in the order of this worker's experts -> (M, d) in the order in which they were sent."""
        arrived = torch.empty_like(rows).index_copy(0, self.order, rows)
        return _AllToAll.apply(arrived, self.got, self.sent, self.group)


@dataclass(frozen=True)
class Travelling:
    """Rows on their way."""

    exchange: Exchange
    rows: Tensor
    out: Tensor
    work: Any

    def arrive(self) -> Tensor:
        """Wait; (M', d) rows in the order of this worker's experts."""
        e = self.exchange
        return _Arrive.apply(self.rows, self.out, self.work, e.sent, e.got, e.group).index_select(0, e.order)


def plan_exchange(counts: Tensor, group: Group) -> Exchange:
    """Agree on sizes: (E,) rows for each expert of all workers, in the order of the workers.

    Raises:
        ValueError: E is not divisible by the number of workers.
    """
    workers = dist.get_world_size(group)
    if len(counts) % workers:
        raise ValueError(f"{len(counts)} experts cannot be spread evenly over {workers} workers")
    theirs = torch.empty_like(counts)
    dist.all_to_all_single(theirs, counts.contiguous(), group=group)
    by_worker = theirs.view(workers, -1)
    mine = torch.arange(by_worker.shape[1], device=counts.device).repeat(workers)
    order = mine.repeat_interleave(theirs).sort(stable=True).indices
    sent = counts.view(workers, -1).sum(1).tolist()
    return Exchange(group, sent, by_worker.sum(1).tolist(), by_worker.sum(0), order)


class _AllToAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, sent: list[int], got: list[int], group: Group) -> Tensor:
        ctx.sent, ctx.got, ctx.group = sent, got, group
        return _exchange(rows, sent, got, group)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _exchange(grads[0], ctx.got, ctx.sent, ctx.group), None, None, None


class _Arrive(torch.autograd.Function):
    """The end of an exchange that was started earlier, as a function of the rows that were sent."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, out: Tensor, work: Any, sent: list[int], got: list[int], group: Group
    ) -> Tensor:
        ctx.sent, ctx.got, ctx.group = sent, got, group
        work.wait()
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _exchange(grads[0], ctx.got, ctx.sent, ctx.group), None, None, None, None, None


def _exchange(rows: Tensor, sent: list[int], got: list[int], group: Group) -> Tensor:
    out = rows.new_empty(sum(got), rows.shape[1])
    dist.all_to_all_single(out, rows.contiguous(), got, sent, group=group)
    return out
