"""Families of inputs that want different decoding: what is asked, a reference answer, and a score in [0, 1]."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from paperflows.components.errors import InputError

Kind = Literal["sums", "translation", "captions", "continuation"]


@dataclass(frozen=True)
class Item:
    """One input.

    Args:
        prompt: the source in one of the family's wordings.
        source: the bare input.
        answer: an answer to learn from.
        references: what an output is compared with.
    """

    prompt: str
    source: str
    answer: str
    references: tuple[str, ...]


_SUM = re.compile(r"<<(\d{1,4}[+\-*/]\d{1,4}(?:[+\-*/]\d{1,4})?)=(\d{1,6})>>")


def items_of(
    kind: Kind, rows: Sequence[Mapping[str, Any]], *, target: str, wordings: Sequence[str], max_words: int, seed: int
) -> list[Item]:
    """Distinct inputs of one family, in an order drawn by `seed`, each in one of the wordings.

    Args:
        kind: sums (from the `<<12+7=19>>` marks of worked solutions), translation (`text` to the field `target`),
            captions (say a caption of `captions` another way), continuation (go on with the first half of `text`).
        wordings: texts with `{}` where the source stands.
        max_words: of a source or an answer; longer rows are left out.

    Raises:
        InputError: the rows do not have what the family needs.
    """
    rng = Random(seed)
    try:
        found = {
            source: (answer, references) for row in rows for source, answer, references in _READERS[kind](row, target)
        }
    except KeyError as error:
        raise InputError(f"family {kind}: the rows have no field {error} (they have {', '.join(rows[0])})") from error
    kept = [
        (source, answer, references)
        for source, (answer, references) in found.items()
        if source.strip() and answer.strip() and max(len(source.split()), len(answer.split())) <= max_words
    ]
    if not kept:
        raise InputError(f"family {kind}: none of {len(rows)} rows gives an input of at most {max_words} words")
    rng.shuffle(kept)
    return [Item(rng.choice(wordings).format(source), source, answer, refs) for source, answer, refs in kept]


def _sums(row: Mapping[str, Any], _target: str) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(terms, value, (value,)) for terms, value in _SUM.findall(row["solution"])]


def _translation(row: Mapping[str, Any], target: str) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(row["text"], row[target], (row[target],))]


def _captions(row: Mapping[str, Any], _target: str) -> list[tuple[str, str, tuple[str, ...]]]:
    first, *others = row["captions"]
    return [(first, others[len(first) % len(others)], tuple(others))]


def _continuation(row: Mapping[str, Any], _target: str) -> list[tuple[str, str, tuple[str, ...]]]:
    words = row["text"].split()
    half = len(words) // 2
    return [(" ".join(words[:half]), " ".join(words[half:]), (" ".join(words[half:]),))] if half >= 4 else []


_READERS = {"sums": _sums, "translation": _translation, "captions": _captions, "continuation": _continuation}
