"""Gather and combine as Triton kernels. N tokens, M rows, d width.

A program handles one row or token and BLOCK columns. Combining needs no atomic additions: the rows are grouped by
token first (one sort of M integers), and a token's program adds its own rows in float32, always in the same order.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _gather(x, token, rows, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    source = tl.load(token + row)
    there = tl.where(source >= 0, width, 0)
    value = tl.load(x + source * width + column, mask=column < there, other=0.0)
    tl.store(rows + row * width + column, value, mask=column < width)


@triton.jit
def _combine(rows, order, start, gate, y, width, GATED: tl.constexpr, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for place in range(tl.load(start + token), tl.load(start + token + 1)):
        row = tl.load(order + place)
        value = tl.load(rows + row * width + column, mask=column < width, other=0.0).to(tl.float32)
        if GATED:
            value = value * tl.load(gate + row).to(tl.float32)
        total += value
    tl.store(y + token * width + column, total.to(y.dtype.element_ty), mask=column < width)


@triton.jit
def _combine_backward(dy, rows, token, gate, d_rows, d_gate, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    source = tl.load(token + row)
    there = tl.where(source >= 0, width, 0)
    weight = tl.load(gate + row).to(tl.float32)
    dot = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, width, BLOCK):
        column = start + tl.arange(0, BLOCK)
        inside = column < width
        upstream = tl.load(dy + source * width + column, mask=column < there, other=0.0).to(tl.float32)
        dot += upstream * tl.load(rows + row * width + column, mask=inside, other=0.0).to(tl.float32)
        tl.store(d_rows + row * width + column, (upstream * weight).to(d_rows.dtype.element_ty), mask=inside)
    tl.store(d_gate + row, tl.sum(dot).to(d_gate.dtype.element_ty))


def gather(x: Tensor, token: Tensor) -> Tensor:
    """(N, d), (M,) -> (M, d): rows[m] = x[token[m]], or 0."""
    rows = torch.empty(len(token), x.shape[1], dtype=x.dtype, device=x.device)
    if rows.numel():
        block = _block(x.shape[1])
        _gather[(len(token), triton.cdiv(x.shape[1], block))](x, token, rows, x.shape[1], BLOCK=block)
    return rows


def combine(rows: Tensor, token: Tensor, gate: Tensor | None, tokens: int) -> Tensor:
    """(M, d), (M,), (M,) or None for ones -> (N, d): y[t] = sum of gate[m] * rows[m] over the rows m of token t."""
    width = rows.shape[1]
    y = torch.empty(tokens, width, dtype=rows.dtype, device=rows.device)
    if y.numel():
        ordered, order = token.sort(stable=True)
        start = torch.searchsorted(ordered, torch.arange(tokens + 1, device=token.device))
        block = _block(width)
        grid = (tokens, triton.cdiv(width, block))
        gates = rows if gate is None else gate.contiguous()
        _combine[grid](rows, order, start, gates, y, width, GATED=gate is not None, BLOCK=block)
    return y


def combine_backward(dy: Tensor, rows: Tensor, token: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients (M, d) of the rows and (M,) of the gates, given (N, d) of the output."""
    d_rows, d_gate = torch.empty_like(rows), torch.empty_like(gate.contiguous())
    if len(rows):
        _combine_backward[(len(rows),)](
            dy, rows, token, gate.contiguous(), d_rows, d_gate, rows.shape[1], BLOCK=_block(rows.shape[1])
        )
    return d_rows, d_gate


def _block(width: int) -> int:
    return min(1024, max(16, triton.next_power_of_2(width)))
