"""The gated activation of a feed-forward network in one pass over memory. M rows, h hidden width."""

from typing import Any

import torch
from torch import Tensor

from paperflows.kernels.dispatch import use_triton
from paperflows.kernels.swiglu import reference


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) * up (Shazeer 2020, GLU variants).

    Args:
        gate_up: (M, 2h), the gates before the values; the backward pass needs nothing else.

    Returns:
        (M, h)
    """
    if gate_up.dtype != torch.float64 and use_triton(gate_up):  # Triton's form computes in float32
        return _SwiGLU.apply(gate_up)
    return reference.swiglu(gate_up)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        from paperflows.kernels.swiglu import triton

        gate_up = gate_up.contiguous()
        ctx.save_for_backward(gate_up)
        with torch.cuda.device_of(gate_up):
            return triton.swiglu(gate_up)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        from paperflows.kernels.swiglu import triton

        (gate_up,) = ctx.saved_tensors
        return triton.backward(grads[0].contiguous(), gate_up)
