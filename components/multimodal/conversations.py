"""Conversations with described media (AnyGPT, section 4.1): topics, scenarios, and a grammar that writes them offline.

An element that is not text stands in a message as a marked description, `<picture: seven>`.
"""

import random
import re
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import chain, product
from pathlib import Path
from typing import Any

import yaml

GRAMMAR = Path(__file__).parent / "conversations.yaml"
MODALITIES = ("text", "picture", "speech", "music")
BEATS = {"two": "2/4", "three": "3/4", "four": "4/4", "six": "6/8"}
_MARK = re.compile(r"<(\w+): ([^<>]+)>")

Part = tuple[str, str]


class Unparsable(ValueError):
    """A message whose marks are not closed or name no modality."""


@dataclass(frozen=True)
class Scenario:
    """Who speaks to whom, what for, and which modality each turn brings in and asks for.

    Args:
        turns: (modality of the user's element, modality of the assistant's) of each turn.
    """

    topic: str
    user: str
    assistant: str
    goal: str
    turns: tuple[tuple[str, str], ...]

    def as_row(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "turns": [list(turn) for turn in self.turns]}


@cache
def grammar() -> dict[str, Any]:
    """The file of topics, roles, goals and wordings."""
    loaded: dict[str, Any] = yaml.safe_load(GRAMMAR.read_text(encoding="utf-8"))
    return loaded


def counted(things: Collection[str]) -> bool:
    """Whether the beats of a bar are among the words, so that a tune can answer a picture or a recording."""
    return set(BEATS) <= set(things)


def combinations(modalities: Sequence[str], things: Collection[str]) -> list[tuple[str, str]]:
    """Pairs of input and output modality in which at least one is not text and which can be about one word.

    Args:
        things: words that pictures and recordings have in common.
    """
    every = ("text", *modalities)
    about = set() if counted(things) else {("music", m) for m in modalities if m != "music"}
    return [
        (given, wanted)
        for given in every
        for wanted in every
        if (given, wanted) != ("text", "text") and not about & {(given, wanted), (wanted, given)}
    ]


def topics() -> list[str]:
    """Specific topics: every meta topic's things at every place of it."""
    return [
        f"{thing} {place}"
        for meta in grammar()["topics"].values()
        for thing, place in product(meta["things"], meta["places"])
    ]


def scenarios(
    subjects: Sequence[str], count: int, modalities: Sequence[str], things: Collection[str], *, seed: int
) -> list[Scenario]:
    """`count` scenarios of one to three turns; combinations come in shuffled rounds, so that all are as frequent."""
    draw = random.Random(seed)
    pool: list[tuple[str, str]] = []
    made = []
    for number in range(count):
        turns = []
        for _ in range(1 + number % 3):
            if not pool:
                pool = combinations(modalities, things)
                draw.shuffle(pool)
            turns.append(pool.pop())
        user, assistant = draw.choice(grammar()["roles"])
        made.append(
            Scenario(draw.choice(list(subjects)), user, assistant, draw.choice(grammar()["goals"]), tuple(turns))
        )
    return made


def write_conversation(
    scenario: Scenario, things: Sequence[str], keys: Sequence[str], draw: random.Random
) -> list[dict[str, str]]:
    """A conversation's turns, {"user": ..., "assistant": ...} with marked descriptions, written by the grammar.

    Args:
        things: words that pictures and recordings have in common, to choose from.
        keys: of music, to choose from.
    """
    turns = []
    for place, (given, wanted) in enumerate(scenario.turns):
        word = draw.choice(tuple(BEATS) if "music" in (given, wanted) else list(things))
        turns.append(write_turn(scenario, place, given, wanted, word, draw.choice(list(keys)), draw))
    return turns


def write_turn(
    scenario: Scenario, place: int, given: str, wanted: str, word: str, key: str, draw: random.Random
) -> dict[str, str]:
    """One turn about a word (in music: the beats of a bar).

    The assistant says what it perceived before it shows or says anything: the chain of modality.
    """
    words = grammar()["wordings"]

    def element(modality: str) -> str:
        return word if modality == "text" else f"<{modality}: {describe(modality, word, key)}>"

    opening = draw.choice(words["openings" if place == 0 else "further"]).format(
        user=scenario.user, assistant=scenario.assistant, topic=scenario.topic, goal=scenario.goal
    )
    shown = draw.choice(words["given"][given])
    ask = draw.choice(words["wanted"][wanted])
    heard = draw.choice(words["perceived"][given]).format(word=word)
    reply = draw.choice(words["replies"][wanted])
    return {
        "user": f"{opening} {shown} {element(given)} . {ask}",
        "assistant": f"{heard} {reply} {element(wanted)}" if wanted != "text" else f"{heard} {reply}",
    }


def describe(modality: str, word: str, key: str) -> str:
    """A description that the modality's converter understands."""
    return f"{BEATS[word]} in {key}" if modality == "music" else word


def parse_marked(message: str) -> list[Part]:
    """("text", words) and (modality, description) in order.

    Raises:
        Unparsable: a mark that is not closed, or of no modality.
    """
    parts: list[Part] = []
    at = 0
    for found in _MARK.finditer(message):
        if found[1] not in MODALITIES[1:]:
            raise Unparsable(f"mark of no modality: {found[0]}")
        parts += [("text", message[at : found.start()].strip()), (found[1], found[2].strip())]
        at = found.end()
    parts.append(("text", message[at:].strip()))
    for kind, value in parts:
        if kind == "text" and re.search(r"[<>]", value):
            raise Unparsable(f"a mark that is not closed in: {value}")
    return [(kind, value) for kind, value in parts if value]


def all_words() -> list[str]:
    """Every wording, topic, role and goal of the grammar, for a text tokenizer to learn from."""
    words = grammar()["wordings"]
    lists = [kind for group in words.values() for kind in (group.values() if isinstance(group, dict) else [group])]
    return [
        *chain.from_iterable(lists),
        *topics(),
        *grammar()["goals"],
        *(name for pair in grammar()["roles"] for name in pair),
    ]
