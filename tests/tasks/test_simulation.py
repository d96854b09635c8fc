"""Where a line of quality and gain crosses zero."""

import pytest

from paperflows.tasks.simulation import find_break_even


def test_break_even_lies_between_two_points():
    # from -0.02 at 0.8 to +0.06 at 0.9: a quarter of the way
    assert find_break_even([(0.9, 0.06), (0.7, -0.1), (0.8, -0.02)]) == pytest.approx(0.825)
    assert find_break_even([(0.7, -0.1), (0.8, 0.0)]) == pytest.approx(0.8)


def test_it_is_the_last_crossing():
    assert find_break_even([(0.6, -0.1), (0.7, 0.1), (0.8, -0.1), (0.9, 0.1)]) == pytest.approx(0.85)


@pytest.mark.parametrize("values", [(0.1, 0.2), (-0.2, -0.1), (0.1, -0.1), ()])
def test_a_line_that_does_not_end_above_after_being_below_has_none(values):
    assert find_break_even([(0.7 + 0.1 * i, y) for i, y in enumerate(values)]) is None
