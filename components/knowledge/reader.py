"""Text only: the relation of two mentions, from the states of their words. B texts, T tokens, D width, R relations."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class RelationReader(nn.Module):
    """The encoder's first state and the mean states of both mentions, classified by two layers.

    Args:
        lm: a `BertForMaskedLM`, whose body is used.
        relations: R; number 0 is none.
    """

    def __init__(self, lm: Any, relations: int) -> None:
        super().__init__()
        self.bert = lm.bert
        width = lm.config.hidden_size
        self.head = nn.Sequential(
            nn.Linear(3 * width, width), nn.GELU(), nn.LayerNorm(width), nn.Linear(width, relations)
        )

    def forward(self, ids: Tensor, mask: Tensor, head: Tensor, tail: Tensor) -> Tensor:
        """Scores (B, R).

        Args:
            ids, mask: (B, T).
            head, tail: (B, T) true for the pieces of the mention.
        """
        hidden = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        parts = [
            hidden[:, 0],
            *((hidden * m[..., None]).sum(1) / m.sum(1, keepdim=True).clamp(min=1) for m in (head, tail)),
        ]
        scores = self.head(torch.cat(parts, -1))
        return torch.cat([torch.full_like(scores[:, :1], -torch.inf), scores[:, 1:]], 1)


def read_pairs(pairs: Sequence[tuple[Mapping[str, Any], tuple[str, str, str]]], tokenizer: Any) -> dict[str, Tensor]:
    """Texts of (row, (head, relation, tail)) as ids and mask, and where the mentions of head and tail stand (B, T)."""
    encoded = tokenizer(
        [row["text"] for row, _ in pairs], truncation=True, max_length=256, padding=True, return_offsets_mapping=True,
        return_tensors="pt",
    )  # fmt: skip
    start, end = encoded["offset_mapping"].unbind(-1)
    out = {"tokens": encoded["input_ids"], "mask": encoded["attention_mask"]}
    for name, place in (("head", 0), ("tail", 2)):
        spans = [next(m for m in row["mentions"] if str(m["entity"]) == triple[place]) for row, triple in pairs]
        begins = torch.tensor([m["start"] for m in spans])[:, None]
        ends = torch.tensor([m["end"] for m in spans])[:, None]
        out[name] = ((start < ends) & (end > begins) & (end > start)).long()
    return out
