"""Grouped products as Triton kernels. G groups, M rows, K and n widths.

Rows are cut into tiles that never cross a group; which group a tile belongs to is computed on the device, so nothing
waits for the sizes. There are at most M / BLOCK_M + G tiles; those beyond the last do nothing. Operands are read
through tensor descriptors, by the copy engine of the GPUs that have one, which gives zeros beyond an edge. Float32
follows `torch.backends.cuda.matmul.fp32_precision`.
"""

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from paperflows.kernels.dispatch import interpreted


@triton.jit
def _product(
    rows, weight, out, tile_group, tile_row, ends, tiles, width_in, width_out,
    TRANSPOSED: tl.constexpr, EVEN: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, TOGETHER: tl.constexpr,
):  # fmt: skip
    # tiles in bands of TOGETHER, column by column, so that a band's rows and the weights it shares stay in cache
    program, columns = tl.program_id(0), tl.cdiv(width_out, BLOCK_N)
    band = program // (TOGETHER * columns)
    first = band * TOGETHER
    height = tl.minimum(tiles - first, TOGETHER)
    tile = first + (program % (TOGETHER * columns)) % height
    start_column = (program % (TOGETHER * columns)) // height * BLOCK_N
    group = tl.load(tile_group + tile)
    if group < 0:
        return
    start_row = tl.load(tile_row + tile)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, width_in, BLOCK_K):
        a = rows.load([start_row, start])
        # all groups' matrices stand below each other: beyond this one's edge is the next
        if TRANSPOSED:
            b = weight.load([group * width_out + start_column, start]).T
        else:
            b = weight.load([group * width_in + start, start_column])
            if not EVEN:
                b = tl.where((start + tl.arange(0, BLOCK_K) < width_in)[:, None], b, 0.0)
        if UPCAST:
            a, b = a.to(tl.float32), b.to(tl.float32)
        total = tl.dot(a, b, total, input_precision=PRECISION)
    row = start_row + tl.arange(0, BLOCK_M)
    column = start_column + tl.arange(0, BLOCK_N)
    place = out + row.to(tl.int64)[:, None] * width_out + column[None, :]
    live = row < tl.load(ends + group)
    tl.store(place, total.to(out.dtype.element_ty), mask=live[:, None] & (column[None, :] < width_out))


@triton.jit
def _outer(
    rows, grads, out, ends, width_in, width_out,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    group = tl.program_id(2)
    begin = tl.load(ends + group - 1, mask=group > 0, other=0)
    end = tl.load(ends + group)
    start_k, start_column = tl.program_id(0) * BLOCK_K, tl.program_id(1) * BLOCK_N
    total = tl.zeros((BLOCK_K, BLOCK_N), tl.float32)
    whole = begin + (end - begin) // BLOCK_M * BLOCK_M
    for start in range(begin, whole, BLOCK_M):
        a, b = rows.load([start, start_k]), grads.load([start, start_column])
        if UPCAST:
            a, b = a.to(tl.float32), b.to(tl.float32)
        total = tl.dot(a.T, b, total, input_precision=PRECISION)
    if whole < end:  # of the last block only the rows before the next group's
        own = (whole + tl.arange(0, BLOCK_M) < end)[:, None]
        a = tl.where(own, rows.load([whole, start_k]), 0.0)
        b = tl.where(own, grads.load([whole, start_column]), 0.0)
        if UPCAST:
            a, b = a.to(tl.float32), b.to(tl.float32)
        total = tl.dot(a.T, b, total, input_precision=PRECISION)
    k, column = start_k + tl.arange(0, BLOCK_K), start_column + tl.arange(0, BLOCK_N)
    place = out + (group.to(tl.int64) * width_in + k[:, None]) * width_out + column[None, :]
    tl.store(place, total.to(out.dtype.element_ty), mask=(k[:, None] < width_in) & (column[None, :] < width_out))


def product(rows: Tensor, weight: Tensor, sizes: Tensor) -> Tensor:
    """(M, K) rows in groups, (G, K, n) -> (M, n); `weight` or its transpose (G, n, K) is contiguous."""
    width_out, transposed = weight.shape[2], not weight.is_contiguous()
    out = torch.empty(len(rows), width_out, dtype=rows.dtype, device=rows.device)
    if not out.numel():
        return out
    rows, stored = _aligned(rows), _aligned(weight.transpose(1, 2) if transposed else weight)
    blocks = _blocks(rows.dtype, transposed)
    m, n, k = blocks["BLOCK_M"], blocks["BLOCK_N"], blocks["BLOCK_K"]
    tiles = triton.cdiv(len(rows), m) + len(sizes)
    tile_group, tile_row, ends = _tiles(sizes, tiles, m)
    _product[(tiles * triton.cdiv(width_out, n),)](
        TensorDescriptor.from_tensor(rows, [m, k]),
        TensorDescriptor.from_tensor(stored.flatten(0, 1), [n, k] if transposed else [k, n]),
        out, tile_group, tile_row, ends, tiles, weight.shape[1], width_out, TRANSPOSED=transposed,
        EVEN=weight.shape[1] % k == 0, PRECISION=_precision(), UPCAST=interpreted(), TOGETHER=8,
        **blocks, **_launch(rows.dtype),
    )  # fmt: skip
    return out


def outer(rows: Tensor, dy: Tensor, sizes: Tensor) -> Tensor:
    """(M, K), (M, n) -> (G, K, n): the sum over a group's rows of their outer products."""
    width_in, width_out = rows.shape[1], dy.shape[1]
    if not len(rows):
        return torch.zeros(len(sizes), width_in, width_out, dtype=rows.dtype, device=rows.device)
    out = torch.empty(len(sizes), width_in, width_out, dtype=rows.dtype, device=rows.device)
    rows, dy = _aligned(rows), _aligned(dy)
    blocks = _blocks(rows.dtype)
    k, n, m = blocks["BLOCK_M"], blocks["BLOCK_N"], blocks["BLOCK_K"]
    _outer[(triton.cdiv(width_in, k), triton.cdiv(width_out, n), len(sizes))](
        TensorDescriptor.from_tensor(rows, [m, k]), TensorDescriptor.from_tensor(dy, [m, n]),
        out, sizes.cumsum(0).to(torch.int32), width_in, width_out,
        PRECISION=_precision(), UPCAST=interpreted(), BLOCK_M=m, BLOCK_N=n, BLOCK_K=k, **_launch(rows.dtype),
    )  # fmt: skip
    return out


def _tiles(sizes: Tensor, tiles: int, block: int) -> tuple[Tensor, Tensor, Tensor]:
    """Group and first row of each tile (group -1 beyond the last tile), and the end of each group; all int32."""
    ends = sizes.cumsum(0)
    last = ((sizes + block - 1) // block).cumsum(0)
    number = torch.arange(tiles, device=sizes.device)
    group = torch.searchsorted(last, number, right=True)
    real = group < len(sizes)
    inside = group.clamp(max=len(sizes) - 1)
    before = torch.where(inside > 0, last[inside - 1], 0)
    row = ends[inside] - sizes[inside] + (number - before) * block
    return torch.where(real, group, -1).to(torch.int32), row.to(torch.int32), ends.to(torch.int32)


def _aligned(tensor: Tensor) -> Tensor:
    """Rows that a descriptor can address start at multiples of 16 bytes: other widths are copied with zeros behind."""
    odd = -tensor.shape[-1] % (16 // tensor.element_size())
    if odd:
        return F.pad(tensor, (0, odd))
    return tensor.contiguous() if tensor.data_ptr() % 16 == 0 else tensor.clone(memory_format=torch.contiguous_format)


def _blocks(dtype: torch.dtype, transposed: bool = False) -> dict[str, int]:
    """The fastest on an H200 over the shapes of `tests/bench/moe.py`, and smaller ones where they do not fit."""
    if interpreted():
        return {"BLOCK_M": 16, "BLOCK_N": 32, "BLOCK_K": 32}
    if dtype == torch.float32:
        return {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 32}
    gpu: Any = torch.cuda.get_device_properties()  # typed without this field
    if gpu.shared_memory_per_block_optin < 3 * 64 * (128 + 256) * 2:
        return {"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 64}
    return {"BLOCK_M": 256 if transposed else 128, "BLOCK_N": 128 if transposed else 256, "BLOCK_K": 64}


def _launch(dtype: torch.dtype) -> dict[str, int]:
    return {"num_warps": 4 if dtype == torch.float32 else 8, "num_stages": 3}


def _precision() -> str:
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"
