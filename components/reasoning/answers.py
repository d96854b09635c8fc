"""The answer of a chain of reasoning: reading it from the text, and one spelling for equal answers."""

import math
import re
from collections.abc import Sequence
from typing import Literal

AnswerKind = Literal["number", "option", "yes_no", "letters", "date", "text"]

_MARKER = re.compile(r"answer\s+is|answer:|\bA:|####", re.IGNORECASE)
_NUMBER = re.compile(r"[-−]?\d[\d,]*(?:\.\d+)?(?:/\d[\d,]*)?|[-−]?\.\d+")
# a small letter is one only before a bracket or the end: elsewhere it is an article
_OPTION = re.compile(r"(?<![A-Za-z])(?:([A-E])(?![A-Za-z'])|([a-e])(?=\)|\W*$))")
_YES_NO = re.compile(r"\b(yes|no)\b", re.IGNORECASE)
_DATE = re.compile(r"\b(\d{1,2})/(\d{1,2})/(\d{4})\b")
_LETTERS = re.compile(r"[^\W\d_]+")


def extract(text: str, kind: AnswerKind) -> str | None:
    """The final answer that a chain states, in canonical spelling; None where there is none.

    What stands after the last "answer is" (or "Answer:", "A:", "####") is read, the whole text where there is no such
    marker: the last number, option letter, yes or no, date, or the first word of letters.
    """
    markers = list(_MARKER.finditer(text))
    after = text[markers[-1].end() :] if markers else text
    found = _read(after, kind)
    if found is None and markers and kind not in ("letters", "text"):
        found = _read(text, kind)
    return None if found is None else canonical(found, kind)


def canonical(answer: str | None, kind: AnswerKind) -> str | None:
    """One spelling for equal answers ("18", "18.0", "$18", "1,800" -> "18", "18", "18", "1800"); None for no answer."""
    if answer is None or not answer.strip():
        return None
    if kind == "number":
        value = as_number(answer)
        return None if value is None else format(value, ".10g")
    if kind == "date":
        match = _DATE.search(answer)
        return f"{int(match[1]):02d}/{int(match[2]):02d}/{match[3]}" if match else None
    if kind == "option":
        letters = [big or small for big, small in _OPTION.findall(answer)]
        return letters[-1].upper() if letters else None
    if kind == "letters":
        return "".join(_LETTERS.findall(answer)).casefold() or None
    return " ".join(answer.casefold().split()).strip(" .")


def as_number(text: str) -> float | None:
    """The last number of a text; thousands separators, currency signs and simple fractions are understood."""
    found = _NUMBER.findall(text)
    if not found:
        return None
    top, _, bottom = found[-1].replace(",", "").replace("−", "-").partition("/")
    try:
        value = float(top) / float(bottom) if bottom else float(top)
    except ZeroDivisionError:
        return None
    return value if math.isfinite(value) else None


def is_correct(answer: str | None, gold: str, kind: AnswerKind) -> bool:
    """Whether two canonical answers are the same; numbers within a relative 1e-5."""
    if answer is None:
        return False
    if kind == "number":
        ours, theirs = as_number(answer), as_number(gold)
        return ours is not None and theirs is not None and math.isclose(ours, theirs, rel_tol=1e-5, abs_tol=1e-9)
    return answer == canonical(gold, kind)


def group(answers: Sequence[str | None]) -> dict[str, list[int]]:
    """Positions of each answer, in the order of first appearance; chains without an answer belong to no group."""
    groups: dict[str, list[int]] = {}
    for place, answer in enumerate(answers):
        if answer is not None:
            groups.setdefault(answer, []).append(place)
    return groups


def _read(text: str, kind: AnswerKind) -> str | None:
    if kind == "number":
        return text if _NUMBER.search(text) else None
    if kind == "date":
        dates = list(_DATE.finditer(text))
        return dates[-1][0] if dates else None
    if kind == "option":
        return text if _OPTION.search(text) else None
    if kind == "yes_no":
        words = _YES_NO.findall(text)
        return words[-1] if words else None
    if kind == "letters":
        words = _LETTERS.findall(text)
        return words[0] if words else None
    return text.strip().splitlines()[0] if text.strip() else None
