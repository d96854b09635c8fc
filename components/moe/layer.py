"""The mixture-of-experts layer. N tokens, d width, E experts on all workers, G = E / W on this one, k choices."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import get_args

import torch
import torch.distributed as dist
from torch import Tensor, nn

from paperflows.components.errors import InputError
from paperflows.components.moe.capacity import Keep
from paperflows.components.moe.exchange import Group, plan_exchange
from paperflows.components.moe.experts import Experts
from paperflows.components.moe.router import load_balance_loss, z_loss
from paperflows.components.moe.routing import Combine, Plan, Rectify, gates, plan_routing
from paperflows.kernels.permute import combine_rows, gather_rows


@dataclass(frozen=True)
class Router:
    """How tokens choose experts.

    Args:
        k: experts a token chooses.
        capacity_factor: slots of an expert as a multiple of an even share; None is dropless.
        keep: who keeps the slots of an expert that is chosen too often, the highest scores or the first in the batch.
        combine: weights of a token's experts, see `routing.gates`.
    """

    k: int = 1
    capacity_factor: float | None = 1.0
    keep: Keep = "score"
    combine: Combine = "score"


@dataclass
class Record:
    """What the last forward pass of a layer did on this worker, with the losses of its training objective.

    `rows` are those its experts computed, of all workers' tokens and with padded slots; `bytes_sent` what it sent to
    other workers: rows to their experts, and the results of theirs back.
    """

    plan: Plan
    balance: Tensor
    z: Tensor
    rows: int
    bytes_sent: int


class MoELayer(nn.Module):
    """A feed-forward layer of E experts, of which each token uses those its router chooses.

    Dropped choices skip the layer, as in Switch, unless `rectify` says otherwise: "intra" hands them to the best
    expert of the token's own worker beyond its capacity, which can be the one that dropped them. With a process group
    the experts are spread over its workers and everything else is repeated on each.

    Args:
        width: d.
        hidden: h of each expert.
        experts: E.
        router: how tokens choose.
        rectify: any of "fill" and one of "intra" and "random", see `routing.plan_routing`. They act in training and
            inference; a dropless router leaves them nothing to do.
        group: torch.distributed process group over which the experts are spread; None keeps them all here.

    Raises:
        InputError: k above E, a capacity factor that is not positive, an unknown or contradictory rectification, an
            unknown way to keep or to combine, or experts that cannot be spread evenly over the workers.
    """

    def __init__(
        self,
        *,
        width: int,
        hidden: int,
        experts: int,
        router: Router | None = None,
        rectify: Collection[Rectify] = (),
        group: Group = None,
    ) -> None:
        super().__init__()
        router = router or Router()
        workers, rank = (dist.get_world_size(group), dist.get_rank(group)) if group is not None else (1, 0)
        if experts % workers:
            raise InputError(f"experts: {experts} cannot be spread evenly over {workers} workers")
        if not 1 <= router.k <= experts:
            raise InputError(f"k: expected 1 to {experts} (the number of experts), got {router.k}")
        if router.capacity_factor is not None and not 0 < router.capacity_factor < math.inf:
            raise InputError(f"capacity factor: expected a number above 0, got {router.capacity_factor}")
        for name, value, known in (
            ("keep", router.keep, get_args(Keep)),
            ("combine", router.combine, get_args(Combine)),
        ):
            if value not in known:
                raise InputError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
        if unknown := set(rectify) - set(get_args(Rectify)):
            raise InputError(f"rectify: expected any of {', '.join(get_args(Rectify))}, got {sorted(unknown)}")
        if {"intra", "random"} <= set(rectify):
            raise InputError("rectify: intra and random are two ways to choose for the same tokens, take one of them")
        here = experts // workers
        self.router, self.rectify, self.group = router, tuple(rectify), group
        self.local = range(rank * here, (rank + 1) * here)
        self.score = nn.Linear(width, experts, bias=False)
        self.experts = Experts(here, width, hidden)
        self.record: Record | None = None
        self.padding: Tensor | None = None  # (B, past + T) false for padding, of the model around it

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(…, d) tokens, and (…) true for real ones -> (…, d); what happened is in `self.record`."""
        if mask is None and self.padding is not None:
            mask = self.padding[:, -x.shape[-2] :]
        flat = x.reshape(-1, x.shape[-1])
        logits = self._logits(flat)
        scores = logits.softmax(-1)
        real = None if mask is None else mask.reshape(-1).bool()
        plan = plan_routing(
            scores, self.router.k, factor=self.router.capacity_factor, rectify=self.rectify, local=self.local,
            keep=self.router.keep, mask=real,
        )  # fmt: skip
        weights = gates(scores, plan, self.router.combine)
        travelling = gather_rows(flat, plan.travel.token)
        staying = gather_rows(flat, plan.stay.token)
        rows, sent = len(travelling) + len(staying), 0
        if self.group is None:
            done = self.experts(travelling, plan.travel.counts)
            extra = self.experts(staying, plan.stay.counts) if len(staying) else staying
        else:
            exchange = plan_exchange(plan.travel.counts, self.group)
            leaving = exchange.start(travelling)
            extra = self.experts(staying, plan.stay.counts)
            done = exchange.back(self.experts(leaving.arrive(), exchange.counts))
            rank, rows = dist.get_rank(self.group), sum(exchange.got) + len(staying)
            there, back = (sum(part) - part[rank] for part in (exchange.sent, exchange.got))
            sent = flat.shape[-1] * (there * travelling.element_size() + back * done.element_size())
        token = torch.cat([plan.travel.token, plan.stay.token])
        y = combine_rows(torch.cat([done, extra]), token, weights, len(flat))
        counted = slice(None) if real is None else real
        balance = load_balance_loss(scores[counted], plan.choices[counted])
        self.record = Record(plan, balance, z_loss(logits[counted]), rows, sent)
        return y.reshape(x.shape)

    def _logits(self, flat: Tensor) -> Tensor:
        """(N, E) in float32 (or more), whatever the precision around it."""
        with torch.autocast(flat.device.type, enabled=False):
            exact = torch.promote_types(flat.dtype, torch.float32)
            return nn.functional.linear(flat.to(exact), self.score.weight.to(exact))
