"""Requests to an assistant with the labels that UAR's criteria learn from (section 3.2 of Cheng et al., 2024).

A request is a text of a pool (facts, timed, other), bare or with words around it that ask for a lookup or forbid one.
Those words differ between training and test, and so do the words of negative examples.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

Kind = Literal["facts", "timed", "other"]
Part = Literal["train", "validation", "test", "unseen"]

# part -> wordings; `unseen` shares those of test
ASKING: dict[str, tuple[str, ...]] = {
    "train": (
        "Search the web: {}", "Please look this up for me: {}", "{} Check online before you answer.", "Google this: {}",
        "Use the search tool to answer: {}", "{} Find a source on the internet first.", "Look it up, please. {}",
        "I want you to search for this: {}", "{} Please consult the documents.", "Browse for an answer to this: {}",
    ),
    "validation": ("Run a web search on this: {}", "{} Look into the encyclopedia for it."),
    "test": (
        "Can you go online and find out: {}", "{} Retrieve some references before replying.",
        "Do a quick internet lookup: {}", "{} Base this on what you find on the web.", "Query a search engine for: {}",
        "Dig up some sources on this: {}",
    ),
}  # fmt: skip
FORBIDDING: dict[str, tuple[str, ...]] = {
    "train": (
        "Without searching: {}", "{} There is no need to look it up.", "From memory, please: {}",
        "Do not use the internet. {}", "{} Just tell me what you know.", "Answer in one sentence: {}", "Quickly: {}",
    ),
    "validation": ("Off the top of your head: {}", "{} Leave the web alone."),
    "test": (
        "{} Please do not google it.", "No lookup, just your own words: {}", "{} I do not want any web search.",
        "Be brief. {}", "My friend, a search engineer, asks: {}",
    ),
}  # fmt: skip
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


def dress(items: Mapping[Part, Sequence[Item]], *, asking: float, forbidding: float, seed: int) -> list[dict[str, Any]]:
    """Requests as JSON rows; each item gives one, in an order shuffled by `seed`.

    Final question marks and stops go, so that no pool is told by its punctuation.

    Args:
        asking: share of the items that get words which ask for a lookup.
        forbidding: share that get words which do not.

    Returns:
        Rows with text, part, kind, source, answers, passages and the labels intent, knowledge, time (None: the
        criterion is not asked of it).
    """
    rng = Random(seed)
    rows = []
    for part, some in items.items():
        words = "test" if part == "unseen" else part
        for item in rng.sample(list(some), len(some)):
            bare = item.text.strip().rstrip("?.! ")
            draw = rng.random()
            intent = draw < asking
            text = bare
            if draw < asking + forbidding:
                around = rng.choice((ASKING if intent else FORBIDDING)[words])
                text = around.format(bare + "." if around.startswith("{}") else bare)
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
    half = min([most // 2, *(len(side) * len(by_cell[c]) for side in sides for c in side)])
    rng = Random(seed)
    return sorted(p for side in sides for c in sorted(side) for p in rng.sample(by_cell[c], half // len(side)))
