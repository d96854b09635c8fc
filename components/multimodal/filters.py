"""Which written conversations are kept, why the others are not, and how varied the kept ones are.

Letters: N conversations.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from paperflows.components.multimodal.conversations import Unparsable, parse_marked

REFUSAL = re.compile(r"\b(as an ai|language model|i (cannot|can't|am unable|am sorry)|i'm sorry)\b", re.I)
UNSAFE = re.compile(r"\b(kill|suicide|bomb|weapon|porn|nazi|rape|cocaine|heroin)\w*\b", re.I)
Row = dict[str, Any]
BLOCK = 128  # conversations that are compared with the earlier ones at once


def reject(row: Row, repertoire: Mapping[str, Collection[str]], *, most_words: int) -> str | None:
    """Why a conversation is dropped, None when it is kept.

    Args:
        row: `turns` of {"user", "assistant"} and the scenario's `plan` of [given, wanted] modalities.
        repertoire: descriptions that can be converted, by modality.
    """
    if not row["turns"] or len(row["turns"]) != len(row["plan"]):
        return "another number of turns"
    words = 0
    for turn, (given, wanted) in zip(row["turns"], row["plan"], strict=True):
        for who, planned in (("user", given), ("assistant", wanted)):
            said = turn.get(who)
            if not isinstance(said, str) or not said.strip():
                return "an empty message"
            if REFUSAL.search(said):
                return "a refusal"
            if UNSAFE.search(said):
                return "unsafe words"
            try:
                parts = parse_marked(said)
            except Unparsable:
                return "unparsable marks"
            media = [part for part in parts if part[0] != "text"]
            if [kind for kind, _ in media] != ([] if planned == "text" else [planned]):
                return "other media than planned"
            if any(value not in repertoire[kind] for kind, value in media):
                return "a description that cannot be converted"
            if all(kind != "text" for kind, _ in parts):
                return "no words beside the medium"
            words += sum(len(value.split()) for kind, value in parts if kind == "text")
    return "too long" if words > most_words else None


def texts_of(row: Row) -> str:
    """All a conversation's messages."""
    return " ".join(f"{turn['user']} {turn['assistant']}" for turn in row["turns"])


def near_duplicates(texts: Sequence[str], *, threshold: float) -> list[bool]:
    """For each text whether an earlier one that is kept shares more than `threshold` of its word trigrams (Jaccard).

    What two texts share is counted for a block of texts at a time, so that memory grows with N, not with its square.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    if not texts:
        return []
    counter = CountVectorizer(ngram_range=(3, 3), token_pattern=r"\S+", binary=True, lowercase=True, dtype=np.int32)
    grams = counter.fit_transform(texts)
    sizes = np.diff(grams.indptr)
    kept = np.zeros(len(texts), bool)
    for start in range(0, len(texts), BLOCK):
        shared = grams[start : start + BLOCK] @ grams[: start + BLOCK].T
        for number, (a, b) in enumerate(pairwise(shared.indptr), start):
            others, common = shared.indices[a:b], shared.data[a:b]
            jaccard = common / (sizes[number] + sizes[others] - common)
            kept[number] = not (jaccard[kept[others]] > threshold).any()
    return [not one for one in kept.tolist()]


def distinct(texts: Sequence[str], n: int) -> float:
    """Different word n-grams over all word n-grams (Li et al. 2016)."""
    grams: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        words = text.casefold().split()
        grams.update(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    return len(grams) / max(1, sum(grams.values()))


def combination_counts(rows: Sequence[Row], pairs: Sequence[tuple[str, str]]) -> list[int]:
    """How many turns bring in and ask for each pair of modalities."""
    counts = Counter(tuple(turn) for row in rows for turn in row["plan"])
    return [counts[pair] for pair in pairs]
