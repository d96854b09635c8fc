"""The relation of two mentions from states of words or of nodes. B texts, T tokens, N nodes, D width, R relations."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperflows.components.knowledge.encoder import KnowledgeEncoder
from paperflows.components.knowledge.graphs import GraphBatch

Pair = tuple[Mapping[str, Any], tuple[str, str, str]]


class RelationReader(nn.Module):
    """The encoder's first state and the mean states of both mentions, classified by two layers.

    Args:
        lm: a `BertForMaskedLM`, whose body is used.
        relations: R; number 0 is none.
        vectors: (E, X) kept vectors of entities, row 0 for those without one: static injection (ERNIE, Zhang et al.
            2019). Scaled to length 1, mapped linearly and added to the word embeddings of the mentions; the map starts
            at zero, so that the encoder starts as it was trained.
    """

    def __init__(self, lm: Any, relations: int, vectors: Tensor | None = None) -> None:
        super().__init__()
        self.bert = lm.bert
        self.head = pair_classifier(lm.config.hidden_size, relations)
        self.vectors: Tensor | None
        self.register_buffer("vectors", None if vectors is None else F.normalize(vectors, dim=-1), persistent=False)
        self.inject = None if vectors is None else nn.Linear(vectors.shape[1], lm.config.hidden_size, bias=False)
        if self.inject is not None:
            nn.init.zeros_(self.inject.weight)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Scores (B, R) of a batch of `read_pairs`."""
        embedded = self.bert.embeddings.word_embeddings(batch["tokens"])
        spans = batch["head"], batch["tail"]
        if self.inject is not None and self.vectors is not None:
            for place, span in enumerate(spans):
                embedded = embedded + span[..., None] * self.inject(self.vectors[batch["ends"][:, place]])[:, None]
        hidden = self.bert(inputs_embeds=embedded, attention_mask=batch["mask"]).last_hidden_state
        means = [(hidden * m[..., None]).sum(1) / m.sum(1, keepdim=True).clamp(min=1) for m in spans]
        return _without_none(self.head(torch.cat([hidden[:, 0], *means], -1)))


class GraphReader(nn.Module):
    """The same classifier on an encoder of graphs: the first state and those of the two entity nodes.

    Args:
        encoder: whose entity rows stay as they are where their learning rate is 0.
        relations: R; number 0 is none.
    """

    def __init__(self, encoder: KnowledgeEncoder, relations: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = pair_classifier(encoder.relations.shape[1], relations)

    def forward(self, batch: GraphBatch, nodes: Tensor) -> Tensor:
        """Scores (B, R).

        Args:
            nodes: (B, 2) of head and tail.
        """
        hidden = self.encoder.encode(batch)
        rows = torch.arange(len(nodes), device=hidden.device)[:, None]
        return _without_none(self.head(torch.cat([hidden[:, 0], hidden[rows, nodes.to(hidden.device)].flatten(1)], -1)))


def pair_classifier(width: int, relations: int) -> nn.Sequential:
    """Two layers over three states, (B, 3 D) -> (B, R)."""
    return nn.Sequential(nn.Linear(3 * width, width), nn.GELU(), nn.LayerNorm(width), nn.Linear(width, relations))


def read_pairs(pairs: Sequence[Pair], tokenizer: Any, entities: Mapping[str, int]) -> dict[str, Tensor]:
    """Texts of (row, (head, relation, tail)) as ids and mask, and where the mentions of head and tail stand (B, T).

    Args:
        entities: numbers of entities; `ends` (B, 2) are those of head and tail, 0 for one without.
    """
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
    out["ends"] = torch.tensor([[entities.get(t[0], 0), entities.get(t[2], 0)] for _, t in pairs])
    return out


def _without_none(scores: Tensor) -> Tensor:
    return torch.cat([torch.full_like(scores[:, :1], -torch.inf), scores[:, 1:]], 1)
