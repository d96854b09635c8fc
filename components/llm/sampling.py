"""Drawing the next token of many rows at once, each row with its own settings. Letters: R rows, V vocabulary."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NEAR = 64  # likeliest tokens looked at before a row is sorted whole


@dataclass(frozen=True)
class RowSettings:
    """Sampling settings by row, all (R,): temperature 0 is greedy, top_k 0 keeps all, top_p 1 keeps all."""

    temperature: Tensor
    top_p: Tensor
    top_k: Tensor
    repetition_penalty: Tensor

    def to(self, device: torch.device) -> "RowSettings":
        """The same on another device."""
        return RowSettings(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))

    def at(self, rows: Tensor) -> "RowSettings":
        """Those of some rows."""
        return RowSettings(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def uniforms(seeds: Sequence[int], steps: int) -> Tensor:
    """(R, steps) uniform numbers, row r from its own seed: what a row draws does not depend on its neighbours."""
    rows = [torch.rand(steps, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows) if rows else torch.zeros(0, steps)


def next_tokens(logits: Tensor, seen: Tensor, settings: RowSettings, u: Tensor) -> Tensor:
    """Token of each row (R,) by inverse transform sampling of the processed distribution.

    The order of the processing is that of transformers' `generate`: repetition penalty (Keskar et al. 2019), then
    temperature, top-k, top-p (Holtzman et al. 2020).

    Args:
        logits: (R, V) float.
        seen: (R, V) bool, tokens of the prompt and of the completion so far.
        u: (R,) uniform numbers in [0, 1).

    Raises:
        ValueError: a row has nothing to draw from: every token is forbidden (-inf), or a logit is NaN.
    """
    if not bool((logits.amax(-1) > float("-inf")).all()):
        raise ValueError("no token can be drawn: all of a row's are forbidden, or its logits are NaN")
    penalty = settings.repetition_penalty[:, None]
    penalised = torch.where(logits > 0, logits / penalty, logits * penalty)
    logits = torch.where(seen, penalised, logits)
    tokens = logits.argmax(-1)
    scaled = logits / settings.temperature.clamp(min=1e-6)[:, None]
    drawn = settings.temperature > 0
    cut = (settings.top_k > 0) | (settings.top_p < 1)
    if bool((whole := drawn & ~cut).any()):
        tokens[whole] = _invert(scaled[whole].softmax(-1), u[whole])
    if bool((part := drawn & cut).any()):
        tokens[part] = _draw_cut(scaled[part], settings.top_k[part], settings.top_p[part], u[part])
    return tokens


def _draw_cut(scaled: Tensor, top_k: Tensor, top_p: Tensor, u: Tensor) -> Tensor:
    """(R,) tokens of rows that keep only a part of the vocabulary; only rows whose part is large are sorted whole."""
    width = min(NEAR, scaled.shape[1])
    values, order = scaled.topk(width, dim=-1)
    mass = (values - scaled.logsumexp(-1, keepdim=True)).exp()
    small = torch.where(top_k > 0, top_k <= width, mass.sum(-1) >= top_p)
    tokens = torch.empty_like(top_k)
    if bool(small.any()):
        inside = torch.where((top_k > 0)[:, None], _first(values, top_k).softmax(-1), mass)[small]
        tokens[small] = order[small].gather(1, _invert(_nucleus(inside, top_p[small]), u[small])[:, None])[:, 0]
    if bool((large := ~small).any()):
        values, order = scaled[large].sort(dim=-1, descending=True)
        inside = _first(values, top_k[large]).softmax(-1)
        tokens[large] = order.gather(1, _invert(_nucleus(inside, top_p[large]), u[large])[:, None])[:, 0]
    return tokens


def _first(values: Tensor, top_k: Tensor) -> Tensor:
    """Sorted scores (R, W) without those after the first k; 0 keeps all."""
    rank = torch.arange(values.shape[1], device=values.device)[None, :]
    return values.masked_fill((top_k > 0)[:, None] & (rank >= top_k[:, None]), float("-inf"))


def _nucleus(probabilities: Tensor, top_p: Tensor) -> Tensor:
    """Sorted probabilities (R, W) without those before which `top_p` is reached."""
    before = probabilities.cumsum(-1) - probabilities
    return probabilities.masked_fill(before >= top_p[:, None], 0.0)


def _invert(weights: Tensor, u: Tensor) -> Tensor:
    """(R,) places drawn in proportion to (R, W) weights by inverse transform; a place of weight 0 is never drawn."""
    cumulative = weights.cumsum(-1)
    place = torch.searchsorted(cumulative, u[:, None] * cumulative[:, -1:], right=True)
    return torch.minimum(place, _last_positive(weights)).squeeze(1)


def _last_positive(weights: Tensor) -> Tensor:
    positive = weights > 0
    return weights.shape[1] - 1 - positive.flip(-1).int().argmax(-1, keepdim=True)
