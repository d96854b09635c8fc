import copy

import numpy as np
import pytest
import torch

from paperflows.components.errors import InputError
from paperflows.components.evaluation.activations import saved_bytes
from paperflows.components.evaluation.information import label_information
from paperflows.components.prompts import tuning
from paperflows.components.prompts.loading import all_logits, all_means, logits_and_means
from paperflows.components.prompts.stored import store_states
from paperflows.components.prompts.verbalizer import LabelHead, Template, WordHead, wrap
from paperflows.components.training.loop import train

from .conftest import small

WORDS = {"0": "bad", "1": "good"}


def built(method, layer=2, seed=0):
    model = small()
    return tuning.build(
        method, model.base_model, WordHead(model, torch.tensor([7, 8])), layer=layer, length=2, bottleneck=4, rank=2,
        start=torch.randn(2, 16), seed=seed,
    )  # fmt: skip


@pytest.fixture
def texts(tokenizer):
    words = ["it", "was", "good", "bad", "yes", "no", "maybe", "the", "film", "a"]
    random = np.random.default_rng(0)
    rows = [{"text": " ".join(random.choice(words, size=1 + i % 7)), "label": str(i % 2)} for i in range(12)]
    return wrap(rows, Template("{text} {mask} .", WORDS, WORDS), tokenizer, max_length=16)


SIZES = {
    "naive": 2 * 16,
    "npg": 17 * 4 + 5 * 32,
    "appg": 17 * 4 + 5 * 16,
    "mppg": 17 * 4 + 5 * 16,
    "input": 32,
    "deep": 4 * 32,
}
SIZES |= {"lora": 4 * 2 * 2 * (16 + 16), "adapter": 4 * (17 * 4 + 5 * 16)}


@pytest.mark.parametrize("method", [*SIZES, "bitfit", "full"])
def test_only_what_the_method_names_is_trained(method, texts):
    model = built(method)
    if method in SIZES:
        assert tuning.trainable(model) == SIZES[method]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    free = {name for name, p in model.named_parameters() if p.requires_grad}
    batch = texts.batch(np.arange(12))
    train(model=model, batch_at=lambda _: batch, loss_fn=tuning.loss, steps=3, learning_rate=0.05, device="cpu")
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed and changed <= free
    if method == "bitfit":
        assert all(name.endswith("bias") for name in changed)


@pytest.mark.parametrize("kind", ["naive", "npg", "appg", "mppg"])
def test_training_on_stored_states_is_the_same_training(kind, texts, tmp_path):
    results = []
    for stored in (False, True):
        model = built(kind)
        source = store_states(model, texts, tmp_path / "s.npy") if stored else texts
        train(
            model=model, batch_at=lambda step, s=source: s.batch(np.arange(step % 3, 12, 3)), loss_fn=tuning.loss,
            steps=6, learning_rate=0.02, device="cpu",
        )  # fmt: skip
        results.append(all_logits(model, source))
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=0)


def test_one_pass_says_logits_and_means(texts, tmp_path):
    model = built("npg")
    with torch.no_grad():
        for weights in model.prompts.parameters():
            weights.normal_()
    for source in (texts, store_states(model, texts, tmp_path / "s.npy")):
        logits, means = logits_and_means(model.train(), source)
        assert logits.shape == (12, 2) and means.shape == (12, 16) and not model.training
        torch.testing.assert_close(logits, all_logits(model, source))
        torch.testing.assert_close(means, all_means(model, source))


def test_nothing_below_a_late_prompt_keeps_activations(texts):
    batch = texts.batch(np.arange(12))
    kept = {}
    for layer in (1, 2, 3):
        model = built("naive", layer).train()
        kept[layer] = saved_bytes(lambda m=model: tuning.loss(m, batch), model.parameters())
    full = built("full").train()
    # the same step between layers: one layer's activations each
    assert kept[1] - kept[2] == pytest.approx(kept[2] - kept[3], rel=0.01) and kept[3] < kept[2] < kept[1]
    assert saved_bytes(lambda: tuning.loss(full, batch), full.parameters()) > kept[1]


def test_saved_bytes_counts_a_storage_once_and_no_weights():
    w, x = torch.randn(8, 8, requires_grad=True), torch.randn(4, 8, requires_grad=True)
    assert saved_bytes(lambda: x @ w, [w]) == 4 * 8 * 4
    y = torch.randn(4, 8, requires_grad=True)
    assert saved_bytes(lambda: (y.exp() * 2).sum(), []) == 4 * 8 * 4


def test_a_layer_that_is_not_there_is_an_input_error():
    for layer in (0, 4):
        with pytest.raises(InputError, match="layers 1 to 3"):
            built("npg", layer)


def test_information_is_the_entropy_where_states_tell_the_label_and_nothing_where_they_do_not():
    random = np.random.default_rng(0)
    labels = np.arange(400) % 4
    told = np.eye(4)[labels] * 8 + random.normal(size=(400, 4)) * 0.1
    assert 1.3 < label_information(told, labels) <= 2.0
    assert label_information(random.normal(size=(400, 4)), labels) < 0.05


def test_peft_updates_are_those_of_lora(texts):
    model = built("lora")
    plain = copy.deepcopy(small())
    batch = texts.batch(np.arange(12))
    reference = tuning.PromptedClassifier(plain.base_model, WordHead(plain, torch.tensor([7, 8])), {})
    torch.testing.assert_close(model(batch), reference(batch), atol=1e-6, rtol=0)
    layer = model.encoder.encoder.encoder.layer[1].attention.self.query
    with torch.no_grad():
        layer.lora_B["default"].weight.normal_()
        query = plain.base_model.encoder.layer[1].attention.self.query
        query.weight += 2.0 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    torch.testing.assert_close(model(batch), reference(batch), atol=1e-5, rtol=0)


def test_label_sentences_serve_as_a_head_too(texts):
    model = tuning.PromptedClassifier(small().base_model, LabelHead(torch.randn(2, 16)), {})
    assert all_logits(model, texts).abs().max() <= 20.001
