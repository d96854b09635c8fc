"""Grouped products in torch: one BLAS call a group, which is also the fast form on a CPU."""

import torch
from torch import Tensor


def product(rows: Tensor, weight: Tensor, sizes: Tensor) -> Tensor:
    """(M, K) rows in groups, (G, K, n) -> (M, n)."""
    out = torch.empty(len(rows), weight.shape[2], dtype=rows.dtype, device=rows.device)
    counts = sizes.tolist()
    for part, matrix, target in zip(rows.split(counts), weight, out.split(counts), strict=True):
        torch.mm(part, matrix, out=target)
    return out


def outer(rows: Tensor, dy: Tensor, sizes: Tensor) -> Tensor:
    """(M, K), (M, n) -> (G, K, n): the sum over a group's rows of their outer products; zeros for an empty group."""
    out = torch.empty(len(sizes), rows.shape[1], dy.shape[1], dtype=rows.dtype, device=rows.device)
    counts = sizes.tolist()
    for part, grad, target in zip(rows.split(counts), dy.split(counts), out, strict=True):
        torch.mm(part.t(), grad, out=target)
    return out
