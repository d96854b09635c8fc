"""Slot assignment in torch: a stable sort by key, the first C kept, their tokens put in order."""

import torch
from torch import Tensor


def assign_slots(keys: Tensor, capacity: int) -> Tensor:
    """(E, N) keys -> (E, C) tokens, as in `paperflows.kernels.slot_assignment.assign_slots`."""
    experts, tokens = keys.shape
    first = min(capacity, tokens)
    best, order = keys.sort(dim=1, descending=True, stable=True)
    chosen = order[:, :first].masked_fill(best[:, :first] < 0, tokens).sort(dim=1).values
    slots = torch.full((experts, capacity), -1, dtype=torch.int64, device=keys.device)
    slots[:, :first] = chosen.masked_fill(chosen == tokens, -1)
    return slots
