"""Gather and combine in torch. N tokens, M rows, d width; `token` is -1 where a row belongs to none."""

import torch
from torch import Tensor


def gather(x: Tensor, token: Tensor) -> Tensor:
    """(N, d), (M,) -> (M, d): rows[m] = x[token[m]], or 0."""
    if not len(x):
        return x.new_zeros(len(token), x.shape[1])
    rows = x.index_select(0, token.clamp(min=0))
    return rows.masked_fill_((token < 0)[:, None], 0)


def combine(rows: Tensor, token: Tensor, gate: Tensor | None, tokens: int) -> Tensor:
    """(M, d), (M,), (M,) or None for ones -> (N, d): y[t] = sum of gate[m] * rows[m] over the rows m of token t."""
    weight = (token >= 0).to(rows.dtype) if gate is None else torch.where(token >= 0, gate, 0).to(rows.dtype)
    y = rows.new_zeros(tokens, rows.shape[1])
    return y.index_add_(0, token.clamp(min=0), rows * weight[:, None]) if tokens else y


def combine_backward(dy: Tensor, rows: Tensor, token: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients (M, d) of the rows and (M,) of the gates, given (N, d) of the output."""
    upstream = gather(dy, token)
    return upstream * gate.to(dy.dtype)[:, None], (upstream * rows).sum(-1).to(gate.dtype)
