"""Drawing the next token of many rows at once, each row with its own settings. Letters: R rows, V vocabulary."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


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
    """
    penalty = settings.repetition_penalty[:, None]
    penalised = torch.where(logits > 0, logits / penalty, logits * penalty)
    logits = torch.where(seen, penalised, logits)
    greedy = logits.argmax(-1)
    if bool((settings.temperature == 0).all()):
        return greedy
    scaled = logits / settings.temperature.clamp(min=1e-6)[:, None]
    values, order = scaled.sort(dim=-1, descending=True)
    rank = torch.arange(values.shape[1], device=values.device)[None, :]
    top_k = torch.where(settings.top_k > 0, settings.top_k, values.shape[1])[:, None]
    values = values.masked_fill(rank >= top_k, float("-inf"))
    probabilities = values.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    probabilities = probabilities.masked_fill(before >= settings.top_p[:, None], 0.0)
    cumulative = probabilities.cumsum(-1)
    pick = torch.searchsorted(cumulative, u[:, None] * cumulative[:, -1:], right=True)
    pick = torch.minimum(pick, (probabilities > 0).sum(-1, keepdim=True) - 1)
    drawn = order.gather(1, pick).squeeze(1)
    return torch.where(settings.temperature == 0, greedy, drawn)
