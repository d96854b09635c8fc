"""Where tokens go that no slot was left for. N tokens, E experts, k choices a token.

Intra-GPU rectification: the best expert of the token's own worker that it does not use yet, whose capacity does not
count there (no communication, no padding). The random form is the control that ignores the scores.
"""

import torch
from torch import Tensor


def reroute(scores: Tensor, used: Tensor, missing: Tensor, local: range, most: int) -> tuple[Tensor, Tensor]:
    """Give each token `missing[t]` further experts of its own worker, by descending score.

    An expert that overflowed is not `used` by the token it turned away, so it may take the token after all when it
    lives on the token's worker.

    Args:
        scores: (N, E) what to choose by: the router's softmax, or random numbers.
        used: (N, E) experts that have a slot for the token.
        missing: (N,) choices of the token that found no slot, each at most `most`.
        local: numbers of the worker's own experts.
        most: largest number of experts to add, k of the router.

    Returns:
        (R,) tokens and (R,) experts, grouped by expert. R is smaller than the sum of `missing` only where a token
        already uses all local experts.
    """
    here = slice(local.start, local.stop)
    free = scores[:, here].masked_fill(used[:, here], -torch.inf)
    best, order = free.sort(dim=1, descending=True, stable=True)
    best, order = best[:, :most], order[:, :most]
    rank = torch.arange(best.shape[1], device=scores.device)
    wanted = (rank < missing[:, None]) & (best > -torch.inf)
    token, place = wanted.nonzero(as_tuple=True)
    expert = order[token, place] + local.start
    by_expert = expert.sort(stable=True).indices
    return token[by_expert], expert[by_expert]
