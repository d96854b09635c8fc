import pytest
import torch

from paperflows.components.early_exit.encoder import ExitEncoder
from paperflows.components.early_exit.exits import (
    MultiExitClassifier,
    confidence_loss,
    exits_loss,
    rescale_gradient,
    task_loss,
)
from paperflows.components.early_exit.pretraining import MultiExitPretrainer, exit_groups, halves, step_flops

from .conftest import small

TARGET = torch.tensor([0, 1, 1, 0, 1])


def classifier(pooling="mean"):
    torch.manual_seed(2)
    return MultiExitClassifier(ExitEncoder(small(num_hidden_layers=4)), outputs=2, pooling=pooling).eval()


def layer_gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return [layer.up.weight.grad.clone() for layer in model.encoder.layers]


@pytest.mark.parametrize("only", [None, [1, 3], [0, 1, 3]])
def test_equilibrium_is_the_mean_of_the_gradients_above(only, batch):
    """Independent reference: the gradient of every exit's loss alone, averaged over the exits at or above a layer."""
    model = classifier()
    wanted = only or [0, 1, 2, 3]
    logits, _ = model(*batch, equilibrium=True, only=only)
    ours = layer_gradients(model, exits_loss(logits, TARGET, weights="sum"))
    alone = {}
    for index in wanted:
        logits, _ = model(*batch, only=[index])
        model.zero_grad()
        task_loss(logits[0], TARGET).backward()
        alone[index] = [
            torch.zeros_like(layer.up.weight) if layer.up.weight.grad is None else layer.up.weight.grad.clone()
            for layer in model.encoder.layers
        ]
    for layer in range(4):
        above = [alone[j][layer] for j in wanted if j >= layer]
        torch.testing.assert_close(ours[layer], torch.stack(above).mean(0), atol=1e-5, rtol=1e-4)


def test_equilibrium_leaves_outputs_and_the_exits_own_gradients(batch):
    model = classifier()
    plain, _ = model(*batch)
    rescaled, _ = model(*batch, equilibrium=True)
    assert all(torch.equal(a, b) for a, b in zip(plain, rescaled, strict=True))
    grads = []
    for equilibrium in (False, True):
        model.zero_grad()
        logits, _ = model(*batch, equilibrium=equilibrium)
        exits_loss(logits, TARGET, weights="sum").backward()
        grads.append([e.classifier.weight.grad.clone() for e in model.exits])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)


def test_rescaled_gradient():
    x = torch.ones(3, requires_grad=True)
    rescale_gradient(x, 0.25).sum().backward()
    assert x.grad.tolist() == [0.25] * 3


def test_weights_by_depth_and_the_last_by_hand():
    logits = [torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 100.0]])]
    target = torch.tensor([1])
    ln2 = torch.log(torch.tensor(2.0))
    torch.testing.assert_close(exits_loss(logits, target, weights="depth"), ln2 / 3)  # (1 * ln 2 + 2 * 0) / 3
    torch.testing.assert_close(exits_loss(logits, target, weights="sum"), ln2)
    assert exits_loss(logits, target, weights="last") == 0
    assert task_loss(torch.tensor([[1.0], [3.0]]), torch.tensor([1.0, 1.0])) == 2.0


def test_confidence_learns_without_moving_the_encoder(batch):
    model = classifier()
    logits, pooled = model(*batch)
    confidence_loss(model.confidence, logits, pooled, TARGET).backward()
    assert model.confidence.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.encoder.parameters())


def test_pooling_of_the_first_token_and_of_the_mean(batch):
    ids, mask = batch
    *_, last = classifier().encoder.states(ids, mask)
    _, mean = classifier("mean")(ids, mask)
    _, first = classifier("first")(ids, mask)
    torch.testing.assert_close(mean[-1][1], last[1, :6].mean(0))
    torch.testing.assert_close(first[-1], last[:, 0])


def test_groups_of_the_paper():
    assert exit_groups(12, 2) == [[0, 2, 4, 6, 8, 10, 11], [1, 3, 5, 7, 9, 11]]
    assert exit_groups(4, 1) == [[0, 1, 2, 3]]


def test_halves_are_consecutive_and_cut_at_a_sentence_end():
    assert halves("One two. Three four five six. Seven.") == ("One two.", "Three four five six. Seven.")
    assert halves("a man is eating") == ("a man is", "eating")
    assert halves("word") is None


def test_pretraining_sums_both_losses_of_the_group(batch):
    ids, mask = batch
    torch.manual_seed(0)
    model = MultiExitPretrainer(ExitEncoder(small())).eval()
    labels = torch.full_like(ids, -100)
    labels[0, 1], labels[3, 2] = 7, 9
    swapped = torch.tensor([0, 1, 0, 1, 1])
    loss = model(ids, mask, labels, swapped, [0, 2])
    states = list(model.encoder.states(ids, mask))
    words = model.encoder.encoder.embeddings.word_embeddings.weight
    expected = 0.0
    for index in (0, 2):
        scores = model.transform(states[index][labels != -100]) @ words.T + model.bias
        expected += torch.nn.functional.cross_entropy(scores, torch.tensor([7, 9]))
        expected += torch.nn.functional.cross_entropy(model.order[index](states[index][:, 0]), swapped)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert model.order[1].weight.grad is None and words.grad.abs().sum() > 0


def test_equal_compute_counts_the_heads():
    cost = {"depth": 2, "width": 4, "inner": 16, "vocabulary": 100, "tokens": 10.0}
    head = 2 * 0.15 * 10 * (16 + 400) + 16
    assert step_flops(exits=2, **cost) - step_flops(exits=1, **cost) == pytest.approx(head)
