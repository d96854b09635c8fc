"""Multi-exit pre-training: masked tokens and sentence order at every layer, in groups of exits taken in turn.

The masked-token head is one shared transform with the word embeddings as decoder (the paper does not say whether it
is shared; one per exit would double the weights); the sentence-order head is one an exit.

Letters: B texts, T tokens, D width, V vocabulary, L layers.
Source: ElasticBERT (Liu et al. 2022), section 4.1 and 4.2; sentence order: ALBERT (Lan et al. 2020), section 3.1.
"""

import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperflows.components.early_exit.encoder import ExitEncoder
from paperflows.components.early_exit.exits import rescale_gradient
from paperflows.components.early_exit.flops import layer_flops

_END = re.compile(r"(?<=[.!?])\s+(?=\S)")


def exit_groups(depth: int, groups: int) -> list[list[int]]:
    """Layers (from 0) of each group: every `groups`-th one, and always the last."""
    return [sorted({*range(start, depth, groups), depth - 1}) for start in range(groups)]


def halves(text: str) -> tuple[str, str] | None:
    """`text` as two consecutive segments, cut at the sentence end nearest its middle, else between words."""
    ends = [match.start() for match in _END.finditer(text)] or [m.start() for m in re.finditer(r"\s+(?=\S)", text)]
    if not ends:
        return None
    cut = min(ends, key=lambda end: abs(end - len(text) / 2))
    return text[:cut], text[cut:].lstrip()


class MultiExitPretrainer(nn.Module):
    """An encoder with the two pre-training heads at its exits."""

    def __init__(self, encoder: ExitEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        words: nn.Embedding = encoder.encoder.get_input_embeddings()
        self.transform = nn.Sequential(nn.Linear(encoder.width, encoder.width), nn.GELU(), nn.LayerNorm(encoder.width))
        self.bias = nn.Parameter(torch.zeros(words.num_embeddings))
        self.order = nn.ModuleList([nn.Linear(encoder.width, 2) for _ in range(encoder.depth)])

    def forward(self, ids: Tensor, mask: Tensor, labels: Tensor, swapped: Tensor, exits: Sequence[int]) -> Tensor:
        """Sum over `exits` (layers from 0) of masked-token and sentence-order loss, gradients in equilibrium.

        Args:
            ids, mask: (B, T) corrupted tokens; labels: (B, T) the true ones, -100 where nothing is predicted.
            swapped: (B,) 1 where the two segments stand in the wrong order.
        """
        chosen = labels != -100
        words: Tensor = self.encoder.encoder.get_input_embeddings().weight
        states, losses = self.encoder.states(ids, mask), []
        hidden = next(states)
        for index in range(self.encoder.depth):
            if index in exits:
                above = len(exits) - list(exits).index(index)
                hidden = rescale_gradient(hidden, 1 / above)
                scores = F.linear(self.transform(hidden[chosen]), words, self.bias)
                losses.append(F.cross_entropy(scores.float(), labels[chosen]))
                losses.append(F.cross_entropy(self.order[index](hidden[:, 0]).float(), swapped))
                hidden = rescale_gradient(hidden, above - 1)
            if index == exits[-1]:
                break
            hidden = states.send(hidden)
        return torch.stack(losses).sum()


def step_flops(
    *, exits: int, depth: int, width: int, inner: int, vocabulary: int, tokens: float, masked: float = 0.15
) -> float:
    """Forward FLOPs a text of one pre-training step with so many exits, by which two objectives get equal compute."""
    body = depth * float(layer_flops(tokens, tokens, width=width, inner=inner))
    head = 2 * masked * tokens * (width**2 + width * vocabulary) + 4 * width
    return body + exits * head
