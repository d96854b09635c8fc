"""What a run's report must say of its data, noted where it is found and told among the notes."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_noted: ContextVar[list[str] | None] = ContextVar("noted", default=None)


@contextmanager
def noting() -> Iterator[list[str]]:
    """The remarks that are made in the body, each once."""
    remarks: list[str] = []
    token = _noted.set(remarks)
    try:
        yield remarks
    finally:
        _noted.reset(token)


def remark(text: str) -> None:
    """Tell `text` in the report of the run that this code is part of; outside a run nothing happens."""
    remarks = _noted.get()
    if remarks is not None and text not in remarks:
        remarks.append(text)
