"""Predictors of where a model errs."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from paperflows.components.models.tiny_bert import tiny_bert, train_wordpiece
from paperflows.components.training.loop import train
from paperflows.tasks import difficulty
from paperflows.tasks.difficulty import BITS, foresee_errors, study_difficulty
from paperflows.tasks.store import OUTPUTS, new_artifact, open_artifact

TRAINING = {
    "max_length": 16, "pooling": "mean", "freeze_embeddings": False, "steps": 80, "batch_size": 16,
    "learning_rate": 3e-3, "head_rate": 5.0,
}  # fmt: skip


def told(i):
    """A pair in which one word of the first text says whether the second layer errs, and whether people disagree."""
    hard = i % 3 == 0
    return {"text": f"{'odd' if hard else 'plain'} film {i % 5}", "text_pair": f"play {i % 7}"}, hard


@pytest.mark.parametrize("kind", ["model", "human"])
def test_an_encoder_learns_what_a_word_tells_and_is_the_predictor_then(in_project, monkeypatch, kind):
    def fit(name, settings, model, batch_at, loss_fn, steps, learning_rate, seed, device, rates):
        return train(
            model=model, batch_at=batch_at, loss_fn=loss_fn, steps=steps, learning_rate=learning_rate, seed=seed,
            device=device, rates=rates,
        )  # fmt: skip

    monkeypatch.setattr(difficulty, "fit", fit)  # without a flow there are no checkpoints to keep
    with new_artifact() as (folder, artifact):
        for split, count in (("train", 60), ("validation", 20), ("test", 30)):
            pairs = [told(i) for i in range(count)]
            for name, lines in (
                ("model", [{**row, "correct": [1, int(not hard)]} for row, hard in pairs]),
                ("human", [{**row, "label": "hard" if hard else "easy"} for row, hard in pairs]),
            ):
                (folder / f"{name}_{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = {**artifact, "name": "d", "content": "x", "rows": {}, "task": "difficulty"}
    with new_artifact() as (folder, start):
        tokenizer = train_wordpiece(["odd plain film play 0 1 2 3 4 5 6"] * 3, vocab_size=60)
        tokenizer.save_pretrained(folder)
        tiny_bert(vocab_size=len(tokenizer), width=32, layers=2, heads=2, positions=32, seed=0).bert.save_pretrained(
            folder
        )
    tuned = foresee_errors.fn(kind, start, data, None, None, 10, 60, TRAINING, 0, "cpu")
    said = load_file(open_artifact(tuned) / BITS)
    hard = np.array([told(i)[1] for i in range(30)])
    wanted = np.stack([np.ones(30), ~hard], 1) if kind == "model" else hard[:, None]
    assert said["validation"].shape == (20, wanted.shape[1]) and np.array_equal(said["test"], wanted)

    blind = {which: tuned if which == kind else _ones(which) for which in ("model", "human")}
    found = study_difficulty.fn(data, None, None, 10, 60, blind)
    assert found["measures"][f"{kind}.fine-tuned.accuracy"] == 1.0
    assert {"words", "embeddings", "fine-tuned"} <= {name.split(".")[1] for name in found["measures"]}
    right = load_file(open_artifact(found["predictor" if kind == "model" else "human"]) / OUTPUTS)["d"]
    assert right.mean() == 1.0, "words alone say it too, and one of those that do is taken"


def _ones(kind):
    from safetensors.numpy import save_file

    width = 2 if kind == "model" else 1
    with new_artifact() as (folder, artifact):
        save_file({"validation": np.ones((20, width)), "test": np.ones((30, width))}, folder / BITS)
    return artifact
