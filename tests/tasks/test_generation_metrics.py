"""Metrics of generated text as tasks: where their models run."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.numpy import load_file

from paperflows.components.data.jsonl import write_jsonl
from paperflows.components.generation_metrics import likelihood, regression
from paperflows.components.models import pretrained
from paperflows.components.training import device as devices
from paperflows.tasks.generation_metrics import PAIRS, PairsToScore, score_likelihood, score_regression
from paperflows.tasks.store import OUTPUTS, new_artifact, open_artifact


@pytest.mark.parametrize("kind", ["regression", "likelihood"])
def test_a_metric_scores_on_the_device_that_was_asked_for(in_project, monkeypatch, kind):
    asked, seen = [], []

    def place(device):
        asked.append(device)
        return SimpleNamespace(device=torch.device("meta"))

    def scores(model, _tokenizer, pairs, *, max_length):
        seen.append(model.weight.device.type)
        return torch.arange(float(len(pairs)))

    monkeypatch.setattr(devices, "accelerator", place)
    monkeypatch.setattr(regression, "load_regressor", lambda _model: (torch.nn.Linear(1, 1), None))
    monkeypatch.setattr(regression, "predict", scores)
    monkeypatch.setattr(likelihood, "likelihood_score", scores)
    monkeypatch.setattr(pretrained, "load_pretrained", lambda *_: torch.nn.Linear(1, 1))
    monkeypatch.setattr(pretrained, "load_tokenizer", lambda _: None)
    with new_artifact() as (folder, artifact):
        write_jsonl(folder / PAIRS, [{"group": "age", "candidate": c, "reference": "r"} for c in ("a", "b")])
    pairs = PairsToScore(**artifact, groups=["age"], human=[])
    if kind == "regression":
        found = score_regression.fn(pairs, artifact, 8, "cuda")
    else:
        found = score_likelihood.fn(pairs, "any", 8, "cuda")
    assert asked == ["cuda"] and seen == ["meta"]
    assert load_file(open_artifact(found) / OUTPUTS)["age"].tolist() == [0.0, 1.0]
