"""A small model that answers from memory, so that "does this model know it?" has an answer.

A memory over a frozen encoder's states, trained to name the answers of the questions it has read.
Letters: N questions, B batch, D width, H hidden, A answers.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class ClosedBook(nn.Module):
    """Answers among those it has read.

    Args:
        width: of the encoder's states (D).
        hidden: units of the memory (H).
        answers: answers it can name (A).
    """

    def __init__(self, width: int, hidden: int, answers: int) -> None:
        super().__init__()
        self.memory = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.name = nn.Linear(width, answers)

    def forward(self, encoded: Tensor) -> Tensor:
        """(B, D) states of the encoder -> (B, A) logits of the answers."""
        return self.name(encoded + self.memory(encoded))


def choose_read(encoded: NDArray[np.float32], *, topics: int, share: float, seed: int) -> NDArray[np.bool_]:
    """(N,) which questions a model gets to read: nearly all of some topics and few of the others.

    A model's training text covers some fields well and others badly; topics are clusters of the questions' states.

    Args:
        topics: clusters.
        share: of the topics that are covered; 19 in 20 of their questions are read, and 1 in 20 of the others'.
    """
    from sklearn.cluster import KMeans

    topics = min(topics, len(encoded))
    cluster = KMeans(topics, n_init=1, random_state=seed).fit_predict(encoded)
    random = np.random.default_rng(seed)
    covered = random.permutation(topics) < round(share * topics)
    return random.random(len(encoded)) < np.where(covered[cluster], 0.95, 0.05)


def fold(text: str) -> str:
    """An answer without case, articles and punctuation, for comparing."""
    words = "".join(c if c.isalnum() else " " for c in text.casefold()).split()
    return " ".join(word for word in words if word not in ("a", "an", "the"))


def holds_answer(text: str, answers: Sequence[str]) -> bool:
    """Whether any of the answers stands in the text, as whole words."""
    folded = f" {_words(text)} "  # with its articles: "... in Mexico. The city of ..." does not say Mexico City
    return any(f" {said} " in folded for answer in answers if (said := _words(answer, bare=True)))


def _words(text: str, *, bare: bool = False) -> str:
    """Words without case and punctuation; `bare`: without an article in front."""
    words = "".join(c if c.isalnum() else " " for c in text.casefold()).split()
    return " ".join(words[1:] if bare and len(words) > 1 and words[0] in ("a", "an", "the") else words)


@torch.inference_mode()
def recite(model: ClosedBook, encoded: Tensor) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Numbers of the likeliest answers (N,) to encoded questions (N, D), and their probabilities (N,)."""
    model.eval()
    probability, answer = model(encoded).softmax(-1).max(-1)
    return answer.numpy(), probability.numpy()
