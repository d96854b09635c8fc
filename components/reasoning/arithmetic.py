"""Recompute the equations that a chain of reasoning states, without ever running its text."""

import ast
import math
import operator
import re
from dataclasses import dataclass

_OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
LONGEST = 80  # characters of an expression
LARGEST = 1e15
_EQUATION = re.compile(
    r"((?:[\d.,$%()+\-−–*/×x÷]|\s)*\d(?:[\d.,$%)]|\s)*)=\s*[$€£]?\s*([-−]?\d[\d,]*(?:\.\d+)?)\s*(%?)"
)
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
    found = []
    for match in _EQUATION.finditer(text):
        left = match[1].translate(_SIGNS).replace("%", "/100").strip()
        left = left.lstrip("=)*/ .").strip()
        if not re.search(r"\d\)?\s*[-+*/]\s*\(?\s*[\d.]", left):
            continue
        stated = float(match[2].replace(",", "").replace("−", "-")) / (100 if match[3] else 1)
        found.append(Equation(left, evaluate(left), stated))
    return found


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
