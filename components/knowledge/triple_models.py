"""Embeddings of triples alone: TransE, DistMult, ComplEx, RotatE, and one that reads entities' names (DKRL's idea).

Letters: M triples, E entities, R relations, D width, X width of a name's embedding.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperflows.components.errors import InputError

KINDS = ("transe", "distmult", "complex", "rotate")


class TripleModel(nn.Module):
    """Scores (head, relation, tail); higher is likelier.

    TransE -|h + r - t| (Bordes et al. 2013), DistMult <h, r, t> (Yang et al. 2015), ComplEx Re <h, r, conj t>
    (Trouillon et al. 2016), RotatE -|h * r - t| with |r| = 1 (Sun et al. 2019).

    Args:
        kind: one of `KINDS`.
        names: (E, X) embeddings of the entities' names; entities are then a linear map of these (DKRL, Xie et al. 2016,
            with a kept encoder in the place of its own), and an unseen entity has one too. None: a row an entity.
    """

    def __init__(self, kind: str, *, entities: int, relations: int, width: int, names: Tensor | None = None) -> None:
        super().__init__()
        if kind not in KINDS:
            raise InputError(f"triple model {kind!r}: expected one of {', '.join(KINDS)}")
        self.kind = kind
        whole = width if kind in ("transe", "distmult") else 2 * width  # complex numbers take two
        self.entity = nn.Embedding(entities, whole) if names is None else None
        self.project = None if names is None else nn.Linear(names.shape[1], whole)
        self.names: Tensor | None
        self.register_buffer("names", names)
        self.relation = nn.Embedding(relations, width if kind == "rotate" else whole)
        for table in (self.entity, self.relation):
            if table is not None:
                nn.init.uniform_(table.weight, -(6 / width**0.5), 6 / width**0.5)
        if kind == "rotate":
            nn.init.uniform_(self.relation.weight, -torch.pi, torch.pi)

    def rows(self, ids: Tensor) -> Tensor:
        """Vectors of entities (..., whole)."""
        if self.entity is not None:
            return self.entity(ids)
        assert self.project is not None and self.names is not None
        return self.project(self.names[ids])

    def forward(self, head: Tensor, relation: Tensor, tail: Tensor) -> Tensor:
        """Scores of the broadcast shape of the three."""
        h, r, t = self.rows(head), self.relation(relation), self.rows(tail)
        if self.kind == "transe":
            return -(h + r - t).norm(dim=-1)
        if self.kind == "distmult":
            return (h * r * t).sum(-1)
        hr, hi = h.chunk(2, -1)
        tr, ti = t.chunk(2, -1)
        if self.kind == "complex":
            rr, ri = r.chunk(2, -1)
            return (hr * rr * tr + hi * rr * ti + hr * ri * ti - hi * ri * tr).sum(-1)
        cos, sin = r.cos(), r.sin()
        return -torch.cat([hr * cos - hi * sin - tr, hr * sin + hi * cos - ti], -1).norm(dim=-1)


def ranking_loss(model: TripleModel, triples: Tensor, negatives: Tensor, *, margin: float) -> Tensor:
    """Log-sigmoid loss of triples and of corrupted relations and ends (RotatE's, without self-adversarial weights).

    Args:
        triples: (M, 3) head, relation, tail.
        negatives: (M, K, 3).
        margin: added to distances; 0 for the similarity models.
    """
    good = model(triples[:, 0], triples[:, 1], triples[:, 2])
    bad = model(negatives[..., 0], negatives[..., 1], negatives[..., 2])
    return -F.logsigmoid(margin + good).mean() - F.logsigmoid(-margin - bad).mean()


def corrupt(triples: Tensor, count: int, *, entities: int, relations: int, generator: torch.Generator) -> Tensor:
    """(M, count, 3) copies with the head, the relation or the tail, each with a third, drawn anew (from 1 on)."""
    out = triples[:, None].expand(-1, count, -1).clone()
    place = torch.randint(3, out.shape[:2], generator=generator)
    entity = torch.randint(1, entities, out.shape[:2], generator=generator)
    relation = torch.randint(1, relations, out.shape[:2], generator=generator)
    for where, new in ((0, entity), (1, relation), (2, entity)):
        out[..., where] = torch.where(place == where, new, out[..., where])
    return out
