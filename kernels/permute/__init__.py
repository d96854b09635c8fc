"""Tokens to expert-major rows and back. N tokens, M rows (in the order of their experts), d width.

The two operations are each other's gradient: a row is a copy of its token, a token the weighted sum of its rows.
"""

from typing import Any

import torch
from torch import Tensor

from paperflows.kernels.dispatch import use_triton
from paperflows.kernels.permute import reference


def gather_rows(x: Tensor, token: Tensor) -> Tensor:
    """Copy tokens into rows.

    Args:
        x: (N, d) tokens.
        token: (M,) int64, the token of each row; -1 makes a row of zeros (a padded slot).

    Returns:
        (M, d) rows.
    """
    return _Gather.apply(x, token)


def combine_rows(rows: Tensor, token: Tensor, gate: Tensor, tokens: int) -> Tensor:
    """Weighted sum of the rows of each token.

    Args:
        rows: (M, d) what the experts made.
        token: (M,) int64, -1 for rows that belong to no token.
        gate: (M,) weight of each row.
        tokens: N.

    Returns:
        (N, d), zeros for a token without rows.
    """
    return _Combine.apply(rows, token, gate, tokens)


def _implementation(tensor: Tensor) -> Any:
    if tensor.dtype != torch.float64 and use_triton(tensor):  # Triton's forms add up in float32
        from paperflows.kernels.permute import triton

        return triton
    return reference


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, token: Tensor) -> Tensor:
        ctx.save_for_backward(token)
        ctx.tokens = len(x)
        with torch.cuda.device_of(x):
            return _implementation(x).gather(x.contiguous(), token)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (token,) = ctx.saved_tensors
        return _implementation(grads[0]).combine(grads[0].contiguous(), token, None, ctx.tokens), None


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, token: Tensor, gate: Tensor, tokens: int) -> Tensor:
        rows = rows.contiguous()
        ctx.save_for_backward(rows, token, gate)
        with torch.cuda.device_of(rows):
            return _implementation(rows).combine(rows, token, gate, tokens)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        rows, token, gate = ctx.saved_tensors
        d_rows, d_gate = _implementation(rows).combine_backward(grads[0].contiguous(), rows, token, gate)
        return d_rows, None, d_gate, None
