"""Judges that are programs: they check what a chain states against the question and itself, never the answer key.

Scores follow the rubric of AoR: 0-3 true steps, 0-3 the right method, 0-2 completeness, 0-2 conclusion; 10 in all.
"""

import re

from paperflows.components.reasoning.answers import as_number, canonical
from paperflows.components.reasoning.arithmetic import equations

_STATED = re.compile(
    r"last letter (?:of|in)(?: the (?:word|name))?\s*[\"'“‘]?([^\W\d_]+)[\"'”’]?\s+is\s+[\"'“‘]?([^\W\d_])(?![^\W\d_])",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"[\"“]([^\"”]+)[\"”]")


def score_letters(question: str, chain: str, answer: str | None) -> int:
    """0-10 for a last-letter concatenation: true letters, the question's words in order, steps, conclusion."""
    stated = _STATED.findall(chain)
    quoted = _QUOTED.search(question)
    words = quoted[1].split() if quoted else []
    true = all(word[-1].casefold() == letter.casefold() for word, letter in stated)
    same = [word.casefold() for word, _ in stated] == [word.casefold() for word in words]
    concluded = "".join(letter for _, letter in stated).casefold()
    return (
        (3 if stated and true else 0)
        + (3 if stated and same else 0)
        + (2 if len(stated) >= 2 else 0)
        + (2 if stated and answer == concluded else 0)
    )


def score_arithmetic(question: str, chain: str, answer: str | None) -> int:
    """0-10 for a word problem: equations that hold, numbers of the question used, steps, and the last one's result."""
    stated = [e for e in equations(chain) if e.holds is not None]
    wrong = sum(not e.holds for e in stated)
    asked = set(re.findall(r"\d+(?:\.\d+)?", question.replace(",", "")))
    used = sum(number in chain.replace(",", "") for number in asked)
    last = as_number(answer) if answer else None
    concluded = bool(stated) and last is not None and canonical(str(stated[-1].stated), "number") == answer
    return (
        (3 if stated and not wrong else 1 if stated and wrong < len(stated) else 0)
        + (round(3 * used / len(asked)) if asked else 3)
        + (2 if len(stated) >= 2 else 1 if stated else 0)
        + (2 if concluded else 0)
    )
