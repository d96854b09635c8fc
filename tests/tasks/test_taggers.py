import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from paperflows.flows.seq_label_exit import at
from paperflows.tasks.store import OUTPUTS, new_artifact, open_artifact
from paperflows.tasks.taggers import WordCurves, best_words
from paperflows.tasks.tradeoff import CURVE, outputs_along


def curve(points, validation=None):
    """A curve of three sentences: each point's quality is what all of them score."""
    with new_artifact() as (folder, artifact):
        columns = np.array([[[quality, 1.0, 1.0]] * 3 for _, quality in points])
        save_file({"set": columns}, folder / CURVE)
    numbered = [[cost, quality, float(i)] for i, (cost, quality) in enumerate(points)]
    chosen_by = [[cost, quality, float(i)] for i, (cost, quality) in enumerate(validation or points)]
    return WordCurves(**artifact, points={"set": numbered}, validation={"set": chosen_by})


def hits(artifact):
    return load_file(open_artifact(artifact) / OUTPUTS)["set"][:, 0].tolist()


def test_the_rule_that_validation_prefers_is_mixed_to_the_budget():
    good = curve([(0.3, 0.6), (0.5, 0.8)], validation=[(0.3, 0.7), (0.5, 0.9)])
    lucky = curve([(0.3, 0.9), (0.5, 1.0)], validation=[(0.3, 0.1), (0.5, 0.2)])
    found = best_words.fn([[good, lucky]], {"set": 0.45})
    assert hits(found) == pytest.approx([0.75] * 3), "a quarter of 0.6 and three quarters of 0.8"
    assert found["costs"] == pytest.approx({"set": 0.45})


def test_a_rule_that_cannot_reach_the_budget_gives_way():
    dear, cheap = curve([(0.5, 0.80), (0.8, 0.90)]), curve([(0.3, 0.70), (0.6, 0.85)])
    found = best_words.fn([[dear, cheap]], {"set": 1 / 3})
    assert found["costs"]["set"] == pytest.approx(1 / 3) and hits(found)[0] == pytest.approx(0.70 + 0.15 / 9)
    alone = best_words.fn([[dear, curve([(0.6, 0.99)])]], {"set": 1 / 3})
    assert alone["costs"] == {"set": 0.5}, "the cheapest there is, and it is said what it costs"


def test_a_claim_is_named_by_what_is_really_spent():
    spent = [{"costs": {"one": 0.33, "two": 0.34}}, {"costs": {"one": 0.3, "two": 0.33}}]
    assert at(3.0, spent) == "3x"
    assert at(3.0, [*spent, {"costs": {"one": 0.5, "two": 0.33}}]) == "2.00x (it does not reach 3x)"


def test_outputs_along_a_curve_by_hand():
    line = curve([(0.2, 0.4), (0.6, 0.8)])
    assert hits(outputs_along.fn(line, {"set": [0.3]})) == pytest.approx([0.5] * 3)
    assert hits(outputs_along.fn(line, {"set": [0.2, 0.6, 0.9]})) == pytest.approx([2.0 / 3] * 3), "flat beyond its end"
