"""Matrix products of ragged groups of rows, one weight matrix a group. G groups, M rows, K and n widths."""

from typing import Any

import torch
from torch import Tensor

from paperflows.kernels.dispatch import use_triton
from paperflows.kernels.grouped_gemm import reference


def grouped_gemm(rows: Tensor, weight: Tensor, sizes: Tensor) -> Tensor:
    """Multiply each group of consecutive rows with its own matrix.

    Args:
        rows: (M, K), group by group.
        weight: (G, K, n).
        sizes: (G,) int64 rows of each group, on the device of `rows`; they add up to M; a group may be empty.

    Returns:
        (M, n)

    Raises:
        ValueError: the widths or the number of groups do not match.
    """
    if weight.shape[:2] != (len(sizes), rows.shape[1]):
        shapes = f"{tuple(rows.shape)} rows, {len(sizes)} sizes, weight {tuple(weight.shape)}"
        raise ValueError(f"grouped_gemm: expected rows (M, K), weight (G, K, n), sizes (G,); got {shapes}")
    if torch.is_autocast_enabled(rows.device.type):
        precision = torch.get_autocast_dtype(rows.device.type)
        rows, weight = rows.to(precision), weight.to(precision)
    return _GroupedGemm.apply(rows, weight, sizes)


def _implementation(tensor: Tensor) -> Any:
    if tensor.dtype != torch.float64 and use_triton(tensor):  # Triton's forms add up in float32
        from paperflows.kernels.grouped_gemm import triton

        return triton
    return reference


class _GroupedGemm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, sizes: Tensor) -> Tensor:
        rows = rows.contiguous()
        ctx.save_for_backward(rows, weight, sizes)
        with torch.cuda.device_of(rows):
            return _implementation(rows).product(rows, weight, sizes)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        rows, weight, sizes = ctx.saved_tensors
        dy, how = grads[0].contiguous(), _implementation(rows)
        d_rows = how.product(dy, weight.transpose(1, 2), sizes) if ctx.needs_input_grad[0] else None
        d_weight = how.outer(rows, dy, sizes) if ctx.needs_input_grad[1] else None
        return d_rows, d_weight, None
