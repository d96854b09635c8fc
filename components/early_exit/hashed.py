"""A classifier whose tokens leave by hash: exits are known before the text is read, in training as in use.

Letters: B texts, T tokens, D width, C classes, V vocabulary.
Source: HashEE (Sun et al. 2022), section 3.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from paperflows.components.early_exit import hashing
from paperflows.components.early_exit.encoder import ExitEncoder
from paperflows.components.early_exit.exits import Exit, Pooling, pool, task_loss
from paperflows.components.early_exit.flops import exit_flops, token_flops
from paperflows.components.early_exit.sentences import LabelledTexts, Objective
from paperflows.components.training.batching import Batches, token_budget_batches

ExitsOf = Callable[[NDArray[np.int64], int], Tensor]


@dataclass(frozen=True)
class TokenHash:
    """Executed layers of tokens: by id, by lot for every occurrence, or by position.

    Args:
        kind: "ids" reads `layers`; "lot" and "position" read `shares`.
        layers: (V,) executed layers of each id.
        shares: (L,) share of occurrences that leave after each layer.
        special: ids that run every layer whatever the kind: special tokens, and tokens unseen in training.
    """

    kind: str
    layers: NDArray[np.int64]
    shares: NDArray[np.float64]
    special: NDArray[np.int64]

    def exits(self, ids: NDArray[np.int64], mask: NDArray[np.int64], draw: int) -> Tensor:
        """(B, T) executed layers of these ids; `draw` numbers the draws of "lot". Padding is the caller's to mask."""
        if self.kind == "ids":
            return torch.from_numpy(self.layers[ids])
        if self.kind == "lot":
            layers = hashing.exits_by_lot(ids.shape, self.shares, np.random.default_rng([7, draw]))
        else:
            layers = hashing.exits_by_position(mask.sum(1), self.shares)
        return torch.from_numpy(np.where(np.isin(ids, self.special), len(self.shares), layers))


class HashedClassifier(nn.Module):
    """An encoder without internal exits and one classifier on its last states (frozen tokens with theirs)."""

    def __init__(self, encoder: ExitEncoder, *, outputs: int, pooling: Pooling) -> None:
        super().__init__()
        self.encoder, self.pooling = encoder, pooling
        self.head = Exit(width=encoder.width, outputs=outputs)

    def forward(self, ids: Tensor, mask: Tensor, exits: Tensor, *, masked: bool = False) -> Tensor:
        """(B, C) logits; `exits` (B, T) executed layers; `masked` computes by the reference."""
        *_, hidden = self.encoder.by_exit_layer(ids, mask, exits * mask, masked=masked)
        return self.head(pool(hidden, mask, self.pooling))


def hashed_objective(
    texts: LabelledTexts, token_hash: TokenHash, *, batch_size: int, seed: int, before: int = 0, bf16: bool = False
) -> Objective:
    """Training with the same exits and the same copying as in use; `before` steps have been made on these texts."""
    batches = Batches(batch_size=batch_size, seed=seed, lengths=texts.table.lengths)

    def batch_at(step: int) -> dict[str, Any]:
        batch = texts.batch(batches.at(before + step))
        draw = 1_000_000 * (seed + 1) + step
        return {**batch, "exits": token_hash.exits(batch["tokens"].numpy(), batch["mask"].numpy(), draw)}

    def loss_fn(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
        with torch.autocast(batch["tokens"].device.type, dtype=torch.bfloat16, enabled=bf16):
            logits = model(batch["tokens"], batch["mask"], batch["exits"])
        return task_loss(logits, batch["target"])

    return Objective(batch_at, loss_fn)


@torch.inference_mode()
def hashed_outputs(
    model: HashedClassifier, texts: LabelledTexts, token_hash: TokenHash, *, draw: int, bf16: bool = False
) -> tuple[Tensor, NDArray[np.float64]]:
    """Logits (N, C) and FLOPs (N,) of all texts, the classifier's included."""
    device = next(model.parameters()).device
    model.eval()
    count, outputs = len(texts.table), model.head.classifier.out_features
    logits, flops = torch.empty(count, outputs), np.zeros(count)
    for number, rows in enumerate(token_budget_batches(texts.table.lengths, budget=4096)):
        ids, mask = texts.table.pad(rows)
        exits = token_hash.exits(ids.numpy(), mask.numpy(), draw * 10_000 + number) * mask
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            logits[torch.from_numpy(rows)] = model(ids.to(device), mask.to(device), exits.to(device)).float().cpu()
        active = np.stack([(exits > layer).sum(1).numpy() for layer in range(model.encoder.depth)], 1)
        spent = token_flops(active, texts.table.lengths[rows], width=model.encoder.width, inner=model.encoder.inner)
        flops[rows] = spent + exit_flops(width=model.encoder.width, outputs=outputs)
    return logits, flops


def make_hash(
    kind: str,
    texts: LabelledTexts,
    *,
    depth: int,
    full_depth: int,
    speedup: float | None,
    buckets: int,
    special: list[int],
    vectors: NDArray[np.float64],
    width: int,
    inner: int,
    seed: int,
) -> TokenHash:
    """A hash learnt from training texts alone.

    Args:
        kind: one of `hashing.HASHES`, "inconsistent" (by lot for every occurrence) or "position".
        speedup: over `full_depth` layers on the training texts, by token mass; None: the paper's buckets of equal
            numbers of types. "inconsistent" and "position" take the histogram that "consistent" with the same seed
            really has there, and like it run unseen tokens through every layer: so their FLOPs agree.
        vectors: (V, D) word embeddings, for "cluster".
    """
    rows = _rows(texts)
    counts = hashing.token_counts(rows, len(vectors))
    by_lot = kind in ("inconsistent", "position")
    information = None
    if kind == "information":
        information = hashing.mutual_information(rows, texts.target.numpy(), len(vectors))
    order = hashing.order_of(
        "consistent" if by_lot else kind, counts, information=information, vectors=vectors, seed=seed
    )

    def by_mass(shares: NDArray[np.float64]) -> NDArray[np.int64]:
        return hashing.fill_mass(order, counts, shares, special=special)

    def cost_of(shares: NDArray[np.float64]) -> float:
        return hashing.realised_cost(by_mass(shares), rows, depth, width=width, inner=inner, full_depth=full_depth)

    if speedup is None:
        layers = hashing.fill_types(order, depth, buckets, vocabulary=len(vectors), special=special)
    else:
        layers = by_mass(hashing.solve_shares(cost_of, depth, 1 / speedup))
    fixed = np.array(sorted({*special, *np.flatnonzero(counts == 0).tolist()}), dtype=np.int64)
    mass = np.bincount(layers, weights=np.where(np.isin(np.arange(len(layers)), fixed), 0, counts), minlength=depth + 1)
    shares = mass[1:] / max(1.0, mass.sum())
    names = {"inconsistent": "lot", "position": "position"}
    return TokenHash(names.get(kind, "ids"), layers, shares, fixed)


def _rows(texts: LabelledTexts) -> list[NDArray[np.int64]]:
    ids, mask = texts.table.pad(np.arange(len(texts.table)))
    return [row[: int(n)].numpy() for row, n in zip(ids, mask.sum(1), strict=True)]
