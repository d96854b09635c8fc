"""Single sentences with a class: what they are about, or what a question asks for."""

from collections.abc import Iterator
from random import Random
from typing import Any

from paperflows.components.data.world import scenes
from paperflows.components.data.world.facts import FAMILIES, facts_of
from paperflows.components.data.world.hashing import choose, part_of, stable_number
from paperflows.components.data.world.lexicon import PLACES, TIMES, VERBS
from paperflows.components.data.world.render_facts import fact_questions, fact_sentence
from paperflows.components.data.world.render_scenes import agent_phrase, agents_words, object_phrase, sentence, setting
from paperflows.components.data.world.scenes import Scene

Row = dict[str, Any]

TOPIC_OF_ACTION = {
    "food": "food",
    "sport": "sport",
    "music": "music",
    "travel": "traffic",
    "animals": "animals",
    "reading": "reading",
    "garden": "gardening",
}
TOPIC_OF_FACT = {"place": "geography", "size": "geography", "money": "money", "chemistry": "chemistry"}
TOPICS = tuple(sorted({*TOPIC_OF_ACTION.values(), *TOPIC_OF_FACT.values()}))
QUESTION_CLASSES = ("action", "number", "person", "place", "thing", "time")


def topic_rows(part: str, count: int) -> list[Row]:
    """Rows of classification by topic, as many of each as the count allows."""
    rng = Random(stable_number("topics", part))
    return _balanced(_topic_sentences(part, rng), TOPICS, count)


def question_rows(part: str, count: int) -> list[Row]:
    """Rows of classification by what a question asks for."""
    rng = Random(stable_number("questions", part))
    return _balanced(_questions(part, rng), QUESTION_CLASSES, count)


def _balanced(stream: Iterator[tuple[str, str]], classes: tuple[str, ...], count: int) -> list[Row]:
    room = {label: count // len(classes) + (number < count % len(classes)) for number, label in enumerate(classes)}
    rows: list[Row] = []
    seen: set[str] = set()
    for text, label in stream:
        if room[label] and text not in seen:
            seen.add(text)
            room[label] -= 1
            rows.append({"id": len(rows), "text": text, "label": label})
            if len(rows) == count:
                return rows
    raise AssertionError("the stream of sentences does not end")


def _topic_sentences(part: str, rng: Random) -> Iterator[tuple[str, str]]:
    of_part = facts_of(part)
    by_topic = {
        topic: [fact for fact in of_part if TOPIC_OF_FACT.get(FAMILIES[fact.relation]) == topic]
        for topic in sorted(set(TOPIC_OF_FACT.values()))
    }
    while True:
        for topic, some in by_topic.items():
            yield fact_sentence(rng.choice(some), rng.getrandbits(32)), topic
        for _ in range(6):
            scene = scenes.draw(rng, part=part)
            topic = TOPIC_OF_ACTION.get(VERBS[scene.action].group, "")
            about_people = topic == "animals" and "animal" not in _groups(scene)
            if topic and not about_people:
                yield sentence(scene, rng.getrandbits(32)), topic


def _groups(scene: Scene) -> set[str]:
    return {scenes.noun(key).group for key in (scene.agent, scene.object) if key}


def _questions(part: str, rng: Random) -> Iterator[tuple[str, str]]:
    of_part = facts_of(part)
    while True:
        questions = fact_questions(rng.choice(of_part))
        if questions:
            yield rng.choice(questions)
        for _ in range(3):
            scene, style = scenes.draw(rng, part=part), rng.getrandbits(32)
            for text, label in _scene_questions(scene, style):
                # a question leaves a slot out, so scenes of different splits may ask the same
                if part_of(f"question|{text}") == part:
                    yield text, label


def _scene_questions(scene: Scene, style: int) -> Iterator[tuple[str, str]]:
    verb = choose(VERBS[scene.action].forms, style, "action")
    rest = f"{verb[1]} {object_phrase(scene, style)}".strip()
    one = scene.but(count=1)
    who = f"the {agent_phrase(one, style, bare=True)}"
    person = scenes.noun(scene.agent).group == "person"
    outside = setting(scene, style)
    if person:
        yield f"Who is {rest}{outside}?", "person"
        yield f"Which person is {rest}{outside}?", "person"
    yield f"How many {agents_words(scene, style)} are {rest}{outside}?", "number"
    yield f"What is {who} doing{outside}?", "action"
    if scene.object and scenes.noun(scene.object).group not in ("person", "animal"):
        yield f"What is {who} {verb[1]}{outside}?", "thing"
    time = choose(TIMES[scene.time].forms, style, "time") if scene.time else ""
    place = choose(PLACES[scene.place].forms, style, "place") if scene.place else ""
    yield f"Where is {who} {rest}{f' {time}' if time else ''}?", "place"
    yield f"When is {who} {rest}{f' {place}' if place else ''}?", "time"
    yield f"At what time of day is {who} {rest}{f' {place}' if place else ''}?", "time"
