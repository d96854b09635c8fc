"""Plain sentences of scenes and facts, and facts as a knowledge graph."""

from random import Random
from typing import Any

from paperflows.components.data.world.facts import Fact, facts, facts_of, is_number
from paperflows.components.data.world.hashing import stable_number
from paperflows.components.data.world.render_facts import fact_sentence
from paperflows.components.data.world.render_scenes import sentence
from paperflows.components.data.world.scenes import draw, negate

Row = dict[str, Any]

_KIND_OF_OBJECT = {
    "located in": "country",
    "capital of": "country",
    "on continent": "continent",
    "borders": "country",
    "currency": "currency",
    "language": "language",
    "time zone": "time zone",
}


def text_rows(part: str, count: int) -> list[Row]:
    """Different sentences: two in three are scenes, the others facts."""
    rng = Random(stable_number("text", part))
    of_part = facts_of(part)
    found: dict[str, None] = {}
    while len(found) < count:
        style = rng.getrandbits(32)
        if rng.random() < 1 / 3:
            found[fact_sentence(rng.choice(of_part), style)] = None
        else:
            scene = draw(rng, part=part)
            denied = negate(scene, rng) if rng.random() < 0.05 else None
            found[sentence(denied or scene, style)] = None
    return [{"text": text} for text in found]


def triple_rows() -> dict[str, list[Row]]:
    """Facts between entities as head, relation, tail; validation and test only link entities that train knows."""
    between = [fact for fact in facts() if not is_number(fact) and fact.relation in _KIND_OF_OBJECT]
    wanted = [stable_number("triple", *_ends(fact), fact.relation) % 10 for fact in between]
    known = {end for fact, number in zip(between, wanted, strict=True) if number > 1 for end in _ends(fact)}
    splits: dict[str, list[Row]] = {"entities": [], "test": [], "train": [], "validation": []}
    entities: dict[str, Row] = {}
    for fact, number in zip(between, wanted, strict=True):
        head, tail = _ends(fact)
        split = {0: "test", 1: "validation"}.get(number, "train") if {head, tail} <= known else "train"
        splits[split].append({"head": head, "relation": fact.relation.replace(" ", "_"), "tail": tail})
        for end, kind in ((head, fact.kind), (tail, _KIND_OF_OBJECT[fact.relation])):
            entities[end] = {"id": end, "name": end.partition(":")[2], "description": kind}
    splits["entities"] = [entities[key] for key in sorted(entities)]
    return splits


def _ends(fact: Fact) -> tuple[str, str]:
    kind = _KIND_OF_OBJECT[fact.relation].replace(" ", "_")
    return f"{fact.kind}:{fact.subject}", f"{kind}:{fact.object}"
