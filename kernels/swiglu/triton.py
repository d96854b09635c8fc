"""The gated activation as Triton kernels: each number is read once and written once. M rows, h hidden width.

A program handles BLOCK columns of one row, in float32.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _forward(gate_up, out, hidden, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < hidden
    gate = tl.load(gate_up + row * 2 * hidden + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + (row * 2 + 1) * hidden + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * hidden + column, (gate * tl.sigmoid(gate) * up).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _backward(dy, gate_up, d_gate_up, hidden, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < hidden
    upstream = tl.load(dy + row * hidden + column, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(gate_up + row * 2 * hidden + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + (row * 2 + 1) * hidden + column, mask=inside, other=0.0).to(tl.float32)
    open_ = tl.sigmoid(gate)
    d_gate = upstream * up * open_ * (1 + gate * (1 - open_))
    d_up = upstream * gate * open_
    kind = d_gate_up.dtype.element_ty
    tl.store(d_gate_up + row * 2 * hidden + column, d_gate.to(kind), mask=inside)
    tl.store(d_gate_up + (row * 2 + 1) * hidden + column, d_up.to(kind), mask=inside)


def swiglu(gate_up: Tensor) -> Tensor:
    """(M, 2h) -> (M, h): silu(gate) * up."""
    count, hidden = len(gate_up), gate_up.shape[1] // 2
    out = torch.empty(count, hidden, dtype=gate_up.dtype, device=gate_up.device)
    if out.numel():
        block = _block(hidden)
        _forward[(count, triton.cdiv(hidden, block))](gate_up, out, hidden, BLOCK=block)
    return out


def backward(dy: Tensor, gate_up: Tensor) -> Tensor:
    """Gradient (M, 2h), given (M, h) of the output."""
    hidden = dy.shape[1]
    d_gate_up = torch.empty_like(gate_up)
    if dy.numel():
        block = _block(hidden)
        _backward[(len(dy), triton.cdiv(hidden, block))](dy, gate_up, d_gate_up, hidden, BLOCK=block)
    return d_gate_up


def _block(hidden: int) -> int:
    return min(1024, max(16, triton.next_power_of_2(hidden)))
