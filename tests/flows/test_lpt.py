from pathlib import Path

import pytest

from paperflows.flows import lpt
from paperflows.flows.params import load_parameters

ROOT = Path(__file__).parent.parent.parent


class Tried:
    """A training that has ended, with a dev score from a table."""

    def __init__(self, **said):
        self.said = said

    def result(self):
        return self.said


@pytest.fixture
def trainings(monkeypatch):
    """(method, layer, rate) -> dev score, 0.5 where none is given; and what was trained, in order."""
    scores, done = {}, []

    def tune(params, model, shots, method, layer, rate, seed):
        done.append((method, layer, rate, seed))
        score = scores.get((method, layer, rate), 0.5)
        return Tried(method=method, layer=layer, rate=rate, score=score, dataset=shots)

    monkeypatch.setattr(lpt, "tune", tune)
    return scores, done


def parameters(profile="laptop", *overrides):
    return load_parameters(lpt.Lpt, "lpt", ROOT, profile=profile, overrides=overrides)


RATES = "rates={npg: [0.1, 0.2], appg: [0.1, 0.2], naive: [0.3, 0.4], input: [0.5, 0.6], full: [0.7, 0.8]}"
SMALL = ("layer=3", "layers=[2, 4, 5]", "generators=[npg, appg]", "ranked=[]", "seeds=[7, 8]", RATES)


def test_dev_chooses_kind_and_rate_then_the_layer_and_naive_its_rate_there(trainings):
    scores, done = trainings
    scores |= {("appg", 3, 0.2): 0.6, ("npg", 5, 0.1): 0.9, ("appg", 5, 0.2): 0.7, ("input", 3, 0.6): 0.8}
    scores |= {("naive", 3, 0.3): 0.9, ("naive", 5, 0.4): 0.6}
    params = parameters("laptop", *SMALL)
    chosen = lpt.choose(params, "model", "task")
    settled = {m: (chosen[m]["method"], chosen[m]["layer"], chosen[m]["rate"]) for m in ("late", *params.judged)}
    assert settled == {
        "late": ("appg", 5, 0.2), "naive": ("naive", 5, 0.4), "input": ("input", 3, 0.6), "full": ("full", 3, 0.7),
    }  # fmt: skip
    assert [(t["layer"], t["score"]) for t in chosen["layers"]] == [(3, 0.6), (2, 0.5), (4, 0.5), (5, 0.7)]
    assert {seed for *_, seed in done} == {7}

    # every seed has the chosen settings
    done.clear()
    rows = lpt.tune_all(params, "model", "naive", [["task"], ["task"]], [chosen])
    assert done == [("naive", 5, 0.4, 7), ("naive", 5, 0.4, 8)] and [len(row) for row in rows] == [1, 1]


def test_of_equals_on_dev_the_first_tried_is_taken(trainings):
    scores, _ = trainings
    chosen = lpt.choose(parameters("laptop", *SMALL), "model", "task")
    late = chosen["late"]
    assert (late["method"], late["layer"], late["rate"], chosen["naive"]["rate"]) == ("npg", 3, 0.1, 0.3)
    scores |= {("npg", 5, 0.1): 0.6, ("npg", 4, 0.1): 0.6}
    assert lpt.choose(parameters("laptop", *SMALL), "model", "task")["late"]["layer"] == 4


def test_the_trials_of_the_note_are_those_that_are_made(trainings):
    _, done = trainings
    params = parameters("laptop", *SMALL)
    lpt.choose(params, "model", "task")
    late = {training for training in done if training[0] in params.generators}
    assert len(late) == lpt.late_trials(params) == 4 + 3


@pytest.mark.parametrize("profile", ["smoke", "laptop", "study", "paper"])
def test_whom_the_late_prompt_is_judged_against_has_as_many_trials(profile):
    params = parameters(profile)
    assert {m: len(params.rates[m]) for m in params.judged} == dict.fromkeys(params.judged, lpt.late_trials(params))
