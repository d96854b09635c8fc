"""Slot assignment without a sort: each expert finds its C-th largest key bit by bit, then compacts what lies above.

Keys that are not negative have bit patterns in the order of their values, so the threshold is built from its highest
bit down: a bit stays set while at least C keys reach it. One program an expert; N keys are read 32 times from cache.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _assign(keys, slots, tokens, capacity, BLOCK: tl.constexpr):
    expert = tl.program_id(0)
    lane = tl.arange(0, BLOCK)
    row = keys + expert.to(tl.int64) * tokens
    threshold = tl.zeros((), tl.int32)
    for bit in range(31):
        candidate = threshold | (1 << (30 - bit))
        reached = tl.zeros((), tl.int32)
        for start in range(0, tokens, BLOCK):
            key = tl.load(row + start + lane, mask=start + lane < tokens, other=-1.0)
            above = (key >= 0) & (key.to(tl.int32, bitcast=True) >= candidate)
            reached += tl.sum(above.to(tl.int32))
        threshold = tl.where(reached >= capacity, candidate, threshold)
    greater = tl.zeros((), tl.int32)
    for start in range(0, tokens, BLOCK):
        key = tl.load(row + start + lane, mask=start + lane < tokens, other=-1.0)
        greater += tl.sum(((key >= 0) & (key.to(tl.int32, bitcast=True) > threshold)).to(tl.int32))
    ties_left = capacity - greater
    taken = tl.zeros((), tl.int32)
    ties = tl.zeros((), tl.int32)
    for start in range(0, tokens, BLOCK):
        key = tl.load(row + start + lane, mask=start + lane < tokens, other=-1.0)
        bits = key.to(tl.int32, bitcast=True)
        tie = ((key >= 0) & (bits == threshold)).to(tl.int32)
        rank = ties + tl.cumsum(tie, 0)
        take = ((key >= 0) & (bits > threshold)) | ((tie == 1) & (rank <= ties_left))
        place = taken + tl.cumsum(take.to(tl.int32), 0) - 1
        tl.store(slots + expert.to(tl.int64) * capacity + place, (start + lane).to(tl.int64), mask=take)
        taken += tl.sum(take.to(tl.int32))
        ties += tl.sum(tie)


def assign_slots(keys: Tensor, capacity: int) -> Tensor:
    """(E, N) float32 keys -> (E, C) tokens, as in `paperflows.kernels.slot_assignment.assign_slots`."""
    experts, tokens = keys.shape
    slots = torch.full((experts, capacity), -1, dtype=torch.int64, device=keys.device)
    block = min(4096, max(16, triton.next_power_of_2(tokens)))
    # adding zero turns -0.0, whose bits look negative, into 0.0
    _assign[(experts,)]((keys + 0.0).contiguous(), slots, tokens, capacity, BLOCK=block)
    return slots
