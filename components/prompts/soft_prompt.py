"""Prompts with weights of their own: free vectors, and generators that make them of the text's states.

Letters: B texts, T tokens, n prompt vectors, D width, R bottleneck width. Source: Late Prompt Tuning (Liu et al. 2022),
section 3.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Kind = Literal["naive", "npg", "appg", "mppg"]


class FreePrompt(nn.Module):
    """n vectors, the same for every text; (n, D).

    Args:
        start: (n, D) what they start from, such as states of words.
    """

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.vectors = nn.Parameter(start.detach().clone())

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """(n, D); the states are not read."""
        return self.vectors


class FirstTokenGenerator(nn.Module):
    """NPG: a bottleneck on the first token's state gives all n vectors, (B, T, D) -> (B, n, D)."""

    def __init__(self, width: int, bottleneck: int, length: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, length * width)
        self.length = length

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """The prompt of each text."""
        made = self.up(F.gelu(self.down(hidden[:, 0])))
        return made.view(len(hidden), self.length, -1)


class PoolingGenerator(nn.Module):
    """APPG, MPPG: a bottleneck on every token, then adaptive pooling over the tokens to n vectors, (B, n, D)."""

    def __init__(self, width: int, bottleneck: int, length: int, *, pool: Literal["average", "max"]) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)
        self.length, self.pool = length, pool

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """The prompt of each text: vector i pools the i-th of n equal stretches of its tokens, padding left out."""
        states = self.up(F.gelu(self.down(hidden)))
        inside = _stretches(mask, self.length)
        if self.pool == "average":
            weights = inside.to(states.dtype)
            return (weights @ states) / weights.sum(-1, keepdim=True)
        low = torch.finfo(states.dtype).min
        return torch.stack([states.masked_fill(~one.unsqueeze(-1), low).amax(1) for one in inside.unbind(1)], 1)


def _stretches(mask: Tensor, count: int) -> Tensor:
    """(B, T) mask -> (B, count, T) bool: PyTorch's adaptive pooling windows over the tokens that are not padding.

    Window i of a text of m tokens is [floor(i m / count), ceil((i + 1) m / count)); windows overlap where m < count.
    """
    tokens = mask.sum(1)[:, None, None]
    window = torch.arange(count, device=mask.device)[None, :, None]
    place = torch.arange(mask.shape[1], device=mask.device)[None, None, :]
    first = window * tokens // count
    last = -(-((window + 1) * tokens) // count)
    return (place >= first) & (place < last)


def make_prompt(kind: Kind, start: Tensor, *, bottleneck: int) -> nn.Module:
    """A prompt of the given kind with as many vectors of the width as `start` (n, D).

    | kind | made of |
    | --- | --- |
    | naive | free vectors, starting at `start` |
    | npg | the first token's state |
    | appg, mppg | all tokens, pooled by average or maximum |
    """
    length, width = start.shape
    if kind == "naive":
        return FreePrompt(start)
    if kind == "npg":
        return FirstTokenGenerator(width, bottleneck, length)
    return PoolingGenerator(width, bottleneck, length, pool="average" if kind == "appg" else "max")
