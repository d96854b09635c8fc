"""Sentences as words, words as pieces. Letters: N words, T pieces."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paperflows.components.models.word_pieces import reads_words

_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


@dataclass(frozen=True)
class Aspect:
    """One aspect of a sentence.

    Args:
        words: of the sentence.
        inside: (N,) bool, the words of the aspect.
        label: its sentiment.
        sentence: the text, by which examples of one sentence are recognised.
    """

    words: tuple[str, ...]
    inside: NDArray[np.bool_]
    label: str
    sentence: str


def split_words(text: str) -> list[tuple[str, int, int]]:
    """(word, start, end) of each word or punctuation mark."""
    return [(m.group(), m.start(), m.end()) for m in _WORD.finditer(text)]


def aspect_of(row: dict[str, Any]) -> Aspect | None:
    """An aspect sentiment row as words; None when no word lies in its span (an aspect of spaces or odd signs)."""
    words = split_words(row["text"])
    inside = np.array([start < row["to"] and end > row["from"] for _, start, end in words], dtype=bool)
    if not inside.any():
        return None
    return Aspect(tuple(word for word, _, _ in words), inside, str(row["label"]), row["text"])


def pieces_of(tokenizer: Any, sentences: Sequence[Sequence[str]]) -> list[tuple[list[int], NDArray[np.int64]]]:
    """Token ids with special tokens, and the word (T,) of each, -1 for special tokens.

    A word that the tokenizer drops altogether keeps a place by an unknown token, so that all words have pieces.
    """
    found = reads_words(tokenizer)([list(s) for s in sentences], is_split_into_words=True, return_attention_mask=False)
    out = []
    for i, words in enumerate(sentences):
        ids, owner = list(found["input_ids"][i]), [-1 if w is None else w for w in found.word_ids(i)]
        for missing in sorted(set(range(len(words))) - set(owner)):
            place = next((k for k, w in enumerate(owner) if w > missing), len(owner) - 1)
            ids.insert(place, tokenizer.unk_token_id)
            owner.insert(place, missing)
        out.append((ids, np.array(owner)))
    return out


def pooling_matrix(owner: NDArray[np.int64], n: int) -> NDArray[np.float32]:
    """(N, T) that averages the pieces of each word."""
    matrix = (owner[None, :] == np.arange(n)[:, None]).astype(np.float32)
    return matrix / matrix.sum(1, keepdims=True)


@cache
def sentiment_words() -> frozenset[str]:
    """Single words with a valence in the VADER lexicon (Hutto and Gilbert 2014), as its package carries it."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return frozenset(word for word, value in SentimentIntensityAnalyzer().lexicon.items() if word.isalpha() and value)
