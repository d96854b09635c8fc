"""Grouped products as Triton kernels. G groups, M rows, K and n widths.

Rows are cut into tiles that never cross a group; which group a tile belongs to is computed on the device, so nothing
waits for the sizes. There are at most M / BLOCK_M + G tiles; those beyond the last do nothing. Float32 follows
`torch.backends.cuda.matmul.allow_tf32`.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from paperflows.kernels.dispatch import interpreted


@triton.jit
def _product(
    rows, weight, out, tile_group, tile_row, ends, tiles, width_in, width_out,
    stride_group, stride_in, stride_out,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr, EVEN: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, TOGETHER: tl.constexpr,
):  # fmt: skip
    # tiles in bands of TOGETHER, column by column, so that a band's rows and the weights it shares stay in cache
    program, columns = tl.program_id(0), tl.cdiv(width_out, BLOCK_N)
    band = program // (TOGETHER * columns)
    first = band * TOGETHER
    height = tl.minimum(tiles - first, TOGETHER)
    tile = first + (program % (TOGETHER * columns)) % height
    block = (program % (TOGETHER * columns)) // height
    group = tl.load(tile_group + tile)
    if group < 0:
        return
    row = tl.load(tile_row + tile) + tl.arange(0, BLOCK_M)
    end = tl.load(ends + group)
    column = block * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    # rows beyond the last are read as the last, columns as the first (the remainder keeps what the compiler knows of
    # their being consecutive): no mask is needed, and they are not stored
    left = rows + tl.minimum(row, end - 1).to(tl.int64)[:, None] * width_in
    right = weight + group.to(tl.int64) * stride_group
    right += (column % width_out)[None, :].to(tl.int64) * stride_out
    for start in range(0, width_in, BLOCK_K):
        inner = start + k
        if EVEN:
            a = tl.load(left + inner[None, :])
            b = tl.load(right + inner[:, None].to(tl.int64) * stride_in)
        else:
            a = tl.load(left + inner[None, :], mask=inner[None, :] < width_in, other=0.0)
            b = tl.load(right + inner[:, None].to(tl.int64) * stride_in, mask=inner[:, None] < width_in, other=0.0)
        if UPCAST:
            a, b = a.to(tl.float32), b.to(tl.float32)
        total = tl.dot(a, b, total, input_precision=PRECISION)
    place = out + row.to(tl.int64)[:, None] * width_out + column[None, :]
    tl.store(place, total.to(out.dtype.element_ty), mask=(row < end)[:, None] & (column[None, :] < width_out))


@triton.jit
def _outer(
    rows, grads, out, ends, width_in, width_out,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    group = tl.program_id(2)
    begin = tl.load(ends + group - 1, mask=group > 0, other=0)
    end = tl.load(ends + group)
    k = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    total = tl.zeros((BLOCK_K, BLOCK_N), tl.float32)
    left = rows + (k % width_in)[:, None]
    right = grads + (column % width_out)[None, :]
    whole = begin + (end - begin) // BLOCK_M * BLOCK_M
    for start in range(begin, whole, BLOCK_M):
        row = (start + tl.arange(0, BLOCK_M)).to(tl.int64)
        a = tl.load(left + row[None, :] * width_in)
        b = tl.load(right + row[:, None] * width_out)
        if UPCAST:
            a, b = a.to(tl.float32), b.to(tl.float32)
        total = tl.dot(a, b, total, input_precision=PRECISION)
    if whole < end:
        row = (whole + tl.arange(0, BLOCK_M)).to(tl.int64)
        a = tl.load(left + row[None, :] * width_in, mask=row[None, :] < end, other=0.0)
        b = tl.load(right + row[:, None] * width_out, mask=row[:, None] < end, other=0.0)
        if UPCAST:
            a, b = a.to(tl.float32), b.to(tl.float32)
        total = tl.dot(a, b, total, input_precision=PRECISION)
    place = out + (group.to(tl.int64) * width_in + k[:, None]) * width_out + column[None, :]
    tl.store(place, total.to(out.dtype.element_ty), mask=(k[:, None] < width_in) & (column[None, :] < width_out))


def product(rows: Tensor, weight: Tensor, sizes: Tensor) -> Tensor:
    """(M, K) rows in groups, (G, K, n) of any strides -> (M, n)."""
    (count, width_in), width_out = rows.shape, weight.shape[2]
    out = torch.empty(count, width_out, dtype=rows.dtype, device=rows.device)
    if not out.numel():
        return out
    blocks = _blocks(rows.dtype)
    tiles = triton.cdiv(count, blocks["BLOCK_M"]) + len(sizes)
    tile_group, tile_row, ends = _tiles(sizes, tiles, blocks["BLOCK_M"])
    grid = (tiles * triton.cdiv(width_out, blocks["BLOCK_N"]),)
    _product[grid](
        rows, weight, out, tile_group, tile_row, ends, tiles, width_in, width_out, *weight.stride(),
        PRECISION=_precision(), UPCAST=interpreted(), EVEN=width_in % blocks["BLOCK_K"] == 0, TOGETHER=8,
        **blocks, **_launch(rows.dtype),
    )  # fmt: skip
    return out


def outer(rows: Tensor, dy: Tensor, sizes: Tensor) -> Tensor:
    """(M, K), (M, n) -> (G, K, n): the sum over a group's rows of their outer products."""
    width_in, width_out = rows.shape[1], dy.shape[1]
    out = torch.empty(len(sizes), width_in, width_out, dtype=rows.dtype, device=rows.device)
    blocks = _blocks(rows.dtype)
    blocks["BLOCK_M"], blocks["BLOCK_K"] = blocks["BLOCK_K"], blocks["BLOCK_M"]
    grid = (triton.cdiv(width_in, blocks["BLOCK_K"]), triton.cdiv(width_out, blocks["BLOCK_N"]), len(sizes))
    _outer[grid](
        rows, dy, out, sizes.cumsum(0).to(torch.int32), width_in, width_out,
        PRECISION=_precision(), UPCAST=interpreted(), **blocks, **_launch(rows.dtype),
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


def _blocks(dtype: torch.dtype) -> dict[str, int]:
    if interpreted():
        return {"BLOCK_M": 16, "BLOCK_N": 32, "BLOCK_K": 32}
    if dtype == torch.float32:
        return {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 32}
    return {"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 64}


def _launch(dtype: torch.dtype) -> dict[str, int]:
    return {"num_warps": 4 if dtype == torch.float32 else 8, "num_stages": 3}


def _precision() -> str:
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee"
