"""Entity F1 from BIO tags: exact span and type, as seqeval's default (conlleval) counts them.

An I- tag that does not continue an entity of its own type starts one.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Span = tuple[int, int, str]


def spans(tags: Sequence[str]) -> set[Span]:
    """(first word, last word, type) of every entity."""
    found: set[Span] = set()
    start, kind = 0, ""
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, own = tag.partition("-")
        if kind and (prefix != "I" or own != kind):
            found.add((start, place - 1, kind))
            kind = ""
        if not kind and prefix in ("B", "I") and own:
            start, kind = place, own
    return found


def from_spans(length: int, entities: Sequence[dict[str, object]]) -> list[str]:
    """BIO tags of entities {start, end (exclusive), type}; where two overlap the first given wins."""
    tags = ["O"] * length
    for entity in entities:
        start, end = int(entity["start"]), int(entity["end"])  # type: ignore[call-overload]
        if all(tag == "O" for tag in tags[start:end]):
            tags[start:end] = [f"B-{entity['type']}", *[f"I-{entity['type']}"] * (end - start - 1)]
    return tags


def entity_counts(gold: Sequence[Sequence[str]], said: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """(N, 3) hits, said and true entities of each sentence; their sums give micro F1."""
    rows = []
    for one, other in zip(gold, said, strict=True):
        a, b = spans(one), spans(other)
        rows.append((len(a & b), len(b), len(a)))
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def word_counts(gold: Sequence[Sequence[str]], said: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """(N, 3) right words, words, words of each sentence: F1 over these sums is plain accuracy."""
    rows = [(sum(x == y for x, y in zip(a, b, strict=True)), len(a), len(a)) for a, b in zip(gold, said, strict=True)]
    return np.array(rows, dtype=np.float64).reshape(-1, 3)
