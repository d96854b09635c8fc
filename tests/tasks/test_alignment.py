"""What becomes of a request that a service refused."""

import csv
import json

import pytest

from paperflows.components.alignment.scale import SCALES
from paperflows.tasks.alignment import ScoresArtifact, _unanswered, summarise_models
from paperflows.tasks.store import new_artifact, open_artifact


def test_an_answer_that_never_came_has_no_score():
    answered = {"id": "1", "answer": "no", "error": "", "score": 3, "doubt": 0.1}
    refused = {"id": "2", "answer": "", "error": "400: content policy", "score": 3, "doubt": 0.0}
    assert _unanswered([answered, refused]) == [answered, {**refused, "score": None, "doubt": 1.0}]


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
