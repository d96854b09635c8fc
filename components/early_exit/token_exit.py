"""When words leave: by the least certain word of the sentence (SENTEE), or of a window around each word (TOKEE).

Letters: B sentences, W words, T pieces, L layers, C tags.
Source: Li et al. 2021, sections 3.2 and 3.3; the doubling of the threshold in the upper half is in its repository.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperflows.components.early_exit.encoder import ExitEncoder
from paperflows.components.early_exit.layers import attention_bias
from paperflows.components.early_exit.policies import entropy
from paperflows.components.early_exit.words import of_first_pieces, pieces_of

HIGHEST = 0.5  # no threshold above this


@dataclass(frozen=True)
class WindowRule:
    """A word leaves when every word at most `reach` away has an uncertainty below the layer's threshold.

    Args:
        threshold: delta of the lower half of the layers, doubled (up to `HIGHEST`) in the upper half.
        reach: k; the window holds 2k + 1 words.
        over: "active": words that left do not count in a window. "all": they do (as in the repository; their states
            are read by exits whose inputs they no longer resemble, so they look uncertain again).
        sentence: all words leave together, by the least certain word of the sentence (SENTEE).
        mean: with `sentence`, by the mean of its words instead.
        copied: words that left stay keys and values; False takes them away (the ablation).
    """

    threshold: float
    reach: int = 0
    over: Literal["active", "all"] = "active"
    sentence: bool = False
    mean: bool = False
    copied: bool = True

    def at(self, layer: int, depth: int) -> float:
        """Threshold of a layer (from 0)."""
        return self.threshold if self.sentence else layer_threshold(self.threshold, layer, depth)

    def leaving(self, uncertainty: Tensor, real: Tensor, active: Tensor, layer: int, depth: int) -> Tensor:
        """(B, W) words that leave now.

        Args:
            uncertainty: (B, W) in [0, 1]; real: (B, W) words that exist; active: (B, W) words still running.
        """
        if self.sentence:
            worst = of_sentence(uncertainty, real, mean=self.mean).unsqueeze(1)
        else:
            counted = active if self.over == "active" else real
            worst = window_max(uncertainty.masked_fill(~counted, -torch.inf), self.reach)
        return active & (worst < self.at(layer, depth))


def of_sentence(uncertainty: Tensor, real: Tensor, *, mean: bool) -> Tensor:
    """(B,) highest, or mean, uncertainty of a sentence's words, from (B, W)."""
    if mean:
        return (uncertainty * real).sum(1) / real.sum(1).clamp(min=1)
    return uncertainty.masked_fill(~real, -torch.inf).amax(1)


def layer_threshold(delta: float, layer: int, depth: int) -> float:
    """delta in the lower half of the layers, 2 delta in the upper half, at most `HIGHEST`."""
    return min(delta if layer < depth // 2 else 2 * delta, max(HIGHEST, delta))


def window_max(values: Tensor, reach: int) -> Tensor:
    """(B, W) largest value at most `reach` words away; what is not a word must be -inf."""
    return F.max_pool1d(values.unsqueeze(1), 2 * reach + 1, stride=1, padding=reach).squeeze(1) if reach else values


def replay_words(uncertainty: Tensor, real: Tensor, rule: WindowRule) -> Tensor:
    """(B, W) executed layers by `rule` from stored uncertainties (B, W, L), as if leaving changed nothing for others.

    Exact for SENTEE; for TOKEE the self-sampling's approximation. 0 for what is not a word.
    """
    depth = uncertainty.shape[-1]
    exits = torch.where(real, depth, 0)
    active = real.clone()
    for layer in range(depth - 1):
        leave = rule.leaving(uncertainty[..., layer], real, active, layer, depth)
        exits[leave] = layer + 1
        active &= ~leave
    return exits


class MultiExitTagger(nn.Module):
    """An encoder with a linear exit after every layer, read at the first piece of each word."""

    def __init__(self, encoder: ExitEncoder, *, outputs: int, dropout: float = 0.3) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.exits = nn.ModuleList([nn.Linear(encoder.width, outputs) for _ in range(encoder.depth)])

    def exit_logits(self, layer: int, hidden: Tensor, first: Tensor) -> Tensor:
        """(B, W, C) of one exit from states (B, T, D)."""
        return self.exits[layer](self.dropout(of_first_pieces(hidden, first)))

    def forward(self, batch: dict[str, Any], exits: Tensor | None = None) -> list[Tensor]:
        """Logits (B, W, C) of all exits; `exits` (B, T) executed layers of pieces, None runs all in every layer."""
        ids, mask = batch["tokens"], batch["mask"]
        states = self.encoder.states(ids, mask) if exits is None else self.encoder.by_exit_layer(ids, mask, exits)
        return [self.exit_logits(layer, hidden, batch["first"]) for layer, hidden in enumerate(states)]


@torch.inference_mode()
def run_words(
    model: MultiExitTagger, batch: dict[str, Any], rule: WindowRule, *, masked: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Tags (B, W), executed layers of words (B, W), and active pieces a layer (B, L).

    Words that left keep their tag and their state, which others still attend to; a sentence whose words all left is
    dropped with its special tokens. `masked` computes everything and drops nothing: the reference.
    """
    encoder = model.encoder
    mask, real, first, word_of = batch["mask"].bool(), batch["real"], batch["first"], batch["word_of"]
    count, depth = len(mask), encoder.depth
    tags = torch.zeros_like(first)
    exits = torch.zeros_like(first)
    pieces = torch.zeros(count, depth, dtype=torch.long, device=mask.device)
    hidden = state = encoder.embed(batch["tokens"])
    bias, active = attention_bias(mask), real.clone()
    rows = torch.arange(count, device=mask.device)
    for layer in range(depth):
        running = pieces_of(active, word_of, active.any(1)) & mask
        pieces[rows, layer] = running.sum(1)
        step = encoder.masked_step if masked else encoder.step
        whole = not masked and layer == 0
        bias = bias if rule.copied else attention_bias(running)
        hidden, state = step(layer, hidden, state, bias, None if whole else running)  # type: ignore[arg-type]
        logits = model.exit_logits(layer, hidden, first)
        last = layer == depth - 1
        leave = active if last else rule.leaving(entropy(logits), real, active, layer, depth)
        at_row, at_word = leave.nonzero(as_tuple=True)
        tags[rows[at_row], at_word] = logits[at_row, at_word].argmax(-1)
        exits[rows[at_row], at_word] = layer + 1
        active = active & ~leave
        stay = active.any(1).nonzero()[:, 0]
        if not len(stay):
            break
        if not masked and len(stay) < len(active):
            longest, widest = int(mask[stay].sum(1).max()), int(real[stay].long().cumsum(1).argmax(1).max()) + 1
            rows, active, real, first = rows[stay], active[stay, :widest], real[stay, :widest], first[stay, :widest]
            hidden, state, word_of = hidden[stay, :longest], state[stay, :longest], word_of[stay, :longest]
            mask, bias = mask[stay, :longest], bias[stay, :, :, :longest]
    return tags, exits, pieces
