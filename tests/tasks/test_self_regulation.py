"""Under which settings the tuned model learns to answer, and under which every method has it answer."""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from paperflows.components.data.jsonl import write_jsonl
from paperflows.components.decoding.configurations import GREEDY, Configuration
from paperflows.components.decoding.writer import train_tokenizer
from paperflows.components.models.tiny_decoder import tiny_decoder
from paperflows.components.training.loop import train
from paperflows.tasks import self_regulation
from paperflows.tasks.decoding import LABELS, FamilyArtifact, open_writer, values_of
from paperflows.tasks.store import new_artifact

GRID = {"temperature": [0, 0.7, 1.3], "top_p": [0.8, 1.0], "top_k": [5, 0], "repetition_penalty": [1.0, 1.3]}
OWN = Configuration(0.7, 0.8, 5, 1.3)


class Recorder:
    """A writer that answers 7 to everything and keeps what it was asked and taught."""

    def __init__(self):
        self.model = torch.nn.Linear(1, 1)
        self.asked, self.taught = [], []

    def settle(self, prompts):
        return [OWN] * len(prompts), [True] * len(prompts)

    def answer(self, prompts, which, configurations, seeds, *, longest, told):
        self.asked += [(prompts[i], c, told) for i, c in zip(which, configurations, strict=True)]
        return ["7"] * len(which)

    def settings_rows(self, prompts, labels):
        return list(zip(prompts, labels, strict=True))

    def answer_rows(self, prompts, answers, told=None):
        self.taught += told or []
        return list(zip(prompts, answers, strict=True))

    def save(self, folder):
        (folder / "model").write_text("")


@pytest.fixture
def writer(in_project, monkeypatch):
    made = Recorder()
    monkeypatch.setattr(self_regulation, "open_writer", lambda *_: made)
    return made


def family(count):
    rows = [{"prompt": f"{i}+7 =", "source": f"{i}+7", "answer": str(i + 7), "references": []} for i in range(count)]
    with new_artifact() as (folder, artifact):
        for split in ("train", "test"):
            write_jsonl(folder / f"{split}.jsonl", rows)
    return FamilyArtifact(**artifact, name="sums", counts={"train": count, "test": count})


def test_every_method_has_the_model_told_the_settings_it_answers_under(writer):
    fixed = {"default": [values_of(Configuration())], "greedy": [values_of(GREEDY)]}
    self_regulation.answer_by_methods.fn(
        "tiny", {}, [family(40)], ["sums"], [{"low": 0.0, "high": 1.0}], fixed, [[0] * 40], [[1.3, 0.8, 0, 1.0]], GRID,
        40, 2, 4, 0, "cpu",
    )  # fmt: skip
    assert all(told for _, _, told in writer.asked)
    under = Counter(c for _, c, _ in writer.asked)
    assert {Configuration(), GREEDY, OWN, Configuration(1.3, 0.8, 0, 1.0)} <= under.keys()
    # a random configuration an input beside these four, of which one temperature in three is greedy
    others = [c for (prompt, c) in {(p, c) for p, c, _ in writer.asked} if c == Configuration(0.0, 1.0, 0, 1.3)]
    assert len(others) == pytest.approx(40 / 6, abs=5) and len(under) > 10


def test_answers_are_learnt_under_settings_of_every_kind(writer, monkeypatch):
    monkeypatch.setattr(self_regulation, "fit", lambda *_: SimpleNamespace(history=[]))
    with new_artifact() as (folder, labels):
        write_jsonl(folder / LABELS, [{"prompt": "1+7 =", "configuration": list(values_of(OWN))}])
    training = {"steps": 1, "batch_size": 2, "learning_rate": 0.1, "rank": 0}
    self_regulation.tune_writer.fn("tiny", {}, [family(300)], [labels], GRID, training, 0, "cpu")
    assert len(writer.taught) == 300
    assert Counter(c.temperature for c in writer.taught) == {t: pytest.approx(100, abs=30) for t in GRID["temperature"]}


def test_a_pretrained_model_is_tuned_by_lora_and_stored_as_a_plain_one(in_project, tmp_path, monkeypatch):
    def fit(name, settings, model, batch_at, loss_fn, steps, learning_rate, seed, device):
        return train(
            model=model, batch_at=batch_at, loss_fn=loss_fn, steps=steps, learning_rate=learning_rate, seed=seed,
            device=device,
        )  # fmt: skip

    monkeypatch.setattr(self_regulation, "fit", fit)  # without a flow there are no checkpoints to keep
    model = tiny_decoder(vocabulary=300, width=32, layers=1, heads=2, hidden=64, positions=64, seed=0)
    model.save_pretrained(tmp_path)
    train_tokenizer(["1+7 = 8"] * 5, size=300).save_pretrained(tmp_path)
    with new_artifact() as (folder, labels):
        write_jsonl(folder / LABELS, [{"prompt": "1+7 =", "configuration": list(values_of(OWN))}])
    training = {"steps": 200, "batch_size": 8, "learning_rate": 0.02, "rank": 4}
    stored = self_regulation.tune_writer.fn(str(tmp_path), None, [family(20)], [labels], GRID, training, 0, "cpu")
    tuned = open_writer("", stored, GRID, "cpu")
    assert tuned.settle(["1+7 ="]) == ([OWN], [True])
    assert not any("lora" in name for name in tuned.model.state_dict())
    kept = tuned.model.state_dict()["model.embed_tokens.weight"][:200]
    # bfloat16 where this machine is fast in it, which rounds by up to 2^-8
    torch.testing.assert_close(kept, model.state_dict()["model.embed_tokens.weight"][:200], rtol=2**-8, atol=0)
