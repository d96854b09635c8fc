import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paperflows.components.training.batching import Batches, TokenTable, token_budget_batches

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=200)


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=7), min_size=1, max_size=20), st.randoms())
def test_padding_equals_padding_by_hand(rows, random):
    table = TokenTable(rows, pad_id=0)
    pick = [random.randrange(len(rows)) for _ in range(5)]
    ids, mask = table.pad(np.array(pick))
    width = max(len(rows[i]) for i in pick)
    assert ids.tolist() == [rows[i] + [0] * (width - len(rows[i])) for i in pick]
    assert mask.tolist() == [[1] * len(rows[i]) + [0] * (width - len(rows[i])) for i in pick]
    assert ids.dtype == mask.dtype == torch.int64


@given(LENGTHS, st.integers(1, 300))
def test_budget_batches_cover_once_and_stay_within(lengths, budget):
    lengths = np.array(lengths)
    batches = token_budget_batches(lengths, budget=budget)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert all(len(b) == 1 or len(b) * lengths[b].max() <= budget for b in batches)


@given(LENGTHS, st.integers(1, 32), st.integers(0, 5))
def test_every_epoch_uses_each_example_at_most_once(lengths, size, seed):
    batches = Batches(batch_size=size, seed=seed, lengths=np.array(lengths))
    epoch = np.concatenate([batches.at(step) for step in range(batches.per_epoch)])
    assert len(set(epoch)) == len(epoch) == batches.per_epoch * batches.batch_size


def test_batch_depends_on_step_alone():
    one, other = (Batches(batch_size=4, seed=1, lengths=np.arange(1, 50)) for _ in range(2))
    forward = [one.at(step).tolist() for step in range(30)]
    assert [other.at(step).tolist() for step in reversed(range(30))][::-1] == forward
    assert forward[:12] != forward[12:24], "epochs are shuffled anew"


def test_grouping_by_length_saves_padding():
    lengths = np.random.default_rng(0).integers(3, 60, 5000)
    grouped, plain = Batches(batch_size=32, seed=0, lengths=lengths), Batches(batch_size=32, seed=0, n=5000)
    padded = [sum(lengths[b.at(s)].max() * 32 for s in range(b.per_epoch)) for b in (grouped, plain)]
    assert padded[0] < 0.6 * padded[1]


def test_no_examples_is_an_error():
    with pytest.raises(ValueError, match="no examples"):
        Batches(batch_size=2, seed=0, n=0)


def test_pairs_are_tokenised_together():
    from paperflows.components.models.pretrained import load_tokenizer

    tokenizer = load_tokenizer("minilm")
    table = TokenTable.from_texts(["a man"], tokenizer, max_length=9, pairs=["a dog"])
    ids, _ = table.pad(np.array([0]))
    assert tokenizer.convert_ids_to_tokens(ids[0]) == ["[CLS]", "a", "man", "[SEP]", "a", "dog", "[SEP]"]
