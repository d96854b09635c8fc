"""Exits: a classifier after every layer, and the gradients that reach the layers below them.

Letters: B texts, T tokens, D width, C classes, L layers.
Sources: ElasticBERT (Liu et al. 2022), section 4; gradient equilibrium (Li et al. 2019), section 3.2.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperflows.components.early_exit.encoder import ExitEncoder

Pooling = Literal["mean", "first"]
Weights = Literal["equilibrium", "sum", "depth", "last"]


class Exit(nn.Module):
    """A linear layer with tanh and a linear classifier (BERT's pooler and head); `outputs` classes, or 1 number."""

    def __init__(self, *, width: int, outputs: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.pooler, self.dropout = nn.Linear(width, width), nn.Dropout(dropout)
        self.classifier = nn.Linear(width, outputs)

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, D) pooled states -> (B, C) logits."""
        return self.classifier(self.dropout(torch.tanh(self.pooler(pooled))))


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """(B, T, D) -> (B, D): the first token, or the mean over real tokens."""
    if pooling == "first":
        return hidden[:, 0]
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1)


class MultiExitClassifier(nn.Module):
    """An encoder with one exit of its own after every layer, and BERxiT's confidence head shared by all exits.

    Args:
        pooling: "first" token, as BERT and ElasticBERT; "mean" over the tokens that are not padding.
    """

    def __init__(self, encoder: ExitEncoder, *, outputs: int, pooling: Pooling) -> None:
        super().__init__()
        self.encoder = encoder
        self.exits = nn.ModuleList([Exit(width=encoder.width, outputs=outputs) for _ in range(encoder.depth)])
        self.confidence = nn.Linear(encoder.width, 1)
        self.full_depth = encoder.depth
        self.pooling: Pooling = pooling

    def cut(self, depth: int) -> None:
        """Keep the first `depth` layers and exits; `full_depth` still tells how many there were."""
        self.encoder.cut(depth)
        self.exits = self.exits[: self.encoder.depth]

    def forward(
        self, ids: Tensor, mask: Tensor, *, equilibrium: bool = False, only: Sequence[int] | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Logits (B, C) and pooled states (B, D) of the exits, in order.

        Args:
            equilibrium: rescale gradients so that a layer gets the mean of the gradients of the exits above it.
            only: exits wanted, by layer from 0; None for all. Only these are counted by `equilibrium`.
        """
        wanted = list(range(self.encoder.depth)) if only is None else sorted(only)
        logits, pooled = [], []
        states = self.encoder.states(ids, mask)
        hidden = next(states)
        for index in range(self.encoder.depth):
            if index in wanted:
                above = len(wanted) - wanted.index(index)  # exits from here on, this one included
                seen = rescale_gradient(hidden, 1 / above) if equilibrium else hidden
                pooled.append(pool(seen, mask, self.pooling))
                logits.append(self.exits[index](pooled[-1]))
                hidden = rescale_gradient(seen, above - 1) if equilibrium else hidden
            if index == wanted[-1]:
                break
            hidden = states.send(hidden)
        return logits, pooled


class _Rescale(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, factor: float) -> Tensor:
        context.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * context.factor, None


def rescale_gradient(x: Tensor, factor: float) -> Tensor:
    """`x` itself; the gradient that comes back is multiplied by `factor`."""
    return _Rescale.apply(x, factor)


def task_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy in nats, or squared error where there is one output."""
    if logits.shape[-1] == 1:
        return F.mse_loss(logits[:, 0].float(), target.float())
    return F.cross_entropy(logits.float(), target)


def exits_loss(logits: Sequence[Tensor], target: Tensor, *, weights: Weights) -> Tensor:
    """The exits' losses as one: their "sum" (also under "equilibrium"), by "depth" l / sum l (PABEE), or the "last"."""
    if weights == "last":
        return task_loss(logits[-1], target)
    losses = torch.stack([task_loss(one, target) for one in logits])
    if weights == "depth":
        depth = torch.arange(1, len(losses) + 1, dtype=losses.dtype, device=losses.device)
        return (losses * depth).sum() / depth.sum()
    return losses.sum()


def correctness(logits: Tensor, target: Tensor) -> Tensor:
    """What BERxiT's confidence is trained on: 1 where the exit is right; for regression 1 - tanh |y - target|."""
    if logits.shape[-1] == 1:
        return 1 - torch.tanh((logits[:, 0] - target).abs())
    return (logits.argmax(-1) == target).to(logits.dtype)


def confidence_loss(head: nn.Module, logits: Sequence[Tensor], pooled: Sequence[Tensor], target: Tensor) -> Tensor:
    """Squared error of the shared confidence head against the exits' correctness (BERxiT); the encoder is not moved."""
    told = [
        F.mse_loss(torch.sigmoid(head(state.detach()))[:, 0].float(), correctness(one.detach().float(), target))
        for one, state in zip(logits, pooled, strict=True)
    ]
    return torch.stack(told).mean()
