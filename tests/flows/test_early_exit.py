"""Claims that the papers of early exits share."""

import pytest

from paperflows.flows.early_exit import speed_claim
from paperflows.tasks.store import new_artifact


@pytest.mark.parametrize(("flops", "margin"), [(2.5, 2.0), (1.1, 1.0), (1.0, 1.0)])
def test_a_run_that_is_slower_than_the_plain_model_gains_nothing(in_project, flops, margin):
    with new_artifact() as (_, times):
        pass
    claim = speed_claim({"batch1": {"flops_speedup": flops, "full": times, "early": times}}, "batch1", "d")
    assert claim.margin == pytest.approx(margin)
