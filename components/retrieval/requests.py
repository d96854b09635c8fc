"""Requests to an assistant with the labels that UAR's criteria learn from (section 3.2 of Cheng et al., 2024).

A request is a text of a pool (facts, timed, other), bare or with words around it that ask for a lookup or only speak
of where one looks. Those words differ between training and test, and so do the words of negative examples.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

Kind = Literal["facts", "timed", "other"]
Part = Literal["train", "validation", "test", "unseen"]

# part -> (frames, places); `unseen` shares those of test
_ASKING = {
    "train": (
        (
            "Search {} for this: |", "Look this up in {}: |", "| Check {} before you answer.",
            "Use {} to answer this: |",
            "| Find a source in {} first.", "Please consult {}. |", "Go through {} and tell me: |",
            "| Look into {} for it.",
            "I want you to search {}. |", "Browse {} for an answer to this: |", "| Answer with the help of {}.",
        ),
        ("the web", "the internet", "Wikipedia", "the documents", "Google", "the archive"),
    ),
    "validation": (("Run a search in {} on this: |", "| Verify it with {}."), ("the library", "the web")),
    "test": (
        (
            "Can you go to {} and find out: |", "| Retrieve some references from {} before replying.",
            "Do a quick lookup in {}: |", "| Base this on what you find in {}.", "Query {} for this: |",
            "Dig up something on this from {}: |", "| Do some research in {}.",
        ),
        ("online sources", "a search engine", "the encyclopedia", "the knowledge base", "news sites"),
    ),
}  # fmt: skip
# they speak of the same places, and neither ask for a lookup nor forbid one: whoever forbids one must get his way
_MENTIONING = {
    "train": (
        (
            "I am writing about {}. |", "My sister, who works for {}, asks: |", "| Put it in plain words.",
            "We spoke of {} at lunch. |", "Answer in one sentence: |", "Quickly: |",
            "| I have read enough of {} for today.", "After a day with {} I wonder: |",
            "| That is for a talk about {}.",
        ),
        ("the web", "the internet", "Wikipedia", "the documents", "Google", "the archive"),
    ),
    "validation": (("Here is a thought: |", "| It came up in {}."), ("the library", "the web")),
    "test": (
        (
            "Be brief. |", "My friend, who helps to run {}, asks: |", "| Explain it simply.",
            "I gave a lecture on {} this morning. |", "| A colleague at {} brought that up.",
        ),
        ("online sources", "a search engine", "the encyclopedia", "the knowledge base", "news sites"),
    ),
}  # fmt: skip


def wordings(kind: Literal["asking", "mentioning"], part: str) -> list[str]:
    """Words to put around a text, which stands at `|`; those of one part are not those of another."""
    frames, places = (_ASKING if kind == "asking" else _MENTIONING)[part]
    return [frame.format(place) for frame in frames for place in (places if "{}" in frame else places[:1])]


_OF_TODAY = re.compile(
    r"\b(now|current\w*|today\w*|latest|last|recent\w*|next|new|newest|this (?:year|season|month)|20[012]\d|still)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Item:
    """A text before words are put around it.

    Attributes:
        source: name of the pool it comes from.
        answers: accepted ones, for facts.
        passages: ids of those that hold the answer, where there are any.
    """

    text: str
    kind: Kind
    source: str
    answers: tuple[str, ...] = ()
    passages: tuple[str, ...] = ()


def is_static(question: str) -> bool:
    """Whether no word of a factual question points to the present or to recent years."""
    return not _OF_TODAY.search(question)


def undotted(text: str) -> str:
    """A request without the punctuation and space at its end."""
    return text.strip().rstrip("?.! ")


def dress(items: Mapping[Part, Sequence[Item]], *, asking: float, mentioning: float, seed: int) -> list[dict[str, Any]]:
    """Requests as JSON rows; each item gives one, in an order shuffled by `seed`.

    Final question marks and stops go, so that no pool is told by its punctuation.

    Args:
        asking: share of the items that get words which ask for a lookup.
        mentioning: share that get words which do not, and speak of the same places.

    Returns:
        Rows with text, part, kind, source, answers, passages and the labels intent, knowledge, time (None: the
        criterion is not asked of it).
    """
    rng = Random(seed)
    rows = []
    for part, some in items.items():
        words = "test" if part == "unseen" else part
        for item in rng.sample(list(some), len(some)):
            bare = undotted(item.text)
            draw = rng.random()
            intent = draw < asking
            text = bare
            if draw < asking + mentioning:
                around = rng.choice(wordings("asking" if intent else "mentioning", words))
                text = around.replace("|", bare + "." if around.startswith("|") else bare)
            rows.append(
                {
                    "text": text.rstrip("."),
                    "bare": bare,
                    "part": part,
                    "kind": item.kind,
                    "source": item.source,
                    "answers": list(item.answers),
                    "passages": list(item.passages),
                    "intent": intent,
                    "knowledge": item.kind != "other",
                    "time": None if item.kind == "other" else item.kind == "timed",
                }
            )
    return rows


def cell_of(row: Mapping[str, Any], known: bool) -> str:
    """Which of the five cells of the balanced mix a request is in: asked, other, timed, known or unknown."""
    if row["intent"]:
        return "asked"
    if row["kind"] != "facts":
        return str(row["kind"])
    return "known" if known else "unknown"


SHOULD_RETRIEVE = {"asked": True, "timed": True, "unknown": True, "other": False, "known": False}


def balanced(cells: Sequence[str], *, most: int, seed: int) -> list[int]:
    """Places of a mix in which half of the requests want a retrieval and cells of one side are equally frequent.

    Cells that do not occur are left out; the smallest one bounds the size, and so does `most`.
    """
    by_cell: dict[str, list[int]] = {}
    for place, cell in enumerate(cells):
        by_cell.setdefault(cell, []).append(place)
    sides = [[c for c in by_cell if SHOULD_RETRIEVE[c] is wanted] for wanted in (True, False)]
    if not all(sides):
        return []
    unit = math.lcm(*map(len, sides))
    half = min([most // 2, *(len(side) * len(by_cell[c]) for side in sides for c in side)]) // unit * unit
    rng = Random(seed)
    return sorted(p for side in sides for c in sorted(side) for p in rng.sample(by_cell[c], half // len(side)))
