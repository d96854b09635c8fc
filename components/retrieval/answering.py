"""Answers with citations from chosen passages: the sentences that answer the parts of a question."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paperflows.components.retrieval.chunking import sentences
from paperflows.components.retrieval.citations import Statement
from paperflows.components.retrieval.support import SupportReader


def answer_from(
    sets: Sequence[tuple[int, Sequence[int]]],
    reader: SupportReader,
    passages: Sequence[dict[str, Any]],
    encode: Callable[[Sequence[str], str], NDArray[np.float32]],
) -> list[list[Statement]]:
    """One statement for each passage that answers a part: its sentence nearest to the part, citing it and the links.

    Where no passage answers anything, the first passage's nearest sentence is said, so that every question gets one.

    Args:
        sets: (question, chosen passages).
        encode: texts and what they are, "query" or "passage" -> unit vectors.
    """
    drafts: list[list[tuple[str, int, tuple[int, ...]]]] = []
    for (number, chosen), reading in zip(sets, reader.read(sets), strict=True):
        said: dict[int, tuple[str, int, tuple[int, ...]]] = {}
        for part in reading.parts:
            for place in reading.answered[part]:
                said.setdefault(place, (part, place, tuple(p for p in reading.links if p != place)))
        if not said and chosen:
            said[chosen[0]] = (reader.question(number), chosen[0], ())
        drafts.append(list(said.values()))
    flat = [draft for some in drafts for draft in some]
    options = [[_shown(passages[place], s) for s in sentences(passages[place]["text"])] for _, place, _ in flat]
    parts = encode([part for part, _, _ in flat], "query")
    lines = encode([line for some in options for line in some], "passage")
    best, start = [], 0
    for some, part in zip(options, parts, strict=True):
        best.append(some[int((lines[start : start + len(some)] @ part).argmax())])
        start += len(some)
    texts = iter(best)
    return [[Statement(next(texts), (place, *links)) for _, place, links in some] for some in drafts]


def _shown(passage: dict[str, Any], sentence: str) -> str:
    return f"{passage['title']}: {sentence}" if passage["title"] else sentence
