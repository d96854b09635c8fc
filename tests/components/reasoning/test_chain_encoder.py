"""Steps, their soft minimum and pairs by hand; and that the judge starts where the simpler one stands and can learn."""

import math

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from paperflows.components.models.pretrained import load_tokenizer
from paperflows.components.reasoning.chain_encoder import (
    OUTSIDE,
    ChainEncoder,
    ChainTable,
    _steps_of,
    soft_minimum,
    step_logits,
)
from paperflows.components.reasoning.recorded import step_starts
from paperflows.components.reasoning.verifier import align, calibrate, draw_pairs


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("minilm")


def small_encoder(tokenizer, seed=0):
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return ChainEncoder(BertModel(config, add_pooling_layer=False))


def test_a_chain_is_the_soft_minimum_of_its_steps():
    logits = torch.tensor([[1.0, 1.0, 9.0], [0.0, -20.0, 5.0]])
    there = torch.tensor([[True, True, False], [True, True, True]])
    found = soft_minimum(logits, there).tolist()
    assert found[0] == pytest.approx(1.0), "steps that are alike: their value, whatever stands where none is"
    assert found[1] == pytest.approx(-math.log((1 + math.exp(20) + math.exp(-5)) / 3))
    assert found[1] == pytest.approx(-20 + math.log(3)), "one bad step makes the chain bad"


def test_a_step_has_the_mean_of_its_own_states():
    hidden = torch.tensor([[[100.0], [1.0], [3.0], [10.0], [100.0]]])
    steps = torch.tensor([[OUTSIDE, 0, 0, 1, OUTSIDE]])
    logits, there = step_logits(hidden, steps, torch.nn.Identity())
    assert logits.tolist() == [[2.0, 10.0]] and there.all()


def test_tokens_know_their_steps(tokenizer):
    chain = "Two and two is four. So it is 3.5 dollars!\nThe answer is 4."
    assert [chain[i:][:3] for i in step_starts(chain)] == ["Two", "So ", "The"], "3.5 is no end of a sentence"
    table = ChainTable(tokenizer, ["How many?", "How many?"], [chain, ""], 64)
    ids, mask, types, steps = table.pad(np.array([0, 1]))
    words = tokenizer.convert_ids_to_tokens(ids[0])
    by_step = [[w for w, s in zip(words, steps[0].tolist(), strict=True) if s == n] for n in range(3)]
    assert [" ".join(some[:2]) for some in by_step] == ["two and", "so it", "the answer"]
    assert all(s == OUTSIDE for w, s in zip(words, steps[0].tolist(), strict=True) if w in ("[CLS]", "[SEP]", "how"))
    assert (steps[1] >= 0).nonzero().tolist() == [[0]], "without a chain the first token stands for it"
    assert mask[1].sum() < mask[0].sum() and types[0].sum() > 0


def test_steps_without_tokens_have_no_number_and_a_space_begins_no_word():
    chain = "One.\n\n\n\nTwo three"
    assert _steps_of([None, 1, 1, 1, 1], [(0, 0), (0, 3), (3, 4), (8, 11), (11, 17)], chain) == [OUTSIDE, 0, 0, 1, 1]
    spaced = [(0, 3), (3, 4), (4, 8), (8, 14)]  # a tokenizer whose words begin at the space before them
    assert _steps_of([1, 1, 1, 1], spaced, "One. Two three") == [0, 0, 1, 1]


def test_a_long_chain_keeps_its_conclusion(tokenizer):
    table = ChainTable(tokenizer, ["How many?"], ["First step. " * 30 + "The answer is seven."], 24)
    words = tokenizer.convert_ids_to_tokens(table.pad(np.array([0]))[0][0])
    assert len(words) == 24 and words[1:4] == ["how", "many", "?"] and words[-3:] == ["seven", ".", "[SEP]"]


def test_before_training_the_ranking_is_the_simpler_judges(tokenizer):
    table = ChainTable(tokenizer, ["q"] * 5, ["a. b.", "c", "", "d d d. e", "f"], 16)
    base = torch.tensor([0.5, -1.0, 2.0, 0.0, 7.0])
    which = np.array([4, 0, 3])
    assert small_encoder(tokenizer).score(table, base, which, budget=8) == pytest.approx(base[which].numpy(), abs=1e-6)


def test_it_learns_to_see_one_wrong_step(tokenizer):
    random = np.random.default_rng(0)
    chains = []
    for i in range(160):
        steps = [f"take {random.choice(['apples', 'pears', 'plums'])}." for _ in range(4)]
        steps[random.integers(4)] = "this is sound." if i % 2 else "this is broken."
        chains.append(" ".join(steps))
    table = ChainTable(tokenizer, ["which?"] * 160, chains, 48)
    model, base = small_encoder(tokenizer), torch.zeros(160)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(40):
        good, bad = random.choice(np.arange(1, 120, 2), 8), random.choice(np.arange(0, 120, 2), 8)
        some = np.concatenate([good, bad])
        right, wrong = model(*table.pad(some), base[some]).chunk(2)
        loss = torch.nn.functional.softplus(wrong - right).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scores = model.score(table, base, np.arange(120, 160))
    assert scores[1::2].min() > scores[0::2].max(), "chains that were not trained on"


def test_pairs_are_a_right_and_a_wrong_chain_of_one_question():
    owner = np.array([2, 0, 0, 1, 1, 2, 2, 3])
    right = np.array([True, True, False, True, True, False, False, False])
    pairs = draw_pairs(owner, right, 400, np.random.default_rng(0))
    assert {tuple(p) for p in pairs.tolist()} == {(1, 2), (0, 5), (0, 6)}, "questions 1 and 3 have one sort only"
    assert 140 < (pairs[:, 0] == 1).sum() < 260, "questions are drawn evenly, whatever their chains"
    assert draw_pairs(owner, np.ones(8, bool), 5, np.random.default_rng(0)).shape == (0, 2)


def test_probabilities_of_a_fold_come_from_the_others():
    random = np.random.default_rng(0)
    scores = random.normal(size=4000)
    chance = 1 / (1 + np.exp(-3 * scores))
    right, fold = random.random(4000) < chance, np.arange(4000) % 4
    found = calibrate(scores, right, fold)
    assert np.abs(found - chance).mean() < 0.04, "whatever the unit of the score"
    flipped = np.where(fold == 0, ~right, right)
    assert (calibrate(scores, flipped, fold)[fold == 0] == found[fold == 0]).all(), "the curve is of the other folds"
    assert found.min() > 0 and found.max() < 1, "no vote weighs nothing"
    assert (calibrate(scores, right, np.zeros(4000, int)) == 0.5).all(), "nothing to learn from"


def test_folds_are_brought_to_one_unit():
    scores, fold = np.random.default_rng(0).normal(size=1000), np.arange(1000) % 2
    moved = np.where(fold == 1, 5 * scores + 3, scores)
    assert align(moved, fold) == pytest.approx(align(scores, fold))
    assert align(np.array([2.0, 2.0, 1.0]), np.array([0, 0, 1])) == pytest.approx(0), "alike, or alone"
