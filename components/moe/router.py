"""What a router says of its tokens, and the losses that keep it balanced. N tokens, E experts, k choices a token."""

import torch
from torch import Tensor


def top_choices(scores: Tensor, k: int) -> Tensor:
    """(N, E) scores -> (N, k) experts of each token, best first; of equal scores the lower expert."""
    return scores.sort(dim=-1, descending=True, stable=True).indices[:, :k]


def load_balance_loss(scores: Tensor, choices: Tensor) -> Tensor:
    """Switch Transformer's balance loss, E * sum over experts of f_e * P_e (Fedus et al. 2022, equation 4).

    Args:
        scores: (N, E) softmax of the router, float32.
        choices: (N, k) chosen experts before any capacity; f_e is the share of the N * k choices that fell on e, P_e
            the mean score of e.

    Returns:
        Scalar: 1 at perfect balance, E when all tokens choose one expert with certainty.
    """
    experts = scores.shape[-1]
    share = torch.bincount(choices.flatten(), minlength=experts).to(scores.dtype) / max(1, choices.numel())
    return experts * (share * scores.sum(0)).sum() / max(1, len(scores))


def z_loss(logits: Tensor) -> Tensor:
    """Mean squared log-partition of the (N, E) router logits (ST-MoE, Zoph et al. 2022, equation 5)."""
    return torch.logsumexp(logits.float(), dim=-1).square().sum() / max(1, len(logits))
