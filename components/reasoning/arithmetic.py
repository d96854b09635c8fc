"""Recompute the equations that a chain of reasoning states, without ever running its text."""

import ast
import math
import operator
import re
from dataclasses import dataclass

_OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
LONGEST = 80  # characters of an expression
LARGEST = 1e15
_RIGHT = re.compile(r"=\s*[$€£]?\s*([-−]?\d[\d,]*(?:\.\d+)?)\s*(%?)")
_LEFT = re.compile(r"[\d.,$%()+\-−–*/×x÷\s]")
_AFTER_A_DIGIT = re.compile(r"[.,$%)\s]")
_SIGNS = str.maketrans({"×": "*", "x": "*", "÷": "/", "−": "-", "–": "-", "$": " ", ",": ""})


@dataclass(frozen=True)
class Equation:
    """An equation as stated: its left side, what that computes to (None if it cannot be), and the stated right side."""

    left: str
    computed: float | None
    stated: float

    @property
    def holds(self) -> bool | None:
        """Whether both sides are equal to the precision that the right side is written in; None if not computable."""
        if self.computed is None:
            return None
        return math.isclose(self.computed, self.stated, rel_tol=1e-4, abs_tol=0.006)


def equations(text: str) -> list[Equation]:
    """All statements of the form "expression = number" with at least one operation on the left."""
    found, end = [], 0
    for match in _RIGHT.finditer(text):
        last = _back(text, match.start(), end, _AFTER_A_DIGIT)
        if last == end or not text[last - 1].isdecimal():
            continue
        left = text[_back(text, last, end, _LEFT) : match.start()]
        end = match.end()
        left = left.translate(_SIGNS).replace("%", "/100").strip()
        left = left.lstrip("=)*/ .").strip()
        if not re.search(r"\d\)?\s*[-+*/]\s*\(?\s*[\d.]", left):
            continue
        stated = float(match[1].replace(",", "").replace("−", "-")) / (100 if match[2] else 1)
        found.append(Equation(left, evaluate(left), stated))
    return found


def _back(text: str, place: int, first: int, allowed: re.Pattern[str]) -> int:
    """From `place` back over allowed characters, to `first` at most: a pattern that starts anywhere would try all."""
    while place > first and allowed.match(text[place - 1]):
        place -= 1
    return place


def evaluate(expression: str) -> float | None:
    """Value of an expression of numbers, + - * / and brackets; None for anything else, too long or too large."""
    if len(expression) > LONGEST:
        return None
    try:
        tree = ast.parse(expression.strip(), mode="eval")
        value = _value(tree.body)
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError, RecursionError, MemoryError):
        return None
    return value


def _value(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        value = float(node.value)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = -_value(node.operand)
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        value = _OPERATIONS[type(node.op)](_value(node.left), _value(node.right))
    else:
        raise ValueError("not arithmetic")
    if not abs(value) <= LARGEST:
        raise ValueError("too large")
    return value
