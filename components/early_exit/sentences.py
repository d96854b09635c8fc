"""Labelled texts as tensors, and the objectives that train exits on them.

Letters: N texts, B batch, T tokens, L exits, C classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from paperflows.components.early_exit.exits import MultiExitClassifier, Weights, confidence_loss, exits_loss
from paperflows.components.errors import InputError
from paperflows.components.training.batching import Batches, TokenTable, token_budget_batches

Rows = Sequence[Mapping[str, Any]]
Method = Literal["equilibrium", "sum", "depth", "last", "confidence"]


@dataclass(frozen=True)
class LabelledTexts:
    """N tokenised texts (or pairs) and their targets: class numbers (N,) int64, or scores (N,) float32."""

    table: TokenTable
    target: Tensor

    def batch(self, rows: np.ndarray) -> dict[str, Any]:
        """ids, mask (B, T) and target (B,) of these rows."""
        tokens, mask = self.table.pad(rows)
        return {"tokens": tokens, "mask": mask, "target": self.target[torch.from_numpy(rows)], "ids": rows.tolist()}


def label_names(rows: Rows) -> list[str]:
    """The classes of a dataset in sorted order; none for scores (regression)."""
    return sorted({str(row["label"]) for row in rows}) if "label" in rows[0] else []


def sample(rows: Rows, limit: int, *, seed: int) -> list[Mapping[str, Any]]:
    """At most `limit` rows, drawn without replacement and in random order: files are often sorted by label."""
    order = np.random.default_rng(seed).permutation(len(rows))[:limit]
    return [rows[i] for i in order]


def labelled(rows: Rows, tokenizer: Any, labels: Sequence[str], *, max_length: int) -> LabelledTexts:
    """`rows` tokenised, their labels as numbers.

    Raises:
        InputError: a label that the training split does not have.
    """
    pairs = [row["text_pair"] for row in rows] if rows[0].get("text_pair") else None
    table = TokenTable.from_texts([row["text"] for row in rows], tokenizer, max_length=max_length, pairs=pairs)
    if not labels:
        return LabelledTexts(table, torch.tensor([row["score"] for row in rows], dtype=torch.float32))
    number = {name: i for i, name in enumerate(labels)}
    unknown = {str(row["label"]) for row in rows} - number.keys()
    if unknown:
        raise InputError(f"label {min(unknown)!r} is not among the training split's: {', '.join(labels)}")
    return LabelledTexts(table, torch.tensor([number[str(row["label"])] for row in rows]))


def of_length(lengths: np.ndarray, count: int, shortest: int, longest: int) -> np.ndarray:
    """Indices of `count` texts of that many tokens, longest first; the longest texts where too few are so long."""
    fit = np.flatnonzero((lengths >= shortest) & (lengths <= longest))[:count]
    if len(fit) < count:
        fit = np.argsort(-lengths, kind="stable")[:count]
    return fit[np.argsort(-lengths[fit], kind="stable")]


@dataclass(frozen=True)
class Objective:
    """What `training.loop.train` needs of a method."""

    batch_at: Callable[[int], dict[str, Any]]
    loss_fn: Callable[[nn.Module, Mapping[str, Any]], Tensor]


def exits_objective(
    texts: LabelledTexts, *, method: Method, batch_size: int, seed: int, before: int = 0, bf16: bool = False
) -> Objective:
    """Training of a `MultiExitClassifier` by one of the methods compared.

    | method | exits trained | their losses |
    | --- | --- | --- |
    | equilibrium | all | sum, gradients averaged a layer (ElasticBERT) |
    | sum | all | plain sum |
    | depth | all | weighted l / sum l (PABEE) |
    | last | the last | its own (a truncated model; DeeBERT's first stage) |
    | confidence | even steps all, odd steps the last | sum, and the confidence head's (BERxiT) |

    Args:
        before: steps that the model has had; its texts go on from there.
        bf16: multiply matrices in bfloat16; losses and weights stay float32.
    """
    batches = Batches(batch_size=batch_size, seed=seed, lengths=texts.table.lengths)
    weights: Weights = "sum" if method == "confidence" else method

    def batch_at(step: int) -> dict[str, Any]:
        return {**texts.batch(batches.at(before + step)), "step": step}

    def loss_fn(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
        last_only = method == "last" or (method == "confidence" and batch["step"] % 2 == 1)
        inner: Any = getattr(model, "module", model)
        with torch.autocast(batch["tokens"].device.type, dtype=torch.bfloat16, enabled=bf16):
            logits, pooled = model(
                batch["tokens"], batch["mask"], equilibrium=method == "equilibrium",
                only=[inner.encoder.depth - 1] if last_only else None,
            )  # fmt: skip
        loss = exits_loss(logits, batch["target"], weights="last" if last_only else weights)
        if method == "confidence" and not last_only:
            loss = loss + confidence_loss(inner.confidence, logits, [p.float() for p in pooled], batch["target"])
        return loss

    return Objective(batch_at, loss_fn)


@torch.inference_mode()
def exit_signals(
    model: MultiExitClassifier, texts: LabelledTexts, *, bf16: bool = False, token_budget: int = 4096
) -> dict[str, Tensor]:
    """All exits on all texts: logits (N, L, C) and confidence (N, L), float32 on the CPU; lengths and target (N,)."""
    device = next(model.parameters()).device
    model.eval()
    head: Any = model.exits[0]
    depth, outputs = model.encoder.depth, head.classifier.out_features
    logits = torch.empty(len(texts.table), depth, outputs)
    confidence = torch.empty(len(texts.table), depth)
    for rows in token_budget_batches(texts.table.lengths, budget=token_budget):
        ids, mask = texts.table.pad(rows)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            said, pooled = model(ids.to(device), mask.to(device))
            sure = [torch.sigmoid(model.confidence(p))[:, 0] for p in pooled]
        at = torch.from_numpy(rows)
        logits[at] = torch.stack(said, 1).float().cpu()
        confidence[at] = torch.stack(sure, 1).float().cpu()
    lengths = torch.from_numpy(texts.table.lengths.copy())
    return {"logits": logits, "confidence": confidence, "lengths": lengths, "target": texts.target}
