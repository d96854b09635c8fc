"""Bias by hand and on the published scores; counterfactuals; what the adapters' loss asks for."""

import os
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paperflows.components.bias import scores
from paperflows.components.bias.counterfactual import Counterfactual, augment, describe, swap
from paperflows.components.bias.debias import DebiasObjective
from paperflows.components.bias.published import ATTRIBUTES, PUBLISHED
from paperflows.components.bias.word_lists import WORD_LISTS, without_words
from paperflows.components.errors import InputError
from paperflows.components.generation_metrics.matching import bert_score
from paperflows.components.generation_metrics.token_states import TokenEncoder
from paperflows.components.models.adapters import add_adapters, load_adapters, save_adapters
from paperflows.components.models.tiny_bert import tiny_bert, train_wordpiece

RNG = random.Random(0)


def test_bias_by_hand():
    values = [1.0, 3.0, 5.0, 5.0, 2.0, 1.0]  # spread over 0 to 100 by (x - 1) * 25
    assert scores.pair_differences(values).tolist() == [-50.0, 0.0, 25.0]
    assert scores.bias(values) == 25.0 and scores.polarised_bias(values) == pytest.approx(-25 / 3)
    assert scores.bias([4.0] * 6) == scores.polarised_bias([4.0] * 6) == 0, "a metric that tells nothing apart"
    for wrong in ([1.0, 2.0, 3.0], []):
        with pytest.raises(InputError):
            scores.bias(wrong)


@given(st.lists(st.integers(-50, 50), min_size=4, max_size=20).filter(lambda v: len(set(v)) > 1), st.integers(1, 9))
def test_bias_does_not_depend_on_the_scale_of_the_metric(values, factor):
    values = values[: len(values) // 2 * 2]
    if len(set(values)) > 1:
        assert scores.bias([factor * v - 7.0 for v in values]) == pytest.approx(scores.bias(values))
        assert abs(scores.polarised_bias(values)) <= scores.bias(values) + 1e-9


@pytest.mark.skipif("PAPERFLOWS_DATA" not in os.environ, reason="PAPERFLOWS_DATA names no folder of datasets")
def test_every_cell_of_the_published_table():
    from paperflows.components.data.sources import load

    splits = load(os.environ["PAPERFLOWS_DATA"], "metric_bias").splits
    names = {name.lower(): name for name in splits["age"][0]["scores"]}
    assert names.keys() == PUBLISHED.keys() and len(PUBLISHED) * len(ATTRIBUTES) == 174
    for metric, row in PUBLISHED.items():
        found = [scores.bias([r["scores"][names[metric]] for r in splits[a]]) for a in ATTRIBUTES]
        assert [round(value, 2) for value in found] == list(row), metric


def test_swaps_keep_case_articles_and_agreement_of_the_neutral_reference():
    gender = WORD_LISTS["gender"]
    assert swap("He told his boss.", gender, RNG) == (
        "He told his boss.",
        "She told her boss.",
        "They told their boss.",
    )
    age = {w: ("old",) for w in ("young",)}
    words = type(gender)((), age, {"young": ""})
    assert swap("A young man waits.", words, RNG) == ("A young man waits.", "An old man waits.", "A man waits.")
    assert swap("Nobody is there.", gender, RNG) is None


@pytest.mark.parametrize(
    ("text", "other", "neutral"),
    [
        ("They saw her and gave her his book.", "They saw him and gave him her book.",
         "They saw them and gave them their book."),
        ("Her dog is hers.", "His dog is his.", "Their dog is theirs."),
        ("The car is his, they told him.", "The car is hers, they told her.", "The car is theirs, they told them."),
        ("A dog runs to her", "A dog runs to him", "A dog runs to them"),
        ("A friend of his is on her back.", "A friend of hers is on his back.",
         "A friend of theirs is on their back."),
    ],
)  # fmt: skip
def test_pronouns_that_stand_alone_are_told_from_those_before_a_noun(text, other, neutral):
    assert swap(text, WORD_LISTS["gender"], RNG) == (text, other, neutral)


@pytest.mark.parametrize(
    ("attribute", "text"),
    [
        ("race", "A man stands under a white canopy."),
        ("race", "The black and white sheep eat grass."),
        ("race", "A dog in black, men and a car."),
        ("physical-appearance", "The girl climbs a tall tree."),
    ],
)
def test_adjectives_that_describe_no_person_are_not_exchanged(attribute, text):
    assert swap(text, WORD_LISTS[attribute], RNG) is None


def test_adjectives_of_persons_are_exchanged_and_those_of_things_beside_them_kept():
    text, other, neutral = swap("A tall happy woman sees a short dog.", WORD_LISTS["physical-appearance"], RNG)
    assert other == text.replace("tall", "short") and neutral == "A happy woman sees a short dog."
    assert swap("A white young man in a black hat.", WORD_LISTS["race"], RNG)[2] == "A young man in a black hat."


def test_descriptors_stand_before_people_only():
    first, second, reference = describe("An officer saw the doctor.", WORD_LISTS["religion"], RNG)
    assert reference == "An officer saw the doctor." and first != second
    assert first.endswith(" officer saw the doctor.") and first.split()[1] in WORD_LISTS["religion"].words
    assert (first.split()[0] == "An") == (first.split()[1][0] in "aeiou")
    assert describe("The table is green.", WORD_LISTS["race"], RNG) is None


def test_augmentation_is_repeatable_and_covers_every_attribute():
    texts = [f"The {who} of number {i} is running." for i in range(30) for who in ("man", "doctor", "table")]
    found = augment(texts, WORD_LISTS, per_attribute=20, seed=3)
    assert found == augment(texts, WORD_LISTS, per_attribute=20, seed=3)
    assert {c.attribute for c in found} == set(ATTRIBUTES)
    for c in found:
        assert c.first != c.second and "table" not in c.first
        differing = set(c.first.lower().split()) ^ set(c.second.lower().split())
        assert not differing & set(c.reference.lower().split()) - {"a", "an", "the"}


def test_words_of_a_held_out_list_are_exchanged_in_no_counterfactual():
    assert WORD_LISTS["age"].words & WORD_LISTS["gender"].words, "lists of attributes share words, such as boy"
    texts = [f"The {who} of number {i} is running." for i in range(60) for who in ("boy", "doctor", "senior", "man")]
    hidden = WORD_LISTS["gender"].words
    age = without_words(WORD_LISTS["age"], hidden)
    assert "boy" in WORD_LISTS["age"].swaps and "boy" not in age.swaps and "teenager" in age.swaps
    found = augment(texts, {"age": age}, per_attribute=100, seed=0)
    assert len(found) == 100
    for c in found:
        assert not (set(c.first.lower().split()) ^ set(c.second.lower().split())) & hidden
    nothing = without_words(WORD_LISTS["gender"], WORD_LISTS["gender"].words)
    assert not nothing.words and augment(texts, {"gender": nothing}, per_attribute=5, seed=0) == []


@pytest.fixture(scope="module")
def encoder():
    texts = [f"the {a} {n} is {v}" for a in ("old", "young", "tall") for n in ("man", "cat") for v in ("here", "away")]
    tokenizer = train_wordpiece(texts * 3, vocab_size=80)
    bert = tiny_bert(vocab_size=len(tokenizer), width=16, layers=2, heads=2, positions=32, seed=1).bert
    bert.pooler = None
    return lambda: TokenEncoder(__import__("copy").deepcopy(bert), tokenizer, max_length=32)


def test_new_adapters_change_nothing_and_are_saved(encoder, tmp_path):
    plain, adapted = encoder(), encoder()
    pairs = [("the old man is here", "the man is here"), ("the cat", "a tall man is away")]
    before = bert_score(plain, pairs)
    adapters = add_adapters(adapted.model, 4, seed=0)
    torch.testing.assert_close(bert_score(adapted, pairs), before)
    trainable = [name for name, p in adapted.model.named_parameters() if p.requires_grad]
    assert trainable and all(name.startswith("adapters.") for name in trainable)
    torch.nn.init.normal_(adapters[0].up.weight, std=0.5)
    changed = bert_score(adapted, pairs)
    assert (changed - before).abs().max() > 1e-3
    save_adapters(adapters, tmp_path)
    again = encoder()
    load_adapters(again.model, tmp_path)
    torch.testing.assert_close(bert_score(again, pairs), changed)


def test_training_makes_counterfactuals_equal_and_keeps_neutral_pairs(encoder):
    from paperflows.components.training.loop import train

    subject = encoder()
    # the pair's differing words are ones the tiny model has states for
    counterfactuals = [Counterfactual("age", f"the old {n} is {v}", f"the young {n} is {v}", f"the {n} is {v}")
                       for n in ("man", "cat") for v in ("here", "away")]  # fmt: skip
    neutral = [("the tall man is here", "the man is here"), ("the cat is away", "the tall cat is here")] * 2
    both = [(c.first, c.reference) for c in counterfactuals] + [(c.second, c.reference) for c in counterfactuals]

    def gap(scores):
        return float((scores[:4, 2] - scores[4:, 2]).abs().mean())

    before, kept = bert_score(subject, both), bert_score(subject, neutral)
    objective = DebiasObjective(subject, counterfactuals, neutral, distil=1.0, batch_size=4, seed=0)
    add_adapters(subject.model, 8, seed=0)
    first = float(objective.loss_fn(subject.model, objective.batch_at(0)))
    order = objective.batch_at(0)["ids"]
    gaps = (before[:4, 2] - before[4:, 2]).abs()
    assert first == pytest.approx(float(gaps[order].mean()), abs=1e-4), "nothing is adapted yet: only the gap counts"
    train(model=subject.model, batch_at=objective.batch_at, loss_fn=objective.loss_fn, steps=60, learning_rate=1e-2,
          device="cpu")  # fmt: skip
    assert gap(bert_score(subject, both)) < 0.5 * gap(before)
    assert np.abs((bert_score(subject, neutral) - kept)[:, 2].numpy()).max() < 0.05
