import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperflows.components.evaluation.timing import time_interleaved
from paperflows.components.evaluation.tradeoff import (
    area_between,
    clamped,
    elue_score,
    front_shares,
    mixture,
    pareto_front,
)

REFERENCE = [(0.2, 0.5), (0.6, 0.7), (1.0, 0.8)]
POINTS = st.lists(st.tuples(st.floats(0.01, 1), st.floats(0, 1)), min_size=1, max_size=12)


def test_elue_score_by_hand():
    # at 0.4 the reference is halfway, 0.6; beyond 1.0 it stays 0.8; below 0.2 it stays 0.5
    points = [(0.4, 0.65), (1.2, 0.85), (0.1, 0.5)]
    assert elue_score(points, REFERENCE) == pytest.approx((0.05 + 0.05 + 0.0) / 3)
    assert clamped([0.4, 1.2, 0.1], [p[0] for p in REFERENCE]) == 2
    assert elue_score(REFERENCE, REFERENCE) == pytest.approx(0.0)


@given(costs=st.lists(st.floats(0.01, 1), min_size=1, max_size=8, unique=True), wanted=st.floats(0, 1.2))
def test_a_mixture_has_the_wanted_cost(costs, wanted):
    weights = mixture(costs, wanted)
    assert weights.min() >= 0 and weights.sum() == pytest.approx(1)
    assert weights @ np.array(costs) == pytest.approx(np.clip(wanted, min(costs), max(costs)))


@given(points=POINTS)
def test_pareto_front_against_the_definition(points):
    def beaten(a):
        return any(b[0] <= a[0] and b[1] >= a[1] and b != a for b in points)

    assert sorted(pareto_front(points)) == [i for i, a in enumerate(points) if not beaten(a)]


def test_shares_of_the_joint_front():
    shares = front_shares({"a": [(0.1, 0.5), (0.5, 0.6)], "b": [(0.3, 0.7), (0.6, 0.65)]})
    assert shares == {"a": 0.5, "b": 0.5}


def test_area_does_not_depend_on_where_points_lie():
    raised = [(0.2, 0.6), (0.6, 0.8), (1.0, 0.9)]
    dense = [(c, float(np.interp(c, [0.2, 0.6, 1.0], [0.6, 0.8, 0.9]))) for c in (0.2, 0.21, 0.22, 0.6, 1.0)]
    assert area_between(raised, REFERENCE) == pytest.approx(0.1) == area_between(dense, REFERENCE)
    assert area_between([(0.1, 0.5)], REFERENCE) is None


def test_times_are_interleaved():
    calls = []
    seconds = time_interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=4)
    assert calls == ["a", "b", *"abbaabba"] and all(len(s) == 4 and (s >= 0).all() for s in seconds.values())
