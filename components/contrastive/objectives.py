"""What each method of sentence embedding trains on: batches by step number and the loss of one.

| objective         | data                                   | loss                    | source |
| ----------------- | ---------- | ----------------------- | --- |
| `regression`      | pairs with a similarity                | `similarity_regression` | CLAIF; DINO with hard labels |
| `dropout_pairs`   | sentences                              | `info_nce`              | unsupervised SimCSE |
| `triplets`        | anchor, positive, negative             | `info_nce`              | SimCSE on NLI |
| `scored_triplets` | anchor, positive, negative, similarity | `soft_info_nce`         | CLHAIF |
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from paperflows.components.contrastive.losses import info_nce, similarity_regression, soft_info_nce
from paperflows.components.models.encoder import SentenceEncoder
from paperflows.components.training.batching import Batches, TokenTable

MOST_PARTS = 4  # a batch is encoded in up to as many parts of similar length
PART_TOKENS = 2048  # padded tokens below which a further part costs more than the padding it saves


@dataclass(frozen=True)
class Objective:
    """`batch_at(step)` and `loss_fn(model, batch)` for `components.training.loop.train`."""

    batch_at: Callable[[int], Mapping[str, Any]]
    loss_fn: Callable[[nn.Module, Mapping[str, Any]], Tensor]


def regression(
    encoder: SentenceEncoder, pairs: Sequence[tuple[str, str, float]], *, batch_size: int, seed: int
) -> Objective:
    """Cosine regression on (text, text_pair, similarity in [0, 1])."""
    table, columns = _table(encoder, [pair[:2] for pair in pairs])
    scores = torch.tensor([pair[2] for pair in pairs], dtype=torch.float32)
    batches = Batches(batch_size=batch_size, seed=seed, lengths=table.lengths[columns].max(1))

    def batch_at(step: int) -> dict[str, Any]:
        rows = batches.at(step)
        return {**_sides(table, columns[rows]), "score": scores[torch.from_numpy(rows)], "ids": rows.tolist()}

    def loss_fn(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
        first, second = _embed(model, batch).chunk(2)
        return similarity_regression(first, second, batch["score"])

    return Objective(batch_at, loss_fn)


def dropout_pairs(
    encoder: SentenceEncoder, sentences: Sequence[str], *, batch_size: int, temperature: float, seed: int
) -> Objective:
    """Each sentence twice through dropout is a positive pair, the rest of the batch its negatives."""
    table, columns = _table(encoder, [(s, s) for s in sentences])
    batches = Batches(batch_size=batch_size, seed=seed, n=len(sentences))

    def batch_at(step: int) -> dict[str, Any]:
        rows = batches.at(step)
        return {**_sides(table, columns[rows]), "duplicates": _equal(columns[rows][:, 1:]), "ids": rows.tolist()}

    def loss_fn(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
        first, second = _embed(model, batch).chunk(2)
        return info_nce(first, second, temperature=temperature, duplicates=batch["duplicates"])

    return Objective(batch_at, loss_fn)


def triplets(
    encoder: SentenceEncoder,
    rows: Sequence[tuple[str, str, str]],
    *,
    batch_size: int,
    temperature: float,
    seed: int,
    scores: Sequence[float] | None = None,
    smooth: Literal["all", "positive"] = "all",
) -> Objective:
    """Anchor, positive and hard negative; with `scores`, the AI's similarity of each positive, softly (CLHAIF)."""
    table, columns = _table(encoder, rows)
    batches = Batches(batch_size=batch_size, seed=seed, n=len(rows))
    given = None if scores is None else torch.tensor(scores, dtype=torch.float32)

    def batch_at(step: int) -> dict[str, Any]:
        at = batches.at(step)
        batch = {**_sides(table, columns[at]), "duplicates": _equal(columns[at][:, 1:]), "ids": at.tolist()}
        return batch if given is None else {**batch, "score": given[torch.from_numpy(at)]}

    def loss_fn(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
        anchor, positive, negative = _embed(model, batch).chunk(3)
        shared = {"temperature": temperature, "negatives": negative, "duplicates": batch["duplicates"]}
        if given is None:
            return info_nce(anchor, positive, **shared)
        return soft_info_nce(anchor, positive, batch["score"], smooth=smooth, **shared)

    return Objective(batch_at, loss_fn)


def _table(encoder: SentenceEncoder, rows: Sequence[Sequence[str]]) -> tuple[TokenTable, np.ndarray]:
    """Distinct texts tokenised once, and the (N, sides) positions of each row's texts in that table."""
    position = {text: i for i, text in enumerate(dict.fromkeys(text for row in rows for text in row))}
    columns = np.array([[position[text] for text in row] for row in rows], dtype=np.int64)
    return encoder.tokens(list(position)), columns


def _sides(table: TokenTable, columns: np.ndarray) -> dict[str, Any]:
    """All sides of the batch, first side first, cut into parts of similar length, which saves padding.

    In-batch negatives must stay a random draw, so that lengths are sorted within the batch and not across batches.
    """
    texts = columns.T.reshape(-1)
    order = np.argsort(table.lengths[texts], kind="stable")
    tokens = len(texts) * int(table.lengths[texts].max())
    parts = np.array_split(order, min(MOST_PARTS, max(1, tokens // PART_TOKENS)))
    padded = [table.pad(texts[part]) for part in parts]
    return {"tokens": [ids for ids, _ in padded], "mask": [mask for _, mask in padded], "places": np.argsort(order)}


def _embed(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    """Embeddings (sides * B, D) of a batch of `_sides`, in the order of its texts."""
    parts = [model(tokens, mask) for tokens, mask in zip(batch["tokens"], batch["mask"], strict=True)]
    return torch.cat(parts).float()[torch.from_numpy(batch["places"]).to(parts[0].device)]


def _equal(candidates: np.ndarray) -> Tensor:
    """(B, M) True where candidate j is the same text as row i's positive; M runs over all sides in order."""
    return torch.from_numpy(candidates[:, :1] == candidates.T.reshape(1, -1))
