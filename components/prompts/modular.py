"""Modular prompts: a few prompts shared by all tasks, and for each task a router that weighs them.

Letters: K prompts, L layers, n vectors, D width, d intrinsic dimensions, S tasks. Source: MP2 (Sun et al. 2023),
section 3.2.
"""

import torch
from torch import Tensor, nn


class ModularPrompts(nn.Module):
    """K prompts of n vectors for each of L layers, each n x D a fixed random projection of d numbers.

    Args:
        modules: K.
        tasks: S, rows of the router.
        layers: L; 1 for a prompt at the input alone.
        start: (n, D) states of words, what every prompt of layer 0 is added to.
        scale: of the mean of all K prompts at the start, in units of the states; one a layer. Each of the K starts
            sqrt(K) times as large, so that the mean of many is as large as a single one.
        temperature: tau of the relaxed gates.
    """

    def __init__(
        self,
        *,
        modules: int,
        tasks: int,
        layers: int,
        dimensions: int,
        start: Tensor,
        scale: float,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        length, width = start.shape
        matrices = torch.randn(layers, dimensions, length * width, generator=generator)
        self.register_buffer("projection", scale / dimensions**0.5 * matrices)
        self.register_buffer("start", start.detach().clone())
        self.prompts = nn.Parameter(modules**0.5 * torch.randn(modules, layers, dimensions, generator=generator))
        self.router = nn.Parameter(torch.zeros(tasks, modules))
        self.temperature = temperature

    @property
    def tasks_apart(self) -> float:
        """Mean absolute difference of two tasks' gates, over all pairs of tasks; 0 for a single task."""
        gates = torch.sigmoid(self.router.detach())
        pairs = torch.combinations(torch.arange(len(gates)))
        return float((gates[pairs[:, 0]] - gates[pairs[:, 1]]).abs().mean()) if len(pairs) else 0.0

    def gates(self, task: int, *, uniforms: Tensor | None = None) -> Tensor:
        """(K,) gates of a task: sigmoid of its logits; with `uniforms` (K,) in (0, 1), drawn from relaxed Bernoullis.

        Sampled: sigmoid((log u - log(1 - u) + w) / tau) (Maddison et al. 2017), which tends to a coin of probability
        sigmoid(w) as tau goes to 0.
        """
        logits = self.router[task]
        if uniforms is None:
            return torch.sigmoid(logits)
        return torch.sigmoid((uniforms.log() - torch.log1p(-uniforms) + logits) / self.temperature)

    def mix(self, gates: Tensor, *, fixed: bool = False) -> dict[int, Tensor]:
        """Layer -> prompt: the gates' weighted mean of the K prompts.

        Args:
            gates: (K,), or (P, K) for P candidates.
            fixed: gradients go to the gates alone.

        Returns:
            layer -> (n, D), or (P, n, D).
        """
        weights = gates / gates.sum(-1, keepdim=True)
        prompts = self.prompts.detach() if fixed else self.prompts
        mixed = torch.einsum("...k,kld->...ld", weights, prompts)
        return self.expand(mixed)

    def expand(self, intrinsic: Tensor) -> dict[int, Tensor]:
        """(..., L, d) intrinsic vectors -> layer -> (..., n, D) prompts."""
        made = torch.einsum("...ld,ldm->...lm", intrinsic, self.projection)
        made = made.unflatten(-1, self.start.shape)
        return {
            layer: made[..., layer, :, :] + (self.start if layer == 0 else 0.0)
            for layer in range(self.prompts.shape[1])
        }
