"""Meaning of everyday scenes: a frame of slots, how to draw one, and how to change one slot of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from paperflows.components.data.world.hashing import part_of
from paperflows.components.data.world.lexicon import ATTRIBUTES, GENERAL, NOUNS, PLACES, TIMES, VERBS, Noun


@dataclass(frozen=True)
class Scene:
    """Someone does something, perhaps to something, somewhere, at some time. Slots hold keys of the lexicon.

    Attributes:
        agent: a noun, or "any person" and the like where only the kind is said.
        count: how many agents, 1 to 3.
        object: "" for an intransitive action.
    """

    agent: str
    count: int
    action: str
    object: str = ""
    agent_attribute: str = ""
    object_attribute: str = ""
    place: str = ""
    time: str = ""
    negated: bool = False

    @property
    def key(self) -> str:
        """Its core: scenes that share it never stand in different splits."""
        return _core(self.agent, self.action, self.object)

    def but(self, **changes: Any) -> "Scene":
        """The same scene with other values in some slots."""
        return Scene(**(vars(self) | changes))


Change = Callable[[Scene, Random], Scene | None]


@cache
def cores() -> tuple[tuple[str, str, str], ...]:
    """All (agent, action, object) that make sense."""
    return tuple(
        (agent, action, thing)
        for action in VERBS
        for agent in _agents(action)
        for thing in _things(action)
        if thing != agent
    )


@cache
def _agents(action: str) -> tuple[str, ...]:
    return tuple(noun.key for noun in NOUNS.values() if noun.group in VERBS[action].agents)


@cache
def _things(action: str) -> tuple[str, ...]:
    groups = VERBS[action].objects
    return tuple(noun.key for noun in NOUNS.values() if noun.group in groups) if groups else ("",)


_ALL_NOUNS = NOUNS | {f"any {kind}": general for kind, general in GENERAL.items()}


def noun(key: str) -> Noun:
    """The noun of a slot, also of "any person"."""
    return _ALL_NOUNS[key]


def _core(agent: str, action: str, thing: str) -> str:
    return f"scene|{agent}|{action}|{thing}"


def draw(rng: Random, actions: tuple[str, ...] = tuple(VERBS), *, part: str = "") -> Scene:
    """A scene of one of these actions, with some slots left open; `part`: its core belongs to that split."""
    while True:
        action = rng.choice(actions)
        agent, thing = rng.choice(_agents(action)), rng.choice(_things(action))
        if agent != thing and (not part or part_of(_core(agent, action, thing)) == part):
            break
    scene = Scene(agent, rng.choices((1, 2, 3), (8, 2, 1))[0], action, thing)
    for slot, share in (("agent_attribute", 0.5), ("object_attribute", 0.4), ("place", 0.65), ("time", 0.25)):
        if rng.random() < share:
            scene = fill(scene, slot, rng) or scene
    return scene


def choices(scene: Scene, slot: str) -> tuple[str, ...]:
    """What may stand in an optional slot of this scene."""
    if slot == "place":
        return _places(VERBS[scene.action].where)
    if slot == "time":
        return tuple(TIMES)
    key = scene.agent if slot == "agent_attribute" else scene.object
    return _attributes(noun(key).scales if key else ())


@cache
def _places(where: str) -> tuple[str, ...]:
    return tuple(word.key for word in PLACES.values() if where in ("any", word.group))


@cache
def _attributes(scales: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word.key for word in ATTRIBUTES.values() if word.group in scales)


def emptied(scene: Scene, slot: str) -> Scene:
    """The scene with that optional slot left open."""
    return scene.but(**{slot: ""})


def fill(scene: Scene, slot: str, rng: Random) -> Scene | None:
    """The scene with something else in an optional slot; of the same scale where the slot is taken."""
    words = _others(choices(scene, slot), slot, getattr(scene, slot))
    return scene.but(**{slot: rng.choice(words)}) if words else None


@cache
def _others(words: tuple[str, ...], slot: str, now: str) -> tuple[str, ...]:
    table = {"place": PLACES, "time": TIMES}.get(slot, ATTRIBUTES)
    if now and slot != "place":
        words = tuple(word for word in words if table[word].group == table[now].group)
    return tuple(word for word in words if word != now)


def other_place(scene: Scene, rng: Random) -> Scene | None:
    """Elsewhere."""
    return fill(scene, "place", rng) if scene.place else None


def other_time(scene: Scene, rng: Random) -> Scene | None:
    """At another time of the same kind: night for noon, winter for summer."""
    return fill(scene, "time", rng) if scene.time else None


def other_attribute(scene: Scene, rng: Random) -> Scene | None:
    """The opposite attribute, of the agent or of the object."""
    slots = [slot for slot in ("agent_attribute", "object_attribute") if getattr(scene, slot)]
    return fill(scene, rng.choice(slots), rng) if slots else None


def other_count(scene: Scene, rng: Random) -> Scene | None:
    """More or fewer of them."""
    return scene.but(count=rng.choice([n for n in (1, 2, 3) if n != scene.count]))


def drop(scene: Scene, rng: Random) -> Scene | None:
    """One optional slot left open."""
    slots = [slot for slot in ("agent_attribute", "object_attribute", "place", "time") if getattr(scene, slot)]
    return scene.but(**{rng.choice(slots): ""}) if slots else None


def add(scene: Scene, rng: Random) -> Scene | None:
    """One open slot filled."""
    slots = [slot for slot in ("agent_attribute", "object_attribute", "place", "time") if not getattr(scene, slot)]
    return fill(scene, rng.choice(slots), rng) if slots else None


def other_agent(scene: Scene, rng: Random) -> Scene | None:
    """A sibling does it, with the attributes it can have."""
    return _settle(scene.but(agent=_sibling(scene.agent, rng, scene.object)))


def other_object(scene: Scene, rng: Random) -> Scene | None:
    """It is done to a sibling."""
    return _settle(scene.but(object=_sibling(scene.object, rng, scene.agent))) if scene.object else None


def other_action(scene: Scene, rng: Random) -> Scene | None:
    """The same agent does something else of the same kind to the same thing."""
    keys = _near_actions(
        scene.action,
        noun(scene.agent).group,
        noun(scene.object).group if scene.object else "",
        PLACES[scene.place].group if scene.place else "",
    )
    return scene.but(action=rng.choice(keys)) if keys else None


@cache
def _near_actions(action: str, agents: str, objects: str, places: str) -> tuple[str, ...]:
    """Other actions of such agents on such objects in such places; of the same kind where there are any."""
    keys = tuple(
        other.key
        for other in VERBS.values()
        if other.key != action
        and agents in other.agents
        and (objects in other.objects if objects else not other.objects)
        and (not places or other.where in ("any", places))
    )
    return tuple(key for key in keys if VERBS[key].group == VERBS[action].group) or keys


def opposite_action(scene: Scene, rng: Random) -> Scene | None:
    """What cannot be going on at the same time."""
    other = VERBS[scene.action].opposite
    return scene.but(action=other) if other else None


def swap_roles(scene: Scene, rng: Random) -> Scene | None:
    """Who did it now suffers it."""
    verb = VERBS[scene.action]
    if not scene.object or noun(scene.object).group not in verb.agents or noun(scene.agent).group not in verb.objects:
        return None
    return scene.but(
        agent=scene.object,
        object=scene.agent,
        count=1,
        agent_attribute=scene.object_attribute,
        object_attribute=scene.agent_attribute,
    )


def negate(scene: Scene, rng: Random) -> Scene | None:
    """The same, denied."""
    return scene.but(negated=not scene.negated)


def generalise(scene: Scene, rng: Random) -> Scene | None:
    """The agent or the object by its kind only."""
    slots = [slot for slot in ("agent", "object") if (key := getattr(scene, slot)) and noun(key).group in GENERAL]
    slot = rng.choice(slots)
    return _settle(scene.but(**{slot: f"any {noun(getattr(scene, slot)).group}"}))


def unrelated(scene: Scene, rng: Random) -> Scene | None:
    """Another scene in the same place at the same time."""
    other = draw(rng)
    place = scene.place if scene.place in choices(other, "place") else other.place
    return other.but(place=place, time=scene.time)


def combine(*changes: Change) -> Change:
    """One change after the other."""

    def both(scene: Scene, rng: Random) -> Scene | None:
        changed: Scene | None = scene
        for change in changes:
            changed = None if changed is None else change(changed, rng)
        return changed

    return both


def _sibling(key: str, rng: Random, not_this: str) -> str:
    return rng.choice(_siblings(key, not_this))


@cache
def _siblings(key: str, not_this: str) -> tuple[str, ...]:
    group = noun(key).group
    return tuple(one.key for one in NOUNS.values() if one.group == group and one.key not in (key, not_this))


def _settle(scene: Scene) -> Scene:
    """Without attributes that the new noun cannot have."""
    for slot in ("agent_attribute", "object_attribute"):
        if getattr(scene, slot) and getattr(scene, slot) not in choices(scene, slot):
            scene = scene.but(**{slot: ""})
    return scene


def all_slots(scene: Scene) -> Iterator[tuple[str, str | int | bool]]:
    """(slot, value) in a fixed order."""
    yield from (("agent", scene.agent), ("count", scene.count), ("action", scene.action), ("object", scene.object))
    yield from (("agent_attribute", scene.agent_attribute), ("object_attribute", scene.object_attribute))
    yield from (("place", scene.place), ("time", scene.time), ("negated", scene.negated))
