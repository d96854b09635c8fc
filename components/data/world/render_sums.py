"""Sums over real numbers, and scenes told in several ways."""

from random import Random
from typing import Any

from paperflows.components.data.world.facts import facts
from paperflows.components.data.world.hashing import part_of, stable_number
from paperflows.components.data.world.render_scenes import sentence
from paperflows.components.data.world.scenes import draw

Row = dict[str, Any]
TELLINGS = 5


def sum_rows(part: str, count: int) -> list[Row]:
    """Rows of reasoning: two elements, and the sum or the difference of their atomic numbers."""
    rng = Random(stable_number("sums", part))
    numbers = {fact.subject: int(fact.object) for fact in facts() if fact.relation == "atomic number"}
    names = sorted(numbers)
    found: dict[str, Row] = {}
    while len(found) < count:
        first, second = rng.sample(names, 2)
        more, less = max(numbers[first], numbers[second]), min(numbers[first], numbers[second])
        sign = rng.choice("+-")
        terms, value = f"{more}{sign}{less}", more + less if sign == "+" else more - less
        if terms in found or part_of(terms) != part:
            continue
        what = "add up to" if sign == "+" else "differ by"
        found[terms] = {
            "id": len(found),
            "question": f"What do the atomic numbers of {first} and {second} {what}?",
            "solution": f"They are {numbers[first]} and {numbers[second]}: <<{terms}={value}>>{value}.",
            "answer": str(value),
        }
    return list(found.values())


def telling_rows(part: str, count: int) -> list[Row]:
    """Rows of paraphrase sets: one scene in five different wordings."""
    rng = Random(stable_number("tellings", part))
    rows: list[Row] = []
    while len(rows) < count:
        scene = draw(rng, part=part)
        told = {sentence(scene, rng.getrandbits(32)): None for _ in range(3 * TELLINGS)}
        if len(told) >= TELLINGS:
            rows.append({"id": len(rows), "captions": list(told)[:TELLINGS]})
    return rows
