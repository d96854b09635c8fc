"""Votes over chains of several models, on a case worked by hand."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from paperflows.components.data.jsonl import write_jsonl
from paperflows.components.training.loop import train
from paperflows.tasks import chain_reading
from paperflows.tasks.chain_reading import READ, ChainReading, read_chains
from paperflows.tasks.chains import Pool, group_by_topic, score_chains, score_read_chains
from paperflows.tasks.claims import Claim, judge_claim
from paperflows.tasks.data import DatasetArtifact
from paperflows.tasks.reasoning import vote_answers
from paperflows.tasks.simulation import simulate_judge
from paperflows.tasks.store import OUTPUTS, new_artifact, open_artifact

POOL = Pool(dataset="d", answer="letters", judge="letters", first=3, most=3)


def dataset(*answers, models=("x", "y", "z")):
    rows = [
        {"id": i, "question": f"question {i}", "answer": "a",
         "chains": [{"model": m, "text": f"so {m} {i}", "answer": a} for m, a in zip(models, some, strict=True)]}
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


READING = ChainReading(
    model="minilm", layers=1, max_length=24, folds=2, steps=3, batch_size=2, learning_rate=1e-3
)  # fmt: skip


def test_the_reader_of_a_fold_does_not_see_its_answers(in_project, monkeypatch):
    def trained(_name, _settings, model, batch_at, loss_fn, steps, learning_rate, seed, device, **more):
        return train(
            model=model, batch_at=batch_at, loss_fn=loss_fn, steps=steps, learning_rate=learning_rate, seed=seed,
            device=device, **more,
        )  # fmt: skip

    monkeypatch.setattr(chain_reading, "fit", trained)  # outside a run there is no folder for checkpoints
    filters = POOL.filters
    data, fold = dataset("abb", "aba", "bba", "aab", "bab"), 0
    scores = load_file(open_artifact(read_chains.fn(data, filters, READING, fold, 0, "cpu")) / READ)["scores"]
    assert len(scores) == 9 and scores.std() > 0
    # which questions are of the fold: those whose answers, turned around, change nothing
    same = []
    for i in range(5):
        answers = ["abb", "aba", "bba", "aab", "bab"]
        answers[i] = answers[i].translate(str.maketrans("ab", "ba"))
        other = read_chains.fn(dataset(*answers), filters, READING, fold, 0, "cpu")
        same.append(np.array_equal(load_file(open_artifact(other) / READ)["scores"], scores))
    assert sum(same) == 3, "three of the five questions are held out"


def test_a_pool_of_one_question_has_nothing_to_learn_from(in_project, monkeypatch):
    said = []
    monkeypatch.setattr(chain_reading, "remark", said.append)
    data = dataset("abb")
    parts = [read_chains.fn(data, POOL.filters, READING, fold, 0, "cpu") for fold in range(2)]
    scores = score_read_chains.fn(data, POOL, parts, 0)
    assert (load_file(open_artifact(scores) / "scores.safetensors")["probability"] == 0.5).all()
    assert len(said) == 1 and "learnt nothing" in said[0]


def test_questions_of_one_context_are_resampled_together(in_project):
    rows = [
        {"id": i, "question": f"q{i}", "context": f"c{i // 10}", "answer": "a",
         "chains": [{"model": "m", "text": "so", "answer": "ab"[i // 10 % 2]}]}
        for i in range(60)
    ]  # fmt: skip
    with new_artifact() as (folder, artifact):
        write_jsonl(folder / "test.jsonl", rows)
    data = {**dataset("abb"), **artifact, "rows": {"test": 60}}
    topics = group_by_topic.fn(data, POOL, 60)
    with new_artifact() as (folder, ours):
        save_file({"d": np.array([float(i // 10 % 2 == 0) for i in range(60)])}, folder / OUTPUTS)
    with new_artifact() as (folder, none):
        save_file({"d": np.zeros(60)}, folder / OUTPUTS)
    widths = {}
    for groups in (None, topics):
        claim = Claim(
            id="x", statement="x", metric="accuracy", baseline_name="none", ours=[ours], baseline=[none],
            datasets=["d"], statistic="mean", groups=groups,
        )  # fmt: skip
        low, high = judge_claim.fn(claim, 400)["ci95"]
        widths[groups is None] = high - low
    assert widths[False] > 2 * widths[True], "six contexts are less evidence than sixty questions"
