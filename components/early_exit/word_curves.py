"""Points of quality and cost of taggers: static depths, SENTEE and TOKEE, run for real where leaving changes others.

Letters: N sentences, W words, L layers, P points, D width, C tags.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paperflows.components.early_exit.curves import Curve
from paperflows.components.early_exit.flops import layer_flops, token_flops
from paperflows.components.early_exit.self_sampling import random_exits
from paperflows.components.early_exit.token_exit import (
    MultiExitTagger,
    WindowRule,
    of_sentence,
    replay_words,
    run_words,
)
from paperflows.components.early_exit.words import WordTable, layers_of_pieces
from paperflows.components.evaluation.entities import entity_counts, word_counts
from paperflows.components.training.batching import token_budget_batches

Array = NDArray[np.float64]
Count = Callable[[Sequence[Sequence[str]], Sequence[Sequence[str]]], Array]


def counting(labels: Sequence[str]) -> Count:
    """Entity counts where the tags are BIO, else right words (part of speech)."""
    bio = all(tag == "O" or (tag[:2] in ("B-", "I-") and len(tag) > 2) for tag in labels)
    return entity_counts if bio and "O" in labels else word_counts


def head_flops(words: Array, *, width: int, outputs: int) -> Array:
    """FLOPs of one exit on so many words."""
    return 2.0 * words * width * outputs


def full_flops(words: WordTable, *, depth: int, width: int, inner: int) -> Array:
    """(N,) FLOPs of the first `depth` layers and one exit."""
    lengths, counts = words.table.lengths, words.word_lengths.astype(np.float64)
    body = depth * layer_flops(lengths, lengths, width=width, inner=inner)
    return body + head_flops(counts, width=width, outputs=len(words.labels))


def static_words(said: Tensor, words: WordTable, *, full_depth: int, width: int, inner: int, fallback: int) -> Curve:
    """Every exit as the model's end, from stored tags (N, W, L)."""
    rows, count = np.arange(len(words.table)), counting(words.labels)
    real = _real(words)
    whole = full_flops(words, depth=full_depth, width=width, inner=inner).mean()
    costs, columns = [], []
    for depth in range(1, said.shape[-1] + 1):
        costs.append(full_flops(words, depth=depth, width=width, inner=inner).mean() / whole)
        tags = words.said(rows, said[..., depth - 1], real, fallback)
        columns.append(count(words.gold, tags))
    return Curve(np.array(costs), np.stack(columns), tuple(float(n) for n in range(1, said.shape[-1] + 1)))


def replay_sentences(
    stored: Mapping[str, Tensor], words: WordTable, rules: Sequence[WindowRule], *, width: int, inner: int,
    fallback: int,
) -> Curve:  # fmt: skip
    """One point a rule of SENTEE, from stored exits: exact, since a sentence that leaves changes no other.

    Args:
        stored: uncertainty and said (N, W, L), of `stored_exits`.
    """
    rows, count, real = np.arange(len(words.table)), counting(words.labels), _real(words)
    depth, sizes = stored["said"].shape[-1], {"width": width, "inner": inner}
    by_layer = np.stack(
        [count(words.gold, words.said(rows, stored["said"][..., n], real, fallback)) for n in range(depth)]
    )
    head = head_flops(words.word_lengths.astype(np.float64), width=width, outputs=len(words.labels))
    flops = np.stack([full_flops(words, depth=n + 1, **sizes) + n * head for n in range(depth)])
    whole = full_flops(words, depth=depth, **sizes).mean()
    exits = [replay_words(stored["uncertainty"], real, rule).amax(1).clamp(min=1).numpy() - 1 for rule in rules]
    costs = np.array([flops[at, rows].mean() / whole for at in exits])
    return Curve(costs, np.stack([by_layer[at, rows] for at in exits]), tuple(rule.threshold for rule in rules))


def sentence_rules(stored: Mapping[str, Tensor], words: WordTable, *, mean: bool, count: int = 100) -> list[WindowRule]:
    """SENTEE at thresholds that are quantiles of what sentences' uncertainties are at all exits."""
    real = _real(words)
    seen = torch.stack([of_sentence(one, real, mean=mean) for one in stored["uncertainty"].unbind(-1)])
    thresholds = np.quantile(seen.numpy(), np.linspace(0.005, 0.995, count))
    return [WindowRule(float(one), sentence=True, mean=mean) for one in dict.fromkeys(thresholds)]


def sweep_words(
    model: MultiExitTagger,
    words: WordTable,
    rules: Sequence[WindowRule],
    *,
    fallback: int,
    control: int | None = None,
    bf16: bool = False,
) -> Curve:
    """One point a rule, by real runs.

    Args:
        control: deal each batch's exit layers to its words at random, by this seed.
    """
    device, count = next(model.parameters()).device, counting(words.labels)
    batches = token_budget_batches(words.table.lengths, budget=4096)
    sizes: dict[str, Any] = {"width": model.encoder.width, "inner": model.encoder.inner}
    whole = full_flops(words, depth=model.encoder.depth, **sizes).mean()
    costs, columns = [], []
    for rule in rules:
        flops = np.zeros(len(words.table))
        said: list[list[str]] = [[] for _ in range(len(words.table))]
        for number, rows in enumerate(batches):
            batch = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in words.batch(rows).items()}
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                tags, exits, pieces = run_words(model, batch, rule)
                if control is not None:
                    random = np.random.default_rng([control, number])
                    tags, pieces = run_given(model, batch, random_exits(exits.cpu(), batch["real"].cpu(), random))
            for row, told in zip(rows, words.said(rows, tags, batch["real"], fallback), strict=True):
                said[row] = told
            flops[rows] = word_flops(pieces, batch, words, rows, copied=rule.copied, **sizes)
        costs.append(flops.mean() / whole)
        columns.append(count(words.gold, said))
    return Curve(np.array(costs), np.stack(columns), tuple(rule.threshold for rule in rules))


@torch.inference_mode()
def run_given(model: MultiExitTagger, batch: dict[str, Any], exits: Tensor) -> tuple[Tensor, Tensor]:
    """Tags (B, W) and active pieces a layer (B, L) when words leave after given layers (B, W)."""
    depth = model.encoder.depth
    exits = exits.to(batch["real"].device)
    by_piece = layers_of_pieces(exits, batch["word_of"], batch["mask"], depth)
    inside = torch.where(batch["real"], exits, 0).amax(1, keepdim=True)  # special tokens run as long as any word
    by_piece = torch.minimum(by_piece, inside)
    logits = torch.stack(model(batch, by_piece), 2)
    at = (exits.clamp(min=1) - 1)[..., None, None].expand(-1, -1, 1, logits.shape[-1])
    pieces = torch.stack([(by_piece > layer).sum(1) for layer in range(depth)], 1)
    return logits.gather(2, at)[:, :, 0].argmax(-1), pieces


def word_flops(
    pieces: Tensor, batch: dict[str, Any], words: WordTable, rows: NDArray[np.int64], *, width: int, inner: int,
    copied: bool = True,
) -> Array:  # fmt: skip
    """(B,) FLOPs of a run: layers on active pieces, and in every layer that runs the exit on all words.

    Args:
        copied: all pieces have keys and values, those that left too; False: the active ones alone.
    """
    active = pieces.cpu().numpy()
    counts = batch["real"].sum(1).cpu().numpy().astype(np.float64)
    heads = (active > 0).sum(1) * head_flops(counts, width=width, outputs=len(words.labels))
    if copied:
        return token_flops(active, words.table.lengths[rows], width=width, inner=inner) + heads
    return layer_flops(active, active, width=width, inner=inner).sum(1) + heads


def _real(words: WordTable) -> Tensor:
    real = torch.zeros(len(words.table), int(words.word_lengths.max()), dtype=torch.bool)
    for row, pieces in enumerate(words.words):
        real[row, [w for w in set(pieces) if w >= 0]] = True
    return real
