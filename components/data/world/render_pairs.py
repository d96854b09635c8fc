"""Sentence pairs of known similarity, made by changing the meaning of one sentence step by step."""

from collections.abc import Iterator
from random import Random
from typing import Any, TypeAlias

from paperflows.components.data.world import scenes
from paperflows.components.data.world.facts import Fact, facts_by_subject, facts_like, facts_of
from paperflows.components.data.world.hashing import part_of, stable_number
from paperflows.components.data.world.lexicon import VERBS
from paperflows.components.data.world.meaning import HIGHEST, score
from paperflows.components.data.world.render_facts import fact_sentence
from paperflows.components.data.world.render_scenes import sentence
from paperflows.components.data.world.scenes import Change, Scene

Row = dict[str, Any]
Meaning: TypeAlias = Scene | Fact

# (change, how often, share of pairs whose two sentences keep pattern and synonyms)
# The share is high where the change is large: few words then tell what many words in common hide.
STS_CHANGES: tuple[tuple[Change | None, int, float], ...] = (
    (None, 10, 0.0),
    (scenes.drop, 5, 0.15),
    (scenes.generalise, 4, 0.2),
    (scenes.combine(scenes.drop, scenes.drop), 3, 0.2),
    (scenes.combine(scenes.drop, scenes.add), 3, 0.3),
    (scenes.other_attribute, 4, 0.7),
    (scenes.other_count, 2, 0.7),
    (scenes.other_place, 3, 0.6),
    (scenes.other_agent, 4, 0.5),
    (scenes.other_object, 4, 0.5),
    (scenes.other_action, 5, 0.7),
    (scenes.combine(scenes.other_agent, scenes.other_place), 3, 0.6),
    (scenes.combine(scenes.other_object, scenes.other_attribute), 3, 0.6),
    (scenes.negate, 4, 0.8),
    (scenes.combine(scenes.negate, scenes.other_object), 3, 0.8),
    (scenes.swap_roles, 4, 0.9),
    (scenes.combine(scenes.other_agent, scenes.other_object), 5, 0.8),
    (scenes.combine(scenes.other_action, scenes.other_object), 4, 0.8),
    (scenes.combine(scenes.other_agent, scenes.other_action, scenes.other_place), 4, 0.8),
    (scenes.unrelated, 10, 0.9),
)
_SHARE_OF_FACTS = 0.2
# actions whose agent and object could change places
_BETWEEN_EQUALS = tuple(verb.key for verb in VERBS.values() if set(verb.agents) & set(verb.objects))


def say(meaning: Meaning, style: int) -> str:
    """One sentence."""
    return fact_sentence(meaning, style) if isinstance(meaning, Fact) else sentence(meaning, style)


def sts_pairs(part: str, count: int) -> list[Row]:
    """Rows of pair regression: text, text_pair and score 0 to 5 by the formula of `meaning`."""
    rng = Random(stable_number("sts", part))
    rows: list[Row] = []
    for first, second, keep_style in _related(part, rng):
        style = rng.getrandbits(32)
        other_style = style if rng.random() < keep_style else rng.getrandbits(32)
        rows.append({"text": say(first, style), "text_pair": say(second, other_style), "score": score(first, second)})
        if len(rows) >= count + count // 5 and len(unique := _unique(rows)) >= count:
            return [{"id": number, **row} for number, row in enumerate(unique[:count])]
    raise AssertionError("the stream of pairs does not end")


def paraphrase_pairs(part: str, count: int) -> list[Row]:
    """Rows of pair classification, half of each label: the same meaning reworded, or a changed one in like words."""
    rng = Random(stable_number("paraphrase", part))
    rows: list[Row] = []
    wanted = {"paraphrase": count // 2, "not_paraphrase": count - count // 2}
    seen: set[tuple[str, str]] = set()
    for first, second, keep_style in _related(part, rng):
        value = score(first, second)
        if value == 0.0 or 3.8 < value < HIGHEST:
            continue
        label = "paraphrase" if value == HIGHEST else "not_paraphrase"
        style = rng.getrandbits(32)
        texts = say(first, style), say(second, style if rng.random() < keep_style else rng.getrandbits(32))
        if wanted[label] == 0 or texts[0] == texts[1] or texts in seen:
            continue
        seen.add(texts)
        wanted[label] -= 1
        rows.append({"id": len(rows), "text": texts[0], "text_pair": texts[1], "label": label})
        if not any(wanted.values()):
            return rows
    raise AssertionError("the stream of pairs does not end")


def _related(part: str, rng: Random) -> Iterator[tuple[Meaning, Meaning, float]]:
    """Pairs of meanings of one split without end, and how likely both keep one style."""
    changes, weights, keeps = zip(*STS_CHANGES, strict=True)
    of_part = facts_of(part)
    while True:
        if rng.random() < _SHARE_OF_FACTS:
            fact = rng.choice(of_part)
            yield fact, _related_fact(fact, part, rng), rng.choice((0.0, 0.5))
            continue
        number = rng.choices(range(len(changes)), weights)[0]
        change = changes[number]
        first = scenes.draw(rng, part=part)
        if change is scenes.swap_roles:
            first = _swappable(part, rng)
        if change is None:
            yield first, first, 0.0
            continue
        second = next((one for _ in range(30) if (one := change(first, rng)) and part_of(one.key) == part), None)
        if second is not None:
            yield first, second, keeps[number]


def _swappable(part: str, rng: Random) -> Scene:
    """A scene in which agent and object could change places within the split."""
    while True:
        scene = scenes.draw(rng, _BETWEEN_EQUALS, part=part)
        swapped = scenes.swap_roles(scene.but(count=1), rng)
        if swapped and part_of(swapped.key) == part:
            return scene.but(count=1)


def _related_fact(fact: Fact, part: str, rng: Random) -> Fact:
    kind = rng.choice(("same", "same", "same subject", "same relation", "any"))
    if kind == "same subject":
        return rng.choice(facts_by_subject()[fact.subject])
    if kind == "same relation":
        return rng.choice(facts_like(fact.relation, part))
    if kind == "any":
        return rng.choice(facts_like(rng.choice(("population", "located in", "currency", "symbol")), part))
    return fact


def _unique(rows: list[Row]) -> list[Row]:
    """Without pairs of equal sentences and without repeated pairs, in either order."""
    seen: set[frozenset[str]] = set()
    unique = []
    for row in rows:
        pair = frozenset((row["text"], row["text_pair"]))
        if len(pair) == 2 and pair not in seen:
            seen.add(pair)
            unique.append(row)
    return unique
