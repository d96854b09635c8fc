import numpy as np
import pytest

from paperflows.components.reasoning.recorded import read_questions
from paperflows.components.reasoning.verifier import auc, correct, evidence, features, out_of_fold, to_points
from paperflows.components.reasoning.voting import adaptive, any_right, best_of, vote, vote_of_complex


def right(answer):
    return answer == "a"


def test_votes_split_ties():
    assert vote(["a", "b", "b"], right) == 0
    assert vote(["a", "b", None], right) == 0.5
    assert vote([None, None], right) == 0
    assert vote(["a", "b", "b"], right, [0.9, 0.3, 0.4]) == 1


def test_complexity_takes_the_longer_half():
    assert vote_of_complex(["a", "b", "b", "b"], [9, 1, 2, 3], right) == 0.5
    assert vote_of_complex(["a", "b", "b"], [9, 1, 2], right) == 0.5


def test_best_of_n():
    assert best_of(["a", "b", None], [0.8, 0.7, 0.99], right) == 1
    assert best_of(["a", "b"], [0.5, 0.5], right) == 0.5
    assert best_of([None], [0.5], right) == 0


def test_adaptive_stops_when_the_majority_is_beyond_doubt():
    # four of four: the Beta(5, 1) posterior puts 1 - 0.5^5 = 0.969 above one half; three of three only 0.9375
    assert adaptive(["a"] * 10, right) == (1.0, 4)
    assert adaptive(["a", "b"] * 3, right) == (0.5, 6)


def test_upper_bound():
    assert any_right(["b", None], right) == 0 and any_right(["b", "a"], right) == 1


def questions(count=30, chains=6, seed=0):
    random, rows = np.random.default_rng(seed), []
    for number in range(count):
        a, b = random.integers(2, 90, 2)
        made = []
        for _ in range(chains):
            slip = int(random.random() < 0.4)
            made.append({"model": "m", "text": f"{a} + {b} = {a + b + slip}. The answer is {a + b + slip}.",
                         "answer": str(a + b + slip)})  # fmt: skip
        rows.append({"id": number, "question": f"What are {a} and {b} together?", "answer": str(a + b), "chains": made})
    return read_questions(rows, kind="number")


@pytest.mark.parametrize("method", ["trees", "pairwise"])
def test_a_verifier_learns_that_wrong_sums_are_wrong(method):
    asked = questions()
    x = np.array([features(q.text, c.text, c.answer) for q in asked for c in q.chains])
    truth = correct(asked, "number")
    scores = out_of_fold(asked, x, truth, method=method, folds=3, seed=0)
    assert auc(scores, truth) > 0.95
    shuffled = np.random.default_rng(1).permutation(truth)
    assert auc(out_of_fold(asked, x, shuffled, method=method, folds=3, seed=0), truth) < 0.9


@pytest.mark.parametrize("method", ["trees", "pairwise"])
@pytest.mark.parametrize("answer", [True, False])
def test_chains_that_are_all_right_or_all_wrong_score_alike(method, answer):
    asked = questions(count=8)
    x = np.array([features(q.text, c.text, c.answer) for q in asked for c in q.chains])
    truth = np.full(len(x), answer)
    scores = out_of_fold(asked, x, truth, method=method, folds=2, seed=0)
    assert len(set(scores.tolist())) == 1 and auc(scores, truth) is None


@pytest.mark.parametrize("method", ["trees", "pairwise"])
def test_no_chain_is_judged_by_a_model_that_saw_its_question(method):
    asked = questions(count=12)
    x = np.array([features(q.text, c.text, c.answer) for q in asked for c in q.chains])
    truth = correct(asked, "number")
    scores = out_of_fold(asked, x, truth, method=method, folds=4, seed=0)
    lied = truth.copy()
    lied[:6] = ~lied[:6]  # the first question's labels
    assert np.array_equal(out_of_fold(asked, x, lied, method=method, folds=4, seed=0)[:6], scores[:6])


def test_points_are_quantiles():
    assert to_points(np.array([0.1, 0.9, 0.1, 0.5])).tolist() == [2.5, 8.75, 2.5, 6.25]


def test_evidence_counts_the_others():
    row = {"id": 1, "question": "q", "answer": "5", "chains": [
        {"model": "m", "text": "2 and 3", "answer": "5"}, {"model": "m", "text": "2 and 4", "answer": "5"},
        {"model": "m", "text": "7", "answer": "7"}]}  # fmt: skip
    assert evidence(read_questions([row], kind="number")).tolist() == [[0.5, 0.25], [0.5, 0.25], [0.0, 0.0]]
