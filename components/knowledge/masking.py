"""The objective's targets: words, entities and relations, each masked on its own. Letters: B graphs, N nodes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from paperflows.components.knowledge.graphs import ENTITY, RELATION, UNKNOWN, WORD, GraphBatch

SHARE = 0.15


@dataclass(frozen=True)
class Masked:
    """Corrupted numbers (B, N) and which nodes are predicted (B, N); an entity without a number is never a target."""

    index: Tensor
    target: Tensor


def mask_graphs(
    batch: GraphBatch, *, mask_word: int, special: Tensor, words: int, entities: int, relations: int,
    generator: torch.Generator,
) -> Masked:  # fmt: skip
    """15 % of each kind (at least one where there is any): 80 % masked, 10 % kept, 10 % another of the kind.

    Anchors beyond these are targets too, but 80 % of them are kept, 10 % masked and 10 % replaced. What is drawn
    depends on `generator` alone, so that other epochs mask other nodes (the official code masks the same ones).

    Args:
        mask_word: id of [MASK]; the mask of entities and relations is number 0.
        special: word ids that are never masked.
        words, entities, relations: sizes of the tables.
    """
    index, target = batch.index.clone(), torch.zeros_like(batch.real)
    for kind, size, mask in ((WORD, words, mask_word), (ENTITY, entities, UNKNOWN), (RELATION, relations, UNKNOWN)):
        eligible = batch.real & (batch.kind == kind)
        eligible &= ~torch.isin(batch.index, special) if kind == WORD else batch.index != UNKNOWN
        order = torch.where(eligible, torch.rand(index.shape, generator=generator), 2.0).argsort(1).argsort(1)
        count = eligible.sum(1, keepdim=True)
        chosen = eligible & (order < (SHARE * count).round().clamp(min=1))
        action = torch.rand(index.shape, generator=generator)
        other = torch.randint(0 if kind == WORD else 1, max(2, size), index.shape, generator=generator)
        index = torch.where(chosen & (action < 0.8), mask, torch.where(chosen & (action >= 0.9), other, index))
        target |= chosen
        if kind == ENTITY:
            rest = eligible & batch.language & ~chosen
            index = torch.where(rest & (action < 0.1), mask, torch.where(rest & (action >= 0.9), other, index))
            target |= rest
    return Masked(index, target)
