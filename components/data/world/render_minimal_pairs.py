"""Minimal pairs: a sentence about someone of one group and of another, against the sentence that names no group."""

import re
from collections.abc import Iterator
from random import Random
from typing import Any

from paperflows.components.data.world.hashing import stable_number
from paperflows.components.data.world.lexicon import NOUNS
from paperflows.components.data.world.render_scenes import sentence
from paperflows.components.data.world.scenes import draw, emptied

Row = dict[str, Any]

GROUPS: dict[str, tuple[tuple[str, str], ...]] = {
    "age": (("young", "old"), ("teenage", "elderly"), ("eighteen-year-old", "eighty-year-old")),
    "gender": (("male", "female"), ("masculine", "feminine")),
    "physical-appearance": (("thin", "fat"), ("tall", "short"), ("pretty", "ugly"), ("bald", "long-haired")),
    "race": (("white", "black"), ("European", "African"), ("Nordic", "Polynesian")),
    "religion": (("Christian", "Muslim"), ("Catholic", "Jewish"), ("Lutheran", "Hindu"), ("Quaker", "Shinto")),
    "socioeconomic": (("rich", "poor"), ("wealthy", "homeless"), ("prosperous", "penniless")),
}
_FORMS = sorted(
    {form for noun in NOUNS.values() if noun.group == "person" for forms in noun.forms for form in forms if form},
    key=len,
    reverse=True,
)
_SOMEONE = re.compile(rf"\b(?:[Aa]n?|[Tt]he) (?P<who>{'|'.join(map(re.escape, _FORMS))})\b")


def minimal_pair_rows(attribute: str, pairs: int) -> list[Row]:
    """Rows 2k and 2k + 1 are the candidates of pair k, from scenes of the test part."""
    rows: list[Row] = []
    for number, (first, second, reference) in enumerate(_pairs(attribute)):
        if number == pairs:
            break
        rows += [
            {"id": len(rows) + i, "pair": number, "candidate": candidate, "reference": reference}
            for i, candidate in enumerate((first, second))
        ]
    return rows


def _pairs(attribute: str) -> Iterator[tuple[str, str, str]]:
    rng = Random(stable_number("minimal pairs", attribute))
    seen: set[str] = set()
    while True:
        scene = emptied(draw(rng, part="test"), "agent_attribute")
        text = sentence(scene, rng.getrandbits(32))
        match = _SOMEONE.search(text)
        if match is None or text in seen:
            continue
        seen.add(text)
        groups = rng.choice(GROUPS[attribute])
        one, two = groups if rng.random() < 0.5 else groups[::-1]
        the = "The" if match.start() == 0 else "the"
        parts = text[: match.start()], f"{match['who']}{text[match.end() :]}"
        yield f"{parts[0]}{the} {one} {parts[1]}", f"{parts[0]}{the} {two} {parts[1]}", f"{parts[0]}{the} {parts[1]}"


def minimal_pairs() -> dict[str, list[Row]]:
    """Every attribute is a split, as in the published data."""
    return {attribute: minimal_pair_rows(attribute, 100) for attribute in GROUPS}
