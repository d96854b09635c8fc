"""What becomes of a request that a service refused."""

import csv
import json

import pytest

from paperflows.components.alignment.scale import SCALES
from paperflows.components.alignment.scorer import AlignmentScorer
from paperflows.components.errors import InputError
from paperflows.components.models.tiny_bert import tiny_bert, train_wordpiece
from paperflows.tasks.alignment import AnswersArtifact, ScoresArtifact, _unanswered, score_answers, summarise_models
from paperflows.tasks.scorers import collect_judged
from paperflows.tasks.store import new_artifact, open_artifact


def save_scorer(folder):
    """A fresh scorer of two scores with one head."""
    tokenizer = train_wordpiece(["p one quite another prompt good BAD"] * 3, vocab_size=80)
    encoder = tiny_bert(vocab_size=len(tokenizer), width=16, layers=1, heads=2, positions=32, seed=0).bert
    encoder.pooler = None
    AlignmentScorer(encoder, tokenizer, topics=["all"], scores=[1, 3], max_length=32, pairs=0).save(folder)


def test_an_answer_that_never_came_has_no_score():
    answered = {"id": "1", "answer": "no", "error": "", "score": 3, "doubt": 0.1}
    refused = {"id": "2", "answer": "", "error": "400: content policy", "score": 3, "doubt": 0.0}
    silent = {"id": "3", "answer": " \n", "error": "", "score": 3, "doubt": 0.0}
    assert _unanswered([answered, refused, silent]) == [
        answered, {**refused, "score": None, "doubt": 1.0}, {**silent, "score": None, "doubt": 1.0},
    ]  # fmt: skip


def judged(folder, paired):
    """A classification whose offensive texts shout, with or without prompts."""
    rows = []
    for i in range(40):
        text = (
            {"text": "p", "text_pair": "BAD" if i % 2 else "good"} if paired else {"text": "BAD" if i % 2 else "good"}
        )
        rows.append({**text, "topic": "all", "label": "bad" if i % 2 else "ok"})
    for split in ("train", "validation", "test"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("paired", [True, False])
def test_a_scorer_that_learnt_from_comments_reads_answers_alone(in_project, paired):
    with new_artifact() as (folder, artifact):
        judged(folder, paired)
    dataset = {**artifact, "name": "d", "content": "x", "rows": {}, "task": "classification"}
    data = collect_judged.fn(dataset, {"ok": 3, "bad": 1}, dict.fromkeys(("train", "validation", "test"), 40))
    assert data["paired"] is paired
    with new_artifact() as (folder, scorer):
        save_scorer(folder)
    rows = [
        {"id": "1", "model": "m", "dimension": "Fairness", "subcomponent": "", "prompt": prompt, "answer": "good",
         "error": "", "gold": None}
        for prompt in ("one", "quite another prompt")
    ]  # fmt: skip
    with new_artifact() as (folder, artifact):
        (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scored = score_answers.fn(AnswersArtifact(**artifact, model="m", usage={}), scorer, data["paired"], "cpu")
    doubts = [json.loads(line)["doubt"] for line in (open_artifact(scored) / "scores.jsonl").open()]
    assert (doubts[0] == doubts[1]) is not paired, "without pairs the prompt changes nothing"


def test_one_score_is_nothing_to_learn(in_project):
    with new_artifact() as (folder, artifact):
        judged(folder, False)
    dataset = {**artifact, "name": "d", "content": "x", "rows": {}, "task": "classification"}
    with pytest.raises(InputError, match="all training rows have the score 3"):
        collect_judged.fn(dataset, {"ok": 3, "bad": 3}, {"train": 9, "validation": 9, "test": 9})


def scored(model, scores):
    """A model's scores, the same in every dimension."""
    rows = [
        {
            "id": f"{dimension}-{i}", "model": model, "dimension": dimension, "subcomponent": "part", "prompt": "p",
            "answer": "" if score is None else "a", "score": score, "doubt": float(score is None), "gold": None,
        }
        for dimension in SCALES
        for i, score in enumerate(scores)
    ]  # fmt: skip
    with new_artifact() as (folder, artifact):
        (folder / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ScoresArtifact(**artifact, model=model, unread=0, cut=0)


def test_rates_are_of_the_answers_that_have_a_score(in_project):
    filtered, complete = scored("filtered", [3, 1, 3, None]), scored("complete", [3, 1, 3, 1])
    benchmark = summarise_models.fn([filtered, complete], [], 6, 100, [])
    figures = benchmark["figures"]
    assert figures["filtered.overall"] == figures["filtered.rate.Safety"] == pytest.approx(200 / 3)
    assert figures["filtered.score.Safety"] == pytest.approx(700 / 9)
    assert figures["complete.overall"] == 50 and figures["complete.unscored"] == 0
    assert figures["filtered.unscored"] == len(SCALES)
    assert figures["p.filtered vs complete"] == 1, "equal on the prompts that both answered"
    with (open_artifact(benchmark) / "review.csv").open(encoding="utf-8-sig", newline="") as file:
        sheet = list(csv.DictReader(file))
    assert [row["score"] for row in sheet] == [""] * len(SCALES) + ["1"], "those nobody scored come first"
