"""Training of taggers with exits: all exits together, then with words that leave as their own confidence says.

Letters: B sentences, W words, L layers, C tags.
Source: Li et al. 2021, sections 3.1 and 3.4; sandwich and flooding are in its repository (further_train.py).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperflows.components.early_exit.policies import entropy
from paperflows.components.early_exit.sentences import Objective
from paperflows.components.early_exit.token_exit import MultiExitTagger, WindowRule, replay_words
from paperflows.components.early_exit.words import OUTSIDE, WordTable, layers_of_pieces
from paperflows.components.training.batching import Batches, token_budget_batches


def word_losses(logits: Sequence[Tensor], tags: Tensor) -> Tensor:
    """(B, W, L) cross-entropy of every word at every exit, 0 where there is no word."""
    each = [
        F.cross_entropy(one.float().transpose(1, 2), tags, ignore_index=OUTSIDE, reduction="none") for one in logits
    ]
    return torch.stack(each, -1)


def depth_weighted(losses: Tensor, real: Tensor, counted: Tensor | None = None) -> Tensor:
    """Mean over all real words of each layer's losses, weighted l / sum l.

    Args:
        losses: (B, W, L); real: (B, W).
        counted: (B, W, L) which losses count; the mean still divides by all real words.
    """
    kept = losses if counted is None else losses * counted
    by_layer = kept.sum((0, 1)) / real.sum().clamp(min=1)
    depth = torch.arange(1, losses.shape[-1] + 1, dtype=losses.dtype, device=losses.device)
    return (by_layer * depth).sum() / depth.sum()


def joint_objective(
    words: WordTable, *, batch_size: int, seed: int, last_only: bool = False, before: int = 0, bf16: bool = False
) -> Objective:
    """Stage 1: every exit on every word; `last_only` trains a plain tagger (a truncated model).

    Args:
        before: steps that the model has had; its sentences go on from there.
    """
    batches = Batches(batch_size=batch_size, seed=seed, lengths=words.table.lengths)

    def loss_fn(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
        with torch.autocast(batch["tokens"].device.type, dtype=torch.bfloat16, enabled=bf16):
            logits = model(batch)
        losses = word_losses(logits[-1:] if last_only else logits, batch["tags"])
        return depth_weighted(losses, batch["real"])

    return Objective(lambda step: words.batch(batches.at(before + step)), loss_fn)


@torch.inference_mode()
def stored_exits(model: MultiExitTagger, words: WordTable, *, bf16: bool = False) -> dict[str, Tensor]:
    """Uncertainty and loss (N, W, L) of every word at every exit, all words in all layers; tags said (N, W, L)."""
    model.eval()
    device = next(model.parameters()).device
    shape = (len(words.table), int(words.word_lengths.max()), model.encoder.depth)
    out = {"uncertainty": torch.zeros(shape), "loss": torch.zeros(shape), "said": torch.zeros(shape, dtype=torch.long)}
    for rows in token_budget_batches(words.table.lengths, budget=4096):
        batch = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in words.batch(rows).items()}
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            logits = [one.float() for one in model(batch)]
        width = logits[0].shape[1]
        at = torch.from_numpy(rows)
        out["uncertainty"][at, :width] = torch.stack([entropy(one) for one in logits], -1).cpu()
        out["loss"][at, :width] = word_losses(logits, batch["tags"]).cpu()
        out["said"][at, :width] = torch.stack([one.argmax(-1) for one in logits], -1).cpu()
    return out


def sample_exits(
    uncertainty: Tensor, real: Tensor, random: np.random.Generator, *, reaches: Sequence[int],
    thresholds: Sequence[float], extreme: int = 2, full: int = 4,
) -> Tensor:  # fmt: skip
    """(B, W) executed layers of words: each sentence by a window and a threshold of its own, from stage 1's exits.

    The first `extreme` sentences take the smallest window or the largest threshold (a coin decides), the last `full`
    run all layers; of a batch smaller than both, at most a fifth and two fifths.
    """
    count = len(real)
    extreme, full = min(extreme, count // 5), min(full, 2 * count // 5)
    exits = torch.where(real, uncertainty.shape[-1], 0)
    for row in range(count - full):
        reach, threshold = (
            reaches[int(random.integers(len(reaches)))],
            thresholds[int(random.integers(len(thresholds)))],
        )
        if row < extreme:
            reach, threshold = (min(reaches), threshold) if random.integers(2) else (reach, max(thresholds))
        one = slice(row, row + 1)
        exits[one] = replay_words(uncertainty[one], real[one], WindowRule(threshold, reach))
    return exits


def random_exits(exits: Tensor, real: Tensor, random: np.random.Generator) -> Tensor:
    """The same exit layers dealt to the words at random: the ablation of self-sampling."""
    dealt = exits.clone()
    dealt[real] = exits[real][torch.from_numpy(random.permutation(int(real.sum())))]
    return dealt


def self_sampling_objective(
    words: WordTable,
    stored: Mapping[str, Tensor],
    *,
    batch_size: int,
    seed: int,
    reaches: Sequence[int],
    thresholds: Sequence[float],
    flooding: bool = True,
    shuffled: bool = False,
    before: int = 0,
    bf16: bool = False,
) -> Objective:
    """Stage 2: words leave as stage 1's confidences say, are frozen, and each exit learns from words still there.

    Args:
        stored: of stage 1 on the same sentences (`stored_exits`); never refreshed.
        reaches, thresholds: windows and thresholds to draw from, those that will be used.
        flooding: push no word's loss below what stage 1 reached: |loss - stage 1's|.
        shuffled: deal the exits at random (the ablation).
        before: steps of stage 1; the sentences go on from there.
    """
    batches = Batches(batch_size=batch_size, seed=seed, lengths=words.table.lengths)
    depth = stored["uncertainty"].shape[-1]

    def batch_at(step: int) -> dict[str, Any]:
        rows = batches.at(before + step)
        batch, random = words.batch(rows), np.random.default_rng([seed, step])
        at, width = torch.from_numpy(rows), batch["real"].shape[1]
        exits = sample_exits(
            stored["uncertainty"][at, :width], batch["real"], random, reaches=reaches, thresholds=thresholds
        )
        if shuffled:
            exits = random_exits(exits, batch["real"], random)
        return {**batch, "exits": exits, "floor": stored["loss"][at, :width]}

    def loss_fn(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
        pieces = layers_of_pieces(batch["exits"], batch["word_of"], batch["mask"], depth)
        with torch.autocast(batch["tokens"].device.type, dtype=torch.bfloat16, enabled=bf16):
            logits = model(batch, pieces)
        losses = word_losses(logits, batch["tags"])
        if flooding:
            losses = (losses - batch["floor"]).abs()
        layer = torch.arange(depth, device=losses.device)
        return depth_weighted(losses, batch["real"], batch["exits"].unsqueeze(-1) > layer)

    return Objective(batch_at, loss_fn)
