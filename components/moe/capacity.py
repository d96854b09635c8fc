"""Which of the tokens that chose an expert it keeps, and which others fill its empty slots.

N tokens, E experts, C slots. Both are one selection by priority: tokens that chose the expert come before all others,
and within each group the higher score wins; without filling the others are not eligible.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from paperflows.components.errors import InputError
from paperflows.kernels.slot_assignment import assign_slots

Keep = Literal["score", "position"]


def slots_per_expert(tokens: int, *, k: int, experts: int, factor: float) -> int:
    """C = ceil(factor * k * tokens / experts), at least 1; counted in real tokens, without padding.

    Raises:
        InputError: `factor` is not positive.
    """
    if not factor > 0:
        raise InputError(f"capacity factor: expected a number above 0, got {factor}")
    return max(1, math.ceil(factor * k * tokens / experts))


def fill_slots(scores: Tensor, choices: Tensor, capacity: int, *, fill: bool, keep: Keep = "score") -> Tensor:
    """Tokens in the slots of each expert (section on fill-in rectification when `fill`).

    Args:
        scores: (N, E) softmax of the router; rows of padding tokens are negative and never eligible.
        choices: (N, k) chosen experts.
        capacity: C.
        fill: give slots that no chooser needs to the tokens with the highest score among those that did not choose
            the expert. They get one expert more, in a slot that would be computed on zeros.
        keep: "score" keeps the choosers with the highest score, "position" the first in the batch (Switch).

    Returns:
        (E, C) token numbers, ascending, then -1 for empty slots.
    """
    chosen = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, choices, True)
    if keep == "position":
        order = torch.arange(len(scores), 0, -1, device=scores.device, dtype=scores.dtype) / len(scores)
        priority = torch.where(scores < 0, scores, order[:, None])
    else:
        priority = scores
    others = scores if fill else torch.full_like(scores, -1.0)
    keys = torch.where(chosen & (scores >= 0), _above_all(priority), others)
    return assign_slots(keys.t().contiguous(), capacity)


def _above_all(priority: Tensor) -> Tensor:
    """Values in [0, 1.5) -> values above 1.5 in the same order, without rounding: adding a number loses near-ties.

    Bit patterns of floats that are not negative are ordered like their values, so the pattern of 1.5 is added.
    """
    bits = {torch.float32: torch.int32, torch.float64: torch.int64}[priority.dtype]
    start = torch.tensor(1.5, dtype=priority.dtype, device=priority.device).view(bits)
    return ((priority + 0.0).view(bits) + start).view(priority.dtype)


def holds(slots: Tensor, tokens: int) -> Tensor:
    """(E, C) slots -> (N, E) whether an expert has a slot for a token."""
    experts = len(slots)
    taken = torch.zeros(experts, tokens + 1, dtype=torch.bool, device=slots.device)
    taken.scatter_(1, torch.where(slots < 0, tokens, slots), True)
    return taken[:, :tokens].t()
