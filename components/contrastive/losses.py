"""Losses over sentence embeddings. Letters: B pairs, D width, M = number of candidates of a softmax.

| loss                    | inputs              | labels                                  |
| ----------------------- | ------------------- | --------------------------------------- |
| `similarity_regression` | pairs               | graded similarity s in [0, 1]           |
| `info_nce`              | pairs (+ negatives) | none: the pair is positive              |
| `soft_info_nce`         | pairs (+ negatives) | s of each positive pair in [0, 1]       |
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def similarity_regression(first: Tensor, second: Tensor, score: Tensor) -> Tensor:
    """CLAIF: mean of (cos(e1, e2) - s)^2 (Cheng et al. 2023, section 3.1).

    Args:
        first, second: (B, D) embeddings.
        score: (B,) similarity given by the AI, in [0, 1].
    """
    return F.mse_loss(F.cosine_similarity(first, second, dim=-1), score)


def info_nce(
    first: Tensor,
    second: Tensor,
    *,
    temperature: float = 0.05,
    negatives: Tensor | None = None,
    duplicates: Tensor | None = None,
) -> Tensor:
    """SimCSE (Gao et al. 2021, equations 1 and 5): cross-entropy of each pair against the others of the batch.

    Args:
        first, second: (B, D) embeddings of the positive pairs.
        negatives: (B, D) hard negatives, candidates for every row.
        duplicates: (B, M) bool; True where candidate j says the same as row i's positive and must not count
            as a negative. The diagonal is ignored.
    """
    logits = _logits(first, second, negatives, duplicates, temperature)
    return F.cross_entropy(logits, torch.arange(len(first), device=first.device))


def soft_info_nce(
    first: Tensor,
    second: Tensor,
    score: Tensor,
    *,
    temperature: float = 0.05,
    negatives: Tensor | None = None,
    duplicates: Tensor | None = None,
    smooth: Literal["all", "positive"] = "all",
) -> Tensor:
    """CLHAIF: L = -sum_j q_j log softmax(cos / tau)_j, mean over the batch (Cheng et al. 2023, section 3.2).

    q is s on the positive; "all" spreads the remaining 1 - s evenly over the other M - 1 candidates, "positive"
    leaves them at 0. With s = 1 both equal `info_nce`.

    Args:
        first, second, negatives, duplicates: as in `info_nce`.
        score: (B,) AI similarity of each positive pair, in [0, 1].
    """
    logits = _logits(first, second, negatives, duplicates, temperature)
    logp = F.log_softmax(logits, dim=-1)
    own = logp.diagonal()
    loss = -score * own
    if smooth == "all":
        allowed = torch.isfinite(logits)
        others = logp.masked_fill(~allowed, 0.0).sum(-1) - own
        loss = loss - (1.0 - score) * others / (allowed.sum(-1) - 1).clamp(min=1)
    return loss.mean()


def _logits(
    first: Tensor, second: Tensor, negatives: Tensor | None, duplicates: Tensor | None, temperature: float
) -> Tensor:
    candidates = second if negatives is None else torch.cat([second, negatives])
    logits = F.normalize(first, dim=-1) @ F.normalize(candidates, dim=-1).T / temperature
    if duplicates is not None:
        own = torch.eye(*logits.shape, dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill(duplicates & ~own, float("-inf"))
    return logits
