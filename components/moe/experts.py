"""The experts of one worker: feed-forward networks computed together. G experts, M rows, d width, h hidden width."""

import torch
from torch import Tensor, nn

from paperflows.kernels.grouped_gemm import grouped_gemm
from paperflows.kernels.swiglu import swiglu


class Experts(nn.Module):
    """G SwiGLU networks, down(silu(gate(x)) * up(x)), without biases, as in Llama.

    Args:
        experts: G.
        width: d.
        hidden: h.
    """

    def __init__(self, experts: int, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_up = nn.Parameter(torch.empty(experts, width, 2 * hidden))
        self.down = nn.Parameter(torch.empty(experts, hidden, width))
        for weight, fan in ((self.gate_up, width), (self.down, hidden)):
            nn.init.normal_(weight, std=fan**-0.5)

    def forward(self, rows: Tensor, counts: Tensor) -> Tensor:
        """(M, d) rows in the order of the experts, (G,) rows of each -> (M, d)."""
        return grouped_gemm(swiglu(grouped_gemm(rows, self.gate_up, counts)), self.down, counts)

    def flops(self, rows: int) -> int:
        """Floating-point operations of `rows` rows, a multiply-add as two."""
        _, width, double = self.gate_up.shape
        return 2 * rows * (width * double + width * double // 2)
