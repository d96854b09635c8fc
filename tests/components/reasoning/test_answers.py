import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperflows.components.reasoning.answers import canonical, extract, group, is_correct
from paperflows.components.reasoning.arithmetic import equations, evaluate


@pytest.mark.parametrize("written", ["18", "18.0", "$18", "18.", " 18 dollars", "The sum of 5 and 13 is 18"])
def test_one_spelling_for_equal_numbers(written):
    assert canonical(written, "number") == "18"


@pytest.mark.parametrize(
    ("text", "kind", "answer"),
    [
        ("So 9 * 2 = 18. The answer is $1,800.", "number", "1800"),
        ("The answer is 7. No: the answer is 8 apples.", "number", "8"),
        ("They need 3/4 of a cup. #### 3/4", "number", "0.75"),
        ("It is -5 degrees", "number", "-5"),
        ("The answer is (C).", "option", "C"),
        ("A is wrong, so the answer is b", "option", "B"),
        ("The answer is C. It is a river.", "option", "C"),
        ("So it is (d), as a check shows.", "option", "D"),
        ("Thus the answer is no.", "yes_no", "no"),
        ("Explain: today is May 1.\nA: 05/01/2021", "date", "05/01/2021"),
        ("A: 5/1/2021", "date", "05/01/2021"),
        ("Joined: yajo. The answer is Yajo.", "letters", "yajo"),
        ("I cannot say", "number", None),
        ("", "letters", None),
    ],
)
def test_extraction(text, kind, answer):
    assert extract(text, kind) == answer


def test_numbers_are_equal_within_a_relative_1e_5():
    assert is_correct("3.3333333", "3.33333", "number")
    assert not is_correct("3.334", "3.33333", "number")
    assert not is_correct(None, "3", "number")
    assert is_correct("05/01/2021", "5/1/2021", "date")


def test_chains_without_an_answer_belong_to_no_group():
    assert group(["18", None, "20", "18"]) == {"18": [0, 3], "20": [2]}


def test_equations_are_recomputed():
    stated = equations("She sells 9 * $2 = $18 a day, 16 - 3 - 4 = 8 eggs; 50% x 30 = 15, and 1,000 / 3 = 333.33.")
    assert [(e.left, e.holds) for e in stated] == [
        ("9 *  2", True), ("16 - 3 - 4", False), ("50/100 * 30", True), ("1000 / 3", True),
    ]  # fmt: skip
    assert equations("x = 5, and 12 = 12") == []


@pytest.mark.parametrize("text", ["1" * 20_000, "1 " * 10_000, "1=" * 5000, ". " * 10_000 + "(= 5"])
def test_a_degenerate_chain_is_read_at_once(text):
    started = time.process_time()
    equations(text)
    assert time.process_time() - started < 2, "a pattern that starts anywhere takes half a minute"


@pytest.mark.parametrize(
    "text", ["9**9**9", "__import__('os')", "1/0", "a+1", "(" * 200, "1" * 500, "1e400*2", "True+1"]
)
def test_nothing_but_arithmetic_is_evaluated(text):
    assert evaluate(text) is None


@given(st.text(alphabet="0123456789+-*/().,$%x×÷= \n'abc\0", max_size=120))
def test_no_text_raises(text):
    for equation in equations(text):
        assert equation.computed is None or abs(equation.computed) <= 1e15
    for kind in ("number", "option", "yes_no", "letters", "date", "text"):
        extract(text, kind)
