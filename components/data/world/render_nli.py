"""Premises with one hypothesis of each label: entailment, neutral, contradiction.

As in picture captions, premise and hypothesis speak of the same event, so another place, number or object contradicts.
"""

from dataclasses import replace
from random import Random
from typing import Any

from paperflows.components.data.world import scenes
from paperflows.components.data.world.facts import Fact, facts_like, facts_of
from paperflows.components.data.world.hashing import choose, part_of, stable_number
from paperflows.components.data.world.lexicon import PLACES
from paperflows.components.data.world.render_facts import fact_sentence, rounded
from paperflows.components.data.world.render_scenes import sentence
from paperflows.components.data.world.scenes import Change, Scene

Row = dict[str, Any]
LABELS = ("entailment", "neutral", "contradiction")

_SEX = {"man": "woman", "woman": "man", "boy": "girl", "girl": "boy", "grandmother": "grandfather"}
_TRADES = ("farmer", "doctor", "teacher", "soldier", "artist", "nurse", "athlete", "lawyer", "mechanic", "tourist")


def other_being(scene: Scene, rng: Random) -> Scene | None:
    """Someone whom the agent cannot be at the same time."""
    if scenes.noun(scene.agent).group == "animal":
        return scenes.other_agent(scene, rng)
    return scene.but(agent=_SEX[scene.agent]) if scene.agent in _SEX else None


def trade(scene: Scene, rng: Random) -> Scene | None:
    """Someone whom the agent may well be."""
    if scene.agent not in ("man", "woman") or scene.agent_attribute in ("tall", "short"):
        return None
    found = scene.but(agent=rng.choice(_TRADES))
    return found if found.object != found.agent else None


def add_after_denial(scene: Scene, rng: Random) -> Scene | None:
    """What is denied of all is denied of some: one more condition on object, place or time."""
    slot = rng.choice(("object_attribute", "place", "time"))
    return scenes.fill(scene, slot, rng) if not getattr(scene, slot) else None


def drop_after_denial(scene: Scene, rng: Random) -> Scene | None:
    """What is denied under a condition may be so without it."""
    slots = [slot for slot in ("object_attribute", "place", "time") if getattr(scene, slot)]
    return scenes.emptied(scene, rng.choice(slots)) if slots else None


def same(scene: Scene, rng: Random) -> Scene:
    """In other words."""
    return scene


AFFIRMED: dict[str, tuple[Change, ...]] = {
    "entailment": (
        same,
        scenes.drop,
        scenes.generalise,
        scenes.combine(scenes.drop, scenes.generalise),
        scenes.combine(scenes.drop, scenes.drop),
    ),
    "neutral": (
        scenes.add,
        scenes.combine(scenes.add, scenes.generalise),
        scenes.combine(scenes.drop, scenes.add),
        trade,
    ),
    "contradiction": (
        scenes.negate,
        scenes.combine(scenes.drop, scenes.negate),
        scenes.other_place,
        scenes.other_time,
        scenes.other_attribute,
        scenes.other_attribute,
        scenes.other_count,
        scenes.other_object,
        scenes.opposite_action,
        scenes.opposite_action,
        other_being,
    ),
}
DENIED: dict[str, tuple[Change, ...]] = {
    "entailment": (same, add_after_denial),
    "neutral": (drop_after_denial, trade),
    "contradiction": (scenes.negate, scenes.combine(scenes.negate, scenes.generalise)),
}


def nli_rows(part: str, premises: int) -> list[Row]:
    """Three rows a premise: text (premise), text_pair (hypothesis), label."""
    rng = Random(stable_number("nli", part))
    cities = [fact for fact in facts_of(part) if fact.kind == "city"]
    cities = [fact for fact in cities if fact.relation in ("population", "located in")]
    rows: list[Row] = []
    seen: set[str] = set()
    while len(rows) < 3 * premises:
        kind = rng.random()
        style = rng.getrandbits(32)
        if kind < 0.2:
            premise, hypotheses = _about_city(rng.choice(cities), part, style)
        elif kind < 0.35:
            premise, hypotheses = _about_place(scenes.draw(rng, part=part), style, rng)
        else:
            premise, hypotheses = _about_scene(scenes.draw(rng, part=part), part, style, rng)
        if premise in seen or len({premise, *hypotheses}) < 4:
            continue
        seen.add(premise)
        for label, hypothesis in zip(LABELS, hypotheses, strict=True):
            rows.append({"id": len(rows), "text": premise, "text_pair": hypothesis, "label": label})
    return rows


def _about_scene(scene: Scene, part: str, style: int, rng: Random) -> tuple[str, list[str]]:
    table = AFFIRMED
    if rng.random() < 0.2:
        scene, table = scene.but(count=1, negated=True), DENIED
    hypotheses = []
    for label in LABELS:
        for _ in range(30):
            changed = rng.choice(table[label])(scene, rng)
            if changed is None or part_of(changed.key) != part:
                continue
            if label != "neutral" or scene.negated or _open_question(scene, changed):
                other = style if label != "entailment" and rng.random() < 0.5 else rng.getrandbits(32)
                hypotheses.append(sentence(changed, other))
                break
    return sentence(scene, style), hypotheses


def _open_question(scene: Scene, changed: Scene) -> bool:
    """Whether an affirmed hypothesis says more than the premise, and nothing against it."""
    slots = ("agent_attribute", "object_attribute", "place", "time")
    said = [(getattr(scene, slot), getattr(changed, slot)) for slot in slots]
    against = any(before and after and before != after for before, after in said)
    more = (changed.agent != scene.agent and changed.agent in _TRADES) or any(
        after and not before for before, after in said
    )
    return more and not against


def _about_place(scene: Scene, style: int, rng: Random) -> tuple[str, list[str]]:
    """`..., but not in the kitchen`: denial that is entailed, open or contradicted, so that "not" tells nothing."""
    if not scene.place:
        return sentence(scene, style), []
    slots = [slot for slot in ("agent_attribute", "object_attribute") if not getattr(scene, slot)]
    more = scenes.fill(scene, rng.choice(slots), rng) if slots else None
    elsewhere = scenes.other_place(scene, rng)
    if more is None or elsewhere is None:
        return sentence(scene, style), []

    def but_not(what: Scene, place: str) -> str:
        said = sentence(what.but(place="", time=""), rng.getrandbits(32)).removesuffix(".")
        return f"{said}, but not {choose(PLACES[place].forms, style, place)}."

    hypotheses = [but_not(scene, elsewhere.place), but_not(more, elsewhere.place), but_not(scene, scene.place)]
    return sentence(scene, style), hypotheses


def _about_city(fact: Fact, part: str, style: int) -> tuple[str, list[str]]:
    premise = fact_sentence(fact, style)
    city = fact.subject
    if isinstance(fact.object, str):
        others = [one.object for one in facts_like("located in", part) if one.object != fact.object]
        wrong = replace(fact, object=choose(sorted(set(others), key=str), style, "wrong country"))
        neutral = (
            f"{city} is the largest city in {fact.object}.",
            f"{city} is the oldest city in {fact.object}.",
            f"Many tourists visit {city} in {fact.object} every year.",
            f"{city} in {fact.object} has more than a million inhabitants.",
        )
        return premise, [
            fact_sentence(fact, style + 1),
            choose(neutral, style, "neutral"),
            fact_sentence(wrong, style + 2),
        ]
    low, high = rounded(fact.object * 0.6), rounded(fact.object * 1.7)
    entailed = (
        f"More than {low} people live in {city}.",
        f"{city} has fewer than {high} inhabitants.",
        f"Over {low} people have their home in the city of {city}.",
    )
    neutral = (
        f"More than {low} people in {city} own a car.",
        f"{city} has fewer than {high} schools and shops.",
        f"The city of {city} had fewer inhabitants ten years ago.",
        f"Over {low} tourists visit {city} every year.",
    )
    contradicted = (
        f"More than {high} people live in {city}.",
        f"{city} has fewer than {low} inhabitants.",
        f"Over {high} people have their home in the city of {city}.",
    )
    return premise, [choose(options, style, "claim") for options in (entailed, neutral, contradicted)]
