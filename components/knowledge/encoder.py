"""An encoder of word-knowledge graphs on top of a pretrained BERT.

Letters: B graphs, N nodes, M targets, D width, K candidates.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperflows.components.knowledge.graphs import ENTITY, RELATION, WORD, GraphBatch
from paperflows.components.knowledge.tables import RowTable


class Transform(nn.Module):
    """Linear, GELU, LayerNorm before a tied table."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense, self.norm = nn.Linear(width, width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.norm(F.gelu(self.dense(x)))


class KnowledgeEncoder(nn.Module):
    """Three tables, a type embedding that starts at zero, soft positions, and attention along the graph's edges.

    Args:
        lm: a `BertForMaskedLM`; its word head is used, tied to the word table.
        entities: rows of entities; row 0 is the mask and the entity without a row.
        relations: (R, D) start of the relation table; row 0 is the mask.
    """

    def __init__(self, lm: Any, entities: RowTable, relations: Tensor) -> None:
        super().__init__()
        self.lm, self.entities = lm, entities
        width = lm.config.hidden_size
        self.relations = nn.Parameter(relations.clone())
        self.relation_bias = nn.Parameter(torch.zeros(len(relations)))
        self.kinds = nn.Embedding(3, width)
        nn.init.zeros_(self.kinds.weight)
        self.to_entity, self.to_relation = Transform(width), Transform(width)

    def encode(
        self, batch: GraphBatch, index: Tensor | None = None, pulled: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """States (B, N, D).

        Args:
            index: corrupted numbers of the nodes; default those of the batch.
            pulled: sorted numbers (U,) and rows (U, D) that hold all entities of `index`; default: they are pulled.
        """
        device = self.relations.device
        index = batch.index if index is None else index
        kind, index, position = batch.kind.to(device), index.to(device), batch.position.to(device)
        parts = self.lm.bert.embeddings
        embedded = parts.word_embeddings(torch.where(kind == WORD, index, 0))
        embedded = torch.where(
            (kind == RELATION)[..., None], self.relations[torch.where(kind == RELATION, index, 0)], embedded
        )
        at = kind == ENTITY
        if bool(at.any()):
            if pulled is None:
                ids = index[at].unique()
                pulled = ids, self.entities.pull(ids, device)
            embedded = embedded.masked_scatter(at[..., None], pulled[1][torch.searchsorted(pulled[0], index[at])])
        embedded = embedded + parts.position_embeddings(position) + parts.token_type_embeddings.weight[0]
        hidden = parts.dropout(parts.LayerNorm(embedded + self.kinds(kind)))
        mask = torch.zeros(batch.attention.shape, device=device).masked_fill(~batch.attention.to(device), -torch.inf)
        for layer in self.lm.bert.encoder.layer:
            out = layer(hidden, attention_mask=mask[:, None])
            hidden = out[0] if isinstance(out, tuple) else out
        return hidden

    def loss(self, batch: GraphBatch, index: Tensor, target: Tensor, negatives: Tensor) -> Tensor:
        """Sum of the three cross-entropies in nats, each a mean over its own targets (0 where it has none).

        Args:
            index: corrupted numbers (B, N).
            target: (B, N) nodes to predict; their true numbers are in the batch.
            negatives: entity numbers that are candidates beside the batch's own.
        """
        device = self.relations.device
        kind, truth, target = batch.kind.to(device), batch.index.to(device), target.to(device)
        gold = truth[target & (kind == ENTITY)]
        candidates = torch.cat([gold, negatives.to(device)]).unique()
        ids = torch.cat([index.to(device)[kind == ENTITY], candidates]).unique()
        rows = self.entities.pull(ids, device)  # once a step: inputs and candidates share their update
        hidden = self.encode(batch, index, (ids, rows))
        words = self.lm.cls(hidden[target & (kind == WORD)])
        losses = [_mean_loss(words, truth[target & (kind == WORD)])]
        at = target & (kind == RELATION)
        losses.append(_mean_loss(self.relation_scores(hidden[at]), truth[at]))
        scores = self.to_entity(hidden[target & (kind == ENTITY)]) @ rows[torch.searchsorted(ids, candidates)].t()
        losses.append(_mean_loss(scores, torch.searchsorted(candidates, gold)))
        return torch.stack(losses).sum()

    def relation_scores(self, hidden: Tensor) -> Tensor:
        """(M, D) states -> (M, R) scores of the relations; number 0 is never one."""
        scores = self.to_relation(hidden) @ self.relations.t() + self.relation_bias
        return torch.cat([torch.full_like(scores[:, :1], -torch.inf), scores[:, 1:]], 1)


def _mean_loss(scores: Tensor, gold: Tensor) -> Tensor:
    return F.cross_entropy(scores.float(), gold, reduction="sum") / max(1, len(gold))
