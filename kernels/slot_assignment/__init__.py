"""Capacity-limited slot assignment: which tokens an expert takes. E experts, N tokens, C slots an expert."""

import torch
from torch import Tensor

from paperflows.kernels.dispatch import use_triton
from paperflows.kernels.slot_assignment import reference


def assign_slots(keys: Tensor, capacity: int) -> Tensor:
    """The `capacity` tokens with the largest keys of each expert.

    Args:
        keys: (E, N) priority of each token for each expert; a negative key means that the token is not eligible.
        capacity: C >= 1.

    Returns:
        (E, C) token numbers in ascending order, then -1 for the slots that stay empty. Of equal keys the earlier token
        wins.

    Raises:
        ValueError: `capacity` is smaller than 1.
    """
    if capacity < 1:
        raise ValueError(f"capacity: expected at least 1 slot an expert, got {capacity}")
    if keys.dtype == torch.float32 and use_triton(keys):
        from paperflows.kernels.slot_assignment import triton

        with torch.cuda.device_of(keys):
            return triton.assign_slots(keys, capacity)
    return reference.assign_slots(keys, capacity)
