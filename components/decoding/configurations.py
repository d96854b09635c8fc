"""Decoding configurations: four settings, the grid they come from, and the words a model writes them in."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from paperflows.components.errors import InputError
from paperflows.components.llm.sampling import RowSettings


@dataclass(frozen=True, order=True)
class Configuration:
    """Settings of one generation; the defaults are those of the transformers library.

    Args:
        temperature: 0 is greedy; then top_p and top_k have no effect.
        top_k: 0 keeps all tokens.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 50
    repetition_penalty: float = 1.0

    def effective(self) -> "Configuration":
        """The same settings without those that have no effect: a greedy one has no top_p and no top_k."""
        return replace(self, top_p=1.0, top_k=0) if self.temperature == 0 else self

    def words(self, grid: "Grid") -> list[str]:
        """One special word a setting, in their order, such as `<temperature=0.7>`: the grid's nearest value.

        Greedy settings have one spelling, with the last top_p and top_k of the grid.
        """
        free = ("top_p", "top_k") if self.temperature == 0 else ()
        return [word_of(n, grid[n][-1] if n in free else _nearest(grid[n], getattr(self, n))) for n in SETTINGS]


def _nearest(values: Sequence[float], to: float) -> float:
    return min(values, key=lambda value: abs(value - to))


SETTINGS = tuple(f.name for f in fields(Configuration))
GREEDY = Configuration(temperature=0.0, top_p=1.0, top_k=0, repetition_penalty=1.0)
Grid = Mapping[str, Sequence[float]]


def word_of(name: str, value: float) -> str:
    """The special word of one value."""
    return f"<{name}={value:g}>"


def check_grid(grid: Grid) -> None:
    """Refuse a grid that lacks a setting or holds values that cannot be.

    Raises:
        InputError: naming the setting.
    """
    if missing := [name for name in SETTINGS if not grid.get(name)]:
        raise InputError(f"grid: no values for {', '.join(missing)}")
    if unknown := sorted(grid.keys() - set(SETTINGS)):
        raise InputError(f"grid: unknown setting {', '.join(unknown)}; expected {', '.join(SETTINGS)}")
    legal = {
        "temperature": lambda v: v >= 0, "top_p": lambda v: 0 < v <= 1, "top_k": lambda v: v >= 0 and v == int(v),
        "repetition_penalty": lambda v: v > 0,
    }  # fmt: skip
    for name, values in grid.items():
        if wrong := [value for value in values if not legal[name](value)]:
            raise InputError(f"grid.{name}: {wrong[0]} is not a legal value")


def grid_words(grid: Grid) -> list[str]:
    """Special words of all values of a grid, in the order of the settings."""
    return [word_of(name, value) for name in SETTINGS for value in grid[name]]


def draw(grid: Grid, count: int, seed: Sequence[int]) -> list[Configuration]:
    """`count` configurations, each setting of each drawn evenly and by itself from the grid's values."""
    rng = np.random.default_rng(seed)
    columns = {name: rng.choice(np.asarray(grid[name], dtype=np.float64), count) for name in SETTINGS}
    return [make({name: columns[name][i] for name in SETTINGS}).effective() for i in range(count)]


def make(values: Mapping[str, float]) -> Configuration:
    """A configuration of plain values."""
    return Configuration(
        float(values["temperature"]), float(values["top_p"]), int(values["top_k"]), float(values["repetition_penalty"])
    )


_WORD = re.compile(r"<(\w+)=([0-9.]+)>")


def parse_words(words: Sequence[str], grid: Grid) -> tuple[Configuration, bool]:
    """The configuration that `words` say, and whether they are valid: each setting once, in order, with a grid value.

    A setting that is missing, unknown or out of the grid's range takes its default or the nearest end of the range.
    """
    said: dict[str, float] = {}
    for word in words:
        match = _WORD.fullmatch(word)
        if match and match[1] in SETTINGS and match[1] not in said:
            said[match[1]] = float(match[2])
    values = {name: min(max(said[name], min(grid[name])), max(grid[name])) for name in said}
    valid = list(words) == [word_of(name, said[name]) for name in SETTINGS if name in said] and all(
        said.get(name) in tuple(grid[name]) for name in SETTINGS
    )
    default = {name: getattr(Configuration(), name) for name in SETTINGS}
    return make({**default, **values}), valid


def as_rows(configurations: Iterable[Configuration]) -> RowSettings:
    """Settings by row, as the sampler takes them."""
    columns = list(zip(*((c.temperature, c.top_p, c.top_k, c.repetition_penalty) for c in configurations), strict=True))
    temperature, top_p, top_k, penalty = columns
    return RowSettings(
        temperature=torch.tensor(temperature), top_p=torch.tensor(top_p), top_k=torch.tensor(top_k),
        repetition_penalty=torch.tensor(penalty),
    )  # fmt: skip
