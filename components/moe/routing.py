"""One plan for a batch of tokens: which rows each expert computes, what was dropped, rectified and padded.

N tokens of one worker, E experts on all workers, k choices a token, C slots an expert, M rows of a leg.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from paperflows.components.moe.capacity import Keep, fill_slots, holds, slots_per_expert
from paperflows.components.moe.rectify import reroute
from paperflows.components.moe.router import top_choices

Rectify = Literal["intra", "fill", "random"]
Combine = Literal["score", "normalised", "straight_through"]


@dataclass(frozen=True)
class Leg:
    """Rows for experts, in the order of the experts.

    Args:
        token: (M,) token of each row, -1 for a padded slot.
        expert: (M,) its expert.
        counts: (E',) rows of each expert: of all E for the leg that travels, of the local ones for the leg that stays.
    """

    token: Tensor
    expert: Tensor
    counts: Tensor


@dataclass(frozen=True)
class Plan:
    """The routing of one batch on one worker.

    Args:
        travel: rows sent to the experts wherever they live.
        stay: rows of rectified tokens for the worker's own experts, computed while the others travel.
        choices: (N, k) experts that each token chose.
        dropped: (N, k) choices that found no slot.
        tokens: real tokens, without padding.
    """

    travel: Leg
    stay: Leg
    choices: Tensor
    dropped: Tensor
    tokens: int

    def shares(self) -> dict[str, float]:
        """What the plan wastes.

        Of the choices: those that found no slot (`dropped`) and that were given another expert (`rectified`). Of the
        tokens: those that no expert computes (`skipped`). Of the slots: empty ones (`padded`). Of the computed rows:
        those that belong to a token (`useful`).
        """
        choices = max(1, self.tokens * self.dropped.shape[1])
        dropped, rectified = int(self.dropped.sum()), len(self.stay.token)
        rows = len(self.travel.token) + rectified
        padded = int((self.travel.token < 0).sum())
        token = torch.cat([self.travel.token, self.stay.token])
        computed = len(token[token >= 0].unique())
        return {
            "dropped": dropped / choices,
            "rectified": rectified / choices,
            "skipped": (self.tokens - computed) / max(1, self.tokens),
            "padded": padded / max(1, len(self.travel.token)),
            "useful": (rows - padded) / max(1, rows),
        }

    def load(self) -> Tensor:
        """(E,) rows of tokens that each expert computes for this worker."""
        token = torch.cat([self.travel.token, self.stay.token])
        expert = torch.cat([self.travel.expert, self.stay.expert])
        return torch.bincount(expert[token >= 0], minlength=len(self.travel.counts))


@torch.no_grad()
def plan_routing(
    scores: Tensor,
    k: int,
    *,
    factor: float | None,
    rectify: Collection[Rectify] = (),
    local: range | None = None,
    keep: Keep = "score",
    mask: Tensor | None = None,
) -> Plan:
    """Decide where each token is computed (section 3 of the paper; capacity is that of this worker's tokens).

    Args:
        scores: (N, E) softmax of the router, float32 or float64.
        k: choices a token.
        factor: capacity factor; None is dropless (every choice is computed, nothing is padded).
        rectify: any of "fill" (fill-in), "intra" (dropped tokens to the best local expert) and "random" (dropped tokens
            to any local expert).
        local: the worker's own experts; all when None.
        mask: (N,) true for real tokens; padding enters no expert and no count.

    Raises:
        InputError: `factor` is not positive.
    """
    tokens, experts = scores.shape
    real = tokens if mask is None else int(mask.sum())
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None], -1.0)
    local = local or range(experts)
    choices = top_choices(scores, k)
    if factor is None:
        return Plan(_every_choice(choices, experts, mask), _nobody(scores, local), choices, choices < 0, real)
    capacity = slots_per_expert(real, k=k, experts=experts, factor=factor)
    slots = fill_slots(scores, choices, capacity, fill="fill" in rectify, keep=keep)
    used = holds(slots, tokens)
    dropped = ~used.gather(1, choices)
    if mask is not None:
        dropped &= mask[:, None]
    counts = torch.full((experts,), capacity, dtype=torch.int64, device=scores.device)
    each = torch.arange(experts, device=scores.device)
    travel = Leg(slots.flatten(), each.repeat_interleave(capacity), counts)
    stay = _nobody(scores, local)
    if "intra" in rectify or "random" in rectify:
        by = torch.rand_like(scores) if "random" in rectify else scores
        token, expert = reroute(by, used, dropped.sum(1), local, k)
        stay = Leg(token, expert, torch.bincount(expert - local.start, minlength=len(local)))
    return Plan(travel, stay, choices, dropped, real)


def gates(scores: Tensor, plan: Plan, combine: Combine) -> Tensor:
    """Weight of each row, those that travel first; zero for padded slots.

    "score" is the router's score; "normalised" divides it by the sum over the token's experts; "straight_through" is
    1 / (number of the token's experts) going forward and the score's gradient going back, so that experts outside the
    top k train the router without rescaling the output.

    Args:
        scores: (N, E) softmax of the router, with its graph.

    Returns:
        (M,) in the dtype of `scores`.
    """
    token, expert = torch.cat([plan.travel.token, plan.stay.token]), torch.cat([plan.travel.expert, plan.stay.expert])
    real = token >= 0
    token = token.clamp(min=0)
    score = torch.where(real, scores[token, expert], 0)
    if combine == "score":
        return score
    if combine == "normalised":
        total = torch.zeros(len(scores), dtype=scores.dtype, device=scores.device).index_add(0, token, score)
        return score / total[token].clamp(min=torch.finfo(scores.dtype).tiny)
    number = torch.bincount(token[real], minlength=len(scores)).clamp(min=1)
    return torch.where(real, 1 / number[token] - score.detach() + score, 0)


def _every_choice(choices: Tensor, experts: int, mask: Tensor | None) -> Leg:
    token = torch.arange(len(choices), device=choices.device).repeat_interleave(choices.shape[1])
    expert = choices.flatten()
    if mask is not None:
        token, expert = token[mask[token]], expert[mask[token]]
    order = expert.sort(stable=True).indices
    return Leg(token[order], expert[order], torch.bincount(expert, minlength=experts))


def _nobody(scores: Tensor, local: range) -> Leg:
    none = torch.zeros(0, dtype=torch.int64, device=scores.device)
    return Leg(none, none, torch.zeros(len(local), dtype=torch.int64, device=scores.device))
