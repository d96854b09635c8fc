"""Pairs and conversations as token sequences: one template for both stages.

`<user> message <eoh> <bot> message <eom>`, turn after turn. A message is a list of parts, ("text", words) or
(modality, ids).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from paperflows.components.multimodal.vocabulary import Vocabulary

Part = tuple[str, Any]
WORDINGS = Path(__file__).parent / "wordings.yaml"


@dataclass(frozen=True)
class Tokens:
    """A dialogue's ids, and (start, end) of what the assistant says in it, its end mark included."""

    ids: list[int]
    said: list[tuple[int, int]] = field(default_factory=list)


@cache
def wordings(direction: str) -> tuple[str, ...]:
    """All instructions of a direction such as `picture_to_text`: every choice of the parts in the file.

    Raises:
        KeyError: the file has no such direction.
    """
    parts = yaml.safe_load(WORDINGS.read_text(encoding="utf-8"))[direction]
    return tuple(" ".join(filter(None, choice)) for choice in product(*parts))


def message(vocabulary: Vocabulary, parts: Sequence[Part]) -> list[int]:
    """Ids of a message."""
    ids: list[int] = []
    for kind, value in parts:
        ids += vocabulary.text(value) if kind == "text" else vocabulary.block(kind, value)
    return ids


def dialogue(vocabulary: Vocabulary, turns: Sequence[tuple[Sequence[Part], Sequence[Part]]]) -> Tokens:
    """Turns of (user's parts, assistant's parts) as ids."""
    ids: list[int] = []
    said = []
    for asked, answered in turns:
        ids += [vocabulary.user, *message(vocabulary, asked), vocabulary.eoh, vocabulary.bot]
        start = len(ids)
        ids += [*message(vocabulary, answered), vocabulary.eom]
        said.append((start, len(ids)))
    return Tokens(ids, said)


def prompt(vocabulary: Vocabulary, turns: Sequence[Any], asked: Sequence[Part]) -> list[int]:
    """Ids up to the place where the assistant answers `asked`, after earlier turns."""
    before = dialogue(vocabulary, turns).ids
    return [*before, vocabulary.user, *message(vocabulary, asked), vocabulary.eoh, vocabulary.bot]


def instruct(text: str, source: Part) -> list[Part]:
    """The user's message of a pair: an instruction, then the input."""
    return [("text", f"{text} : {source[1]}")] if source[0] == "text" else [("text", text), source]


def pair_sequence(
    vocabulary: Vocabulary, direction: str, source: Part, target: Part, draw: random.Random, *, dropped: float = 0.0
) -> Tokens:
    """A stage-1 pair as a dialogue of one turn; a text input is left out with probability `dropped`.

    The instruction is drawn from the pool anew at every use.
    """
    asked = _ids_of(vocabulary, direction, source, draw, source[0] == "text" and draw.random() < dropped)
    ids = [vocabulary.user, *asked, vocabulary.eoh, vocabulary.bot]
    start = len(ids)
    ids += [*message(vocabulary, [target]), vocabulary.eom]
    return Tokens(ids, [(start, len(ids))])


def pair_lengths(vocabulary: Vocabulary, direction: str, pairs: Sequence[tuple[Part, Part]]) -> list[int]:
    """Tokens of each (source, target) as a dialogue, under the longest instruction of the direction's pool."""
    text = max(wordings(direction), key=lambda one: len(vocabulary.text(one)))
    return [len(dialogue(vocabulary, [(instruct(text, source), [target])]).ids) for source, target in pairs]


def pair_prompts(vocabulary: Vocabulary, direction: str, sources: Sequence[Part], *, seed: int) -> list[list[int]]:
    """Prompts that ask for the output of each source, in wordings drawn by `seed`."""
    draw = random.Random(seed)
    return [
        [vocabulary.user, *_ids_of(vocabulary, direction, source, draw, False), vocabulary.eoh, vocabulary.bot]
        for source in sources
    ]


def unconditional_prompts(vocabulary: Vocabulary, direction: str, count: int, *, seed: int) -> list[list[int]]:
    """`count` prompts of a direction without the text input."""
    draw = random.Random(seed)
    return [
        [vocabulary.user, *_ids_of(vocabulary, direction, ("text", ""), draw, True), vocabulary.eoh, vocabulary.bot]
        for _ in range(count)
    ]


def _ids_of(vocabulary: Vocabulary, direction: str, source: Part, draw: random.Random, dropped: bool) -> list[int]:
    if not dropped:
        return message(vocabulary, instruct(draw.choice(wordings(direction)), source))
    return [*vocabulary.text(f"{draw.choice(wordings(direction))} :"), vocabulary.null]
