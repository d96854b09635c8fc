"""Weights by model on a case worked by hand: one question a fold, so that no draw matters."""

import numpy as np
import pytest

from paperflows.components.reasoning.model_prior import out_of_fold
from paperflows.components.reasoning.recorded import read_questions
from paperflows.components.reasoning.verifier import correct


def asked(*answers, models=("x", "y", "z")):
    return read_questions(
        [
            {"id": i, "question": f"question {i}", "answer": "a",
             "chains": [{"model": m, "text": "so", "answer": a} for m, a in zip(models, some, strict=False)]}
            for i, some in enumerate(answers)
        ],
        kind="letters",
    )  # fmt: skip


def weights(questions, right=None, folds=3):
    return out_of_fold(questions, correct(questions, "letters") if right is None else right, folds=folds, seed=0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_chain_weighs_what_its_model_is_right_elsewhere(seed):
    questions = asked("abb", "aba", "bbb")
    found = out_of_fold(questions, correct(questions, "letters"), folds=3, seed=seed)
    assert found.tolist() == [0.5, 0, 0.5, 0.5, 0, 0, 1, 0, 0.5]


def test_the_question_itself_says_nothing():
    questions = asked("abb", "aba", "bbb")
    right = correct(questions, "letters")
    lied = right.copy()
    lied[:3] = ~lied[:3]
    assert np.array_equal(weights(questions, lied)[:3], weights(questions)[:3])
    assert not np.array_equal(weights(questions, lied)[3:], weights(questions)[3:])


def test_a_model_that_wrote_nothing_elsewhere_counts_as_all():
    # z answers the last question alone; elsewhere two of four chains are right
    assert weights(asked("ab", "ab", "aab")).tolist()[-1] == 0.5


def test_one_model_says_nothing():
    assert weights(asked("aa", "ab", models=("m", "m"))) is None
