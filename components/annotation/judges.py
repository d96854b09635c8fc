"""Pair judges: they say how similar two sentences are, in [0, 1]."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Judgement:
    """A similarity in [0, 1], or None where the judge gave none that can be read, and its explanation."""

    score: float | None
    explanation: str = ""


class PairJudge(Protocol):
    """Scores pairs of sentences."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Judgement]:
        """One judgement a pair, in order."""
        ...


class EncoderJudge:
    """The cosine of a pretrained sentence encoder, negative values as 0.

    Args:
        embed: texts -> (N, D) embeddings; called once a batch of pairs with all their texts.
    """

    def __init__(self, embed: Callable[[Sequence[str]], Tensor]) -> None:
        self._embed = embed

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Judgement]:
        """As in `PairJudge`."""
        if not pairs:
            return []
        vectors = F.normalize(self._embed([a for a, _ in pairs] + [b for _, b in pairs]), dim=-1)
        cosines = (vectors[: len(pairs)] * vectors[len(pairs) :]).sum(-1)
        return [Judgement(score) for score in torch.clamp(cosines, 0.0, 1.0).tolist()]
