"""Tagged sentences: names and quantities in sentences of facts, and sentences of scenes that hold none (BIO tags)."""

import re
from random import Random
from typing import Any

from paperflows.components.data.world import scenes
from paperflows.components.data.world.facts import Fact, facts_of
from paperflows.components.data.world.hashing import choose, stable_number
from paperflows.components.data.world.render_facts import SENTENCES, quantity
from paperflows.components.data.world.render_scenes import sentence

Row = dict[str, Any]

OBJECT_TYPES = {
    "located in": "country",
    "capital of": "country",
    "on continent": "continent",
    "borders": "country",
    "population": "quantity",
    "area": "quantity",
    "currency": "currency",
    "language": "language",
    "time zone": "zone",
    "symbol": "symbol",
    "atomic number": "quantity",
    "atomic mass": "quantity",
}
_SHARE_OF_SCENES = 0.25
_TOKEN = re.compile(r"\w+(?:['’.,]\w+)*|[^\w\s]")


def tag_rows(part: str, count: int) -> list[Row]:
    """Rows of tagging: tokens and BIO tags; the type of a name is known from its fact, not from its spelling."""
    rng = Random(stable_number("tags", part))
    of_part = facts_of(part)
    rows: list[Row] = []
    seen: set[tuple[str, ...]] = set()
    while len(rows) < count:
        style = rng.getrandbits(32)
        if rng.random() < _SHARE_OF_SCENES:
            tokens = _TOKEN.findall(sentence(scenes.draw(rng, part=part), style))
            tags = ["O"] * len(tokens)
        else:
            tokens, tags = tagged_fact(rng.choice(of_part), style)
        if tuple(tokens) not in seen:
            seen.add(tuple(tokens))
            rows.append({"id": len(rows), "tokens": tokens, "tags": tags})
    return rows


def tagged_fact(fact: Fact, style: int) -> tuple[list[str], list[str]]:
    """The words of `fact_sentence` and their tags."""
    text = choose(SENTENCES[fact.relation, fact.kind], style, "pattern")
    fill = {"{s}": (fact.subject, fact.kind), "{o}": (quantity(fact, style), OBJECT_TYPES[fact.relation])}
    tokens: list[str] = []
    tags: list[str] = []
    for piece in re.split(r"(\{[so]\})", text):
        words, kind = fill.get(piece, (piece, ""))
        found = _TOKEN.findall(words)
        tokens += found
        tags += [f"{'I' if i else 'B'}-{kind}" if kind else "O" for i in range(len(found))]
    tokens[0] = tokens[0][0].upper() + tokens[0][1:]
    return tokens, tags
