"""One problem of a dataset: which file, which line, which field, and what was expected there."""

from dataclasses import dataclass
from typing import Any

from paperflows.components.errors import InputError


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong in one place; `line` counts from 1, and is None for a whole file, folder or dataset."""

    path: str
    line: int | None
    field: str | None
    message: str

    def __str__(self) -> str:
        place = self.path if self.line is None else f"{self.path}:{self.line}"
        return f"{place}: field '{self.field}': {self.message}" if self.field else f"{place}: {self.message}"


class DataError(InputError):
    """A refused dataset; `problem` says where."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def shorten(value: Any, limit: int = 60) -> str:
    """The value as Python writes it, on one line, cut to `limit` characters."""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
