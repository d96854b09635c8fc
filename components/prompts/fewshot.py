"""A handful of labelled examples, train and dev apart. Letters: C classes, k shots a class."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paperflows.components.errors import InputError

Row = Mapping[str, Any]


def few_shot(
    rows: Sequence[Row], *, train: int, dev: int, seed: int, without: Sequence[Row] = ()
) -> tuple[list[Row], list[Row]]:
    """`train` and `dev` examples of every class, drawn without replacement; no text is in both.

    A class with fewer than that gives what it has, in the same proportion.

    Rows with a text (and second text) that occurred before are passed over, so that no copy of a training example is
    in dev. The examples come in random order.

    Args:
        without: rows whose texts must not be drawn, such as those of the test split.

    Raises:
        InputError: a class has no example, or one alone for both.
    """
    random = np.random.default_rng(seed)
    seen = {_key(row) for row in without}
    taken: dict[str, list[Row]] = {str(row["label"]): [] for row in rows}
    for at in random.permutation(len(rows)):
        row = rows[at]
        key = _key(row)
        mine = taken[str(row["label"])]
        if key not in seen and len(mine) < train + dev:
            seen.add(key)
            mine.append(row)
    cuts, for_dev = {}, int(dev > 0)
    for label, some in taken.items():
        if len(some) < 1 + for_dev:
            raise InputError(f"label {label!r} has {len(some)} different examples; {1 + for_dev} at least are needed")
        cuts[label] = min(max(1, round(len(some) * train / (train + dev))), len(some) - for_dev)
    first = [row for label in sorted(taken) for row in taken[label][: cuts[label]]]
    second = [row for label in sorted(taken) for row in taken[label][cuts[label] :]]
    return [first[i] for i in random.permutation(len(first))], [second[i] for i in random.permutation(len(second))]


def _key(row: Row) -> tuple[str, str]:
    return _fold(row["text"]), _fold(row.get("text_pair") or "")


def _fold(text: str) -> str:
    return " ".join(text.casefold().split())
