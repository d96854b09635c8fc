"""Votes over chains of several models, on a case worked by hand."""

import pytest

from paperflows.components.data.jsonl import write_jsonl
from paperflows.tasks.chains import Pool, score_chains
from paperflows.tasks.data import DatasetArtifact
from paperflows.tasks.reasoning import vote_answers
from paperflows.tasks.simulation import simulate_judge
from paperflows.tasks.store import new_artifact

POOL = Pool(dataset="d", answer="letters", judge="letters", first=3, most=3)


def dataset(*answers, models=("x", "y", "z")):
    rows = [
        {"id": i, "question": f"question {i}", "answer": "a",
         "chains": [{"model": m, "text": "so", "answer": a} for m, a in zip(models, some, strict=True)]}
        for i, some in enumerate(answers)
    ]  # fmt: skip
    with new_artifact() as (folder, artifact):
        write_jsonl(folder / "test.jsonl", rows)
    return DatasetArtifact(
        **artifact, name="d", source="folder", task="reasoning chains", content="", rows={"test": len(rows)}, warnings=[]
    )  # fmt: skip


def votes(data, folds=3, limit=10):
    scores = score_chains.fn(data, POOL, "letters", None, folds, 1.0, 0)
    return {name: choice["accuracy"] for name, choice in vote_answers.fn(data, POOL, scores, limit).items()}


def test_models_vote_with_what_they_are_right_on_other_questions(in_project):
    # one question a fold; x, y, z are right 1 1 0, 0 0 0, 0 1 0 times. First question: x and z weigh one half each,
    # a tie; second: x one half, the others nothing; third: x 1, z one half, all for the wrong answer
    found = votes(dataset("abb", "aba", "bbb"))
    assert found["model_vote"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert found["majority"] == pytest.approx(1 / 3)
    assert votes(dataset("abb", "aba", "bbb"), limit=1)["model_vote"] == 0.5, "the others are read, not answered"


def test_chains_of_one_model_have_no_such_vote(in_project):
    assert "model_vote" not in votes(dataset("abb", "aba", models=("m", "m", "m")), folds=2)


def test_no_vote_can_use_a_simulated_judge(in_project):
    data = dataset("abb", "aba")
    judge = simulate_judge.fn(data, POOL, 0.97, 0)
    assert judge["how"] == "simulated" and judge["auc"] > 0.5
    with pytest.raises(KeyError):
        vote_answers.fn(data, POOL, judge, 10)
