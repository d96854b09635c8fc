"""What the classifiers read: trees, places and words by hand, and a task that only the tree can solve."""

import numpy as np
import pytest
import torch

from paperflows.components.syntax import aspect_models
from paperflows.components.syntax.aspect_encoder import WordEncoder, WordTable, word_embeddings
from paperflows.components.syntax.aspect_training import AspectData, predict_classes, train_classifier
from paperflows.components.syntax.trees import chain, distances, random_tree

BOTH = pytest.mark.parametrize("recurrent", [True, False], ids=["words", "states"])


@BOTH
@pytest.mark.parametrize("name", aspect_models.MODELS)
def test_models_read_the_tree_and_ignore_padding(name, recurrent):
    torch.manual_seed(0)
    model = aspect_models.MODELS[name](8, 8, 3, recurrent).eval()
    states, n = torch.randn(1, 5, 8), 5
    aspect = torch.tensor([[False, True, False, False, False]])
    mask = torch.ones(1, n, dtype=torch.bool)
    star = torch.from_numpy(distances(np.array([1, -1, 1, 1, 1])))[None]
    line = torch.from_numpy(distances(chain(5)))[None]
    one, other = model(states, mask, aspect, star), model(states, mask, aspect, line)
    assert torch.allclose(one, other) == (name == "mlp"), "only the MLP reads no tree"
    padded = torch.cat([states, torch.randn(1, 3, 8)], 1)
    far = torch.full((1, 8, 8), 8)
    far[:, :5, :5] = star
    longer = model(padded, torch.arange(8)[None] < 5, torch.cat([aspect, torch.zeros(1, 3, dtype=torch.bool)], 1), far)
    torch.testing.assert_close(one, longer)


def hung_opinions(count, seed, *, other_trees=False):
    """Sentences of eight shuffled words: a good and a bad one, of which the one that hangs on the aspect is the label.

    The other hangs at the end of a branch, so that words and their order say nothing. With `other_trees` the model
    gets random trees in place of these.
    """
    rng, vectors = np.random.default_rng(seed), np.random.default_rng(99).normal(size=(12, 16))
    rows, heads, states = [], [], []
    for number in range(count):
        good, aspect, near, far, *branch = int(rng.integers(2)), *rng.permutation(8).tolist()
        kinds = rng.integers(4, 12, size=8)
        kinds[[aspect, near, far]] = 0, 1 + good, 2 - good
        tree = np.full(8, -1)
        tree[near] = aspect
        for word, head in zip([*branch, far], [aspect, *branch], strict=True):
            tree[word] = head
        rows.append({"words": [str(k) for k in kinds], "inside": [aspect], "label": str(good), "sentence": number})
        heads.append(random_tree(8, rng) if other_trees else tree)
        states.append(vectors[kinds])
    table = WordTable(torch.from_numpy(np.concatenate(states)).float(), np.full(count, 8))
    return AspectData(rows, heads, table, ["0", "1"])


@BOTH
@pytest.mark.parametrize("name", aspect_models.MODELS)
def test_what_only_the_tree_tells_is_learnt_from_the_tree(name, recurrent):
    train, validation, test = (hung_opinions(n, s) for n, s in ((300, 0), (100, 1), (200, 2)))
    model = train_classifier(
        name, train, validation, hidden=24, steps=150, batch_size=32, learning_rate=1e-2, evaluations=2,
        recurrent=recurrent, seed=0, device="cpu",
    )  # fmt: skip
    accuracy = float((predict_classes(model, test) == test.gold.numpy()).mean())
    assert accuracy < 0.65 if name == "mlp" else accuracy > 0.9, accuracy
    other = hung_opinions(200, 2, other_trees=True)
    assert float((predict_classes(model, other) == other.gold.numpy()).mean()) < 0.7, (
        "it decides by the tree it is given"
    )


def test_proximity_worked_by_hand():
    aspect = torch.tensor([[False, True, True, False, False]])
    mask = torch.tensor([[True, True, True, True, False]])
    steps = aspect_models.aspect_distance(torch.from_numpy(distances(chain(5)))[None], aspect)
    assert steps.tolist() == [[1, 0, 0, 1, 2]] == aspect_models.linear_steps(aspect).tolist()
    # two words are outside the aspect, each one step from it
    assert aspect_models.proximity(steps, mask, aspect).tolist() == [[0.5, 0, 0, 0.5, 0]]


def test_the_convolution_of_asgcn_worked_by_hand():
    model = aspect_models.ASGCN(2, 2, 2, recurrent=False).eval()
    eye = torch.eye(2)
    for layer in (model.read.linear, *model.convolutions, model.out):
        layer.weight.data.copy_(eye)
    for bias in (model.read.linear.bias, model.out.bias):
        bias.data.zero_()
    states = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]]])
    aspect, mask = torch.tensor([[True, False, False]]), torch.ones(1, 3, dtype=torch.bool)
    tree = torch.from_numpy(distances(np.array([-1, 0, 1])))[None]  # a chain 0 - 1 - 2
    # places: word 1 is a step away of 2 context words: 0.5; word 2 two: 0; the aspect itself: 0
    # layer 1: h0 = 0.5 w1 / 3, h1 = 0.5 w1 / 4, h2 = 0.5 w1 / 3; layer 2: h0 = 0.5 h1 / 3 = (0, 1/48)
    scores = torch.tensor([0.0, 1 / 48, 0.0]).softmax(0)
    torch.testing.assert_close(model(states, mask, aspect, tree)[0], (states[0] * scores[:, None]).sum(0))


def test_word_embeddings_are_means_of_pieces_and_know_no_sentence():
    from paperflows.components.models.tiny_bert import tiny_bert, train_wordpiece

    sentences = [["unbelievable", "soup"], ["soup", "unbelievable", "cold"]]
    tokenizer = train_wordpiece(["soup cold un able"] * 3, vocab_size=40)
    bert = tiny_bert(vocab_size=len(tokenizer), width=16, layers=1, heads=2, positions=64, seed=0).bert.eval()
    table = word_embeddings(WordEncoder(bert, tokenizer), sentences)
    (first, _), (second, _) = table.pad(np.array([0])), table.pad(np.array([1]))
    torch.testing.assert_close(first[0], second[0, [1, 0]])
    pieces = tokenizer("unbelievable", add_special_tokens=False)["input_ids"]
    torch.testing.assert_close(first[0, 0], bert.get_input_embeddings().weight[pieces].mean(0))
