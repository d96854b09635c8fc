import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paperflows.components.early_exit import hashed, hashing
from paperflows.components.early_exit.causal import HashedLM, continue_text, next_token_counts, next_token_loss
from paperflows.components.early_exit.encoder import ExitEncoder
from paperflows.components.early_exit.flops import layer_flops
from paperflows.components.early_exit.hashed import HashedClassifier, TokenHash
from paperflows.components.early_exit.sentences import LabelledTexts
from paperflows.components.errors import InputError
from paperflows.components.training.batching import TokenTable

from .conftest import small

# ids 0-4 are special; 5 is in every text, 6 in those of class 0, 7 in those of class 1, 8 once
TEXTS = [[2, 5, 5, 6, 6, 3], [2, 5, 6, 3], [2, 5, 5, 7, 7, 3], [2, 5, 7, 8, 3]]
ROWS = [np.array(row) for row in TEXTS]
TARGET = np.array([0, 0, 1, 1])
SPECIAL = [0, 1, 2, 3, 4]


def test_counts_and_orders():
    counts = hashing.token_counts(ROWS, 12)
    assert counts[[5, 6, 7, 8, 9]].tolist() == [6, 3, 3, 1, 0]
    assert [i for i in hashing.order_of("frequency", counts) if i > 4] == [5, 6, 7, 8]
    assert [i for i in hashing.order_of("rare_first", counts) if i > 4] == [8, 7, 6, 5]
    a, b = (hashing.order_of("consistent", counts, seed=seed) for seed in (1, 1))
    assert a.tolist() == b.tolist() and sorted(a) == np.flatnonzero(counts).tolist()


def test_mutual_information_without_smoothing_by_hand():
    rows, target = [np.array([0, 1]), np.array([0, 2])], np.array([0, 1])
    # p(x|y): class 0 has 0 and 1 half each, class 1 has 0 and 2: token 0 tells nothing, 1 and 2 each
    # give p(x,y) = 1/4, p(x) = 1/4, p(y) = 1/2: 1/4 ln 2
    told = hashing.mutual_information(rows, target, 3, alpha=1e-9)
    assert told.tolist() == pytest.approx([0.0, np.log(2) / 4, np.log(2) / 4], abs=1e-6)


def test_information_puts_the_telling_words_first():
    counts = hashing.token_counts(ROWS, 12)
    told = hashing.mutual_information(ROWS, TARGET, 12)
    order = [i for i in hashing.order_of("information", counts, information=told) if i > 4]
    assert set(order[:2]) == {6, 7} and told.min() >= 0


def test_clusters_by_norm():
    vectors = np.array([[0.0, 0], [0, 0], [9, 0], [9, 0.1], [1, 0], [1.1, 0], [0, 5], [0, 5.1]])
    groups = hashing.cluster_order(vectors, np.arange(2, 8), clusters=3)
    assert [sorted(g.tolist()) for g in groups] == [[4, 5], [6, 7], [2, 3]]
    by_size = hashing.cluster_order(vectors, np.array([2, 3, 4, 6, 7]), clusters=3, by="size")
    assert by_size[0].tolist() == [4]


def test_equal_types_as_in_the_paper():
    order = np.arange(5, 18)  # 13 types in 3 buckets over 6 layers: 4, 4 and the remainder, at layers 1, 3, 5
    layers = hashing.fill_types(np.concatenate([[2, 3], order]), 6, 3, vocabulary=20, special=SPECIAL)
    assert layers[5:18].tolist() == [1] * 4 + [3] * 4 + [5] * 5
    assert layers[[0, 2, 3, 18, 19]].tolist() == [6] * 5, "special and unseen tokens run all layers"
    six = hashing.fill_types(np.arange(5, 17), 6, 6, vocabulary=20, special=SPECIAL)
    assert six[5:17].tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]


@given(seed=st.integers(0, 500), speedup=st.floats(1.1, 2.5))
@settings(max_examples=30, deadline=None)
def test_hashes_filled_by_mass_cost_alike_whatever_the_order(seed, speedup):
    random = np.random.default_rng(seed)
    ids = np.minimum(random.zipf(1.3, 4000) + 4, 399)
    counts = np.bincount(ids, minlength=400)
    counts[counts > 80] = 80  # no single type heavier than a bucket's tolerance
    lengths = random.integers(10, 40, 200)
    sizes = {"protected": 2.0, "width": 64, "inner": 256}
    shares = hashing.shares_for(speedup, lengths, 6, full_depth=6, **sizes)
    assert shares.sum() == pytest.approx(1)
    assert hashing.expected_cost(shares, lengths, full_depth=6, **sizes) == pytest.approx(1 / speedup, rel=0.01)
    for kind in ("frequency", "rare_first", "consistent"):
        layers = hashing.fill_mass(hashing.order_of(kind, counts, seed=seed), counts, shares, special=SPECIAL)
        got = np.array([counts[layers == layer].sum() for layer in range(1, 7)]) / counts[5:].sum()
        np.testing.assert_allclose(got, shares, atol=2.1 * counts.max() / counts.sum())


def test_out_of_reach_gives_the_nearest():
    shares = hashing.shares_for(50.0, np.array([20]), 6, protected=2.0, width=64, inner=256, full_depth=6)
    assert shares[0] > 0.99


def texts_of(rows=TEXTS, target=TARGET):
    return LabelledTexts(TokenTable(rows, pad_id=0), torch.from_numpy(target))


@pytest.mark.parametrize("kind", [*hashing.HASHES, "inconsistent", "position"])
@pytest.mark.parametrize("speedup", [None, 1.3])
def test_special_tokens_run_every_layer_in_every_hash(kind, speedup):
    vectors = np.random.default_rng(0).normal(size=(12, 4))
    made = hashed.make_hash(
        kind, texts_of(), depth=3, full_depth=3, speedup=speedup, buckets=3, special=SPECIAL, vectors=vectors, width=16,
        inner=32, seed=0,
    )  # fmt: skip
    ids, mask = texts_of().table.pad(np.arange(4))
    exits = made.exits(ids.numpy(), mask.numpy(), 3)
    assert exits.shape == ids.shape and exits.min() >= 1 and exits.max() == 3
    assert (exits[torch.isin(ids, torch.tensor(SPECIAL))] == 3).all()
    again = made.exits(ids.numpy(), mask.numpy(), 4)
    assert torch.equal(exits, again) or kind == "inconsistent"


@pytest.mark.parametrize("speedup", [1.5, 2.0])
def test_consistent_and_inconsistent_hashes_cost_alike_on_unseen_text_too(speedup):
    """What makes their comparison one at equal FLOPs; a few frequent types and unseen tokens, as in real text."""
    random = np.random.default_rng(5)

    def draw(count, highest):
        return [
            [2, *np.minimum(random.zipf(1.4, random.integers(8, 20)) + 4, highest).tolist(), 3] for _ in range(count)
        ]

    train, other = draw(300, 150), draw(400, 199)  # ids above 150 are new
    sizes = {"width": 64, "inner": 256}
    vectors = random.normal(size=(200, 4))

    def made(kind):
        return hashed.make_hash(
            kind, texts_of(train, random.integers(0, 2, 300)), depth=6, full_depth=6, speedup=speedup, buckets=6,
            special=SPECIAL, vectors=vectors, seed=1, **sizes,
        )  # fmt: skip

    def cost(token_hash, rows, draw):
        exits = [
            token_hash.exits(np.array([row]), np.ones((1, len(row)), dtype=np.int64), 1000 * draw + i)[0].numpy()
            for i, row in enumerate(rows)
        ]
        spent = sum(layer_flops(len(e), (e > layer).sum(), **sizes) for e in exits for layer in range(6))
        return float(spent / sum(6 * layer_flops(len(e), len(e), **sizes) for e in exits))

    same, lot = made("consistent"), made("inconsistent")
    for rows in (train, other):
        drawn = np.mean([cost(lot, rows, d) for d in range(4)])
        assert drawn == pytest.approx(cost(same, rows, 0), rel=0.03)
    for kind in ("frequency", "information", "consistent"):
        token_hash = made(kind)
        assert cost(token_hash, train, 0) == pytest.approx(1 / speedup, rel=0.12)
        assert (token_hash.layers[[180, 2]] == 6).all()


def test_lots_follow_the_histogram_and_positions_leave_from_the_end():
    shares = np.array([0.5, 0.3, 0.2])
    drawn = hashing.exits_by_lot((200, 100), shares, np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(drawn.ravel(), minlength=4)[1:] / drawn.size, shares, atol=0.01)
    beside = hashing.exits_by_position(np.array([10, 20]), shares)
    assert beside[0, :10].tolist() == [3, 3, 2, 2, 2, 1, 1, 1, 1, 1], "of its own length, not of the batch's"
    assert np.bincount(beside[1])[1:].tolist() == [10, 6, 4]


def test_hashed_classifier_skips_what_masking_throws_away_in_any_batch():
    torch.manual_seed(0)
    model = HashedClassifier(ExitEncoder(small()), outputs=2, pooling="mean").eval()
    layers = np.random.default_rng(1).integers(1, 4, 60)
    made = TokenHash("ids", layers, np.full(3, 1 / 3), np.array(SPECIAL))
    rows = [np.random.default_rng(i).integers(5, 60, i % 7 + 1).tolist() for i in range(12)]
    texts = texts_of(rows, np.zeros(12, dtype=np.int64))
    logits, flops = hashed.hashed_outputs(model, texts, made, draw=0)
    for row in range(12):
        ids, mask = texts.table.pad(np.array([row]))
        alone = model(ids, mask, made.exits(ids.numpy(), mask.numpy(), 0), masked=True)
        torch.testing.assert_close(alone[0], logits[row], atol=1e-5, rtol=1e-4)
    # by hand for the text of one token: L layers of it, and the head
    (one,) = (i for i, row in enumerate(rows) if len(row) == 1 and i < 7)
    each = 2 * (2 * 16**2 + (2 * 16**2 + 2 * 16 * 32) + 2 * 16)
    assert flops[one] == layers[rows[one][0]] * each + 2 * (16**2 + 32)


def lm():
    torch.manual_seed(1)
    return HashedLM(ExitEncoder(small(), causal=True)).eval()


def test_language_model_never_looks_ahead_and_skips_as_it_masks():
    model = lm()
    ids = torch.randint(5, 60, (3, 8))
    mask = (torch.arange(8)[None] < torch.tensor([8, 5, 2])[:, None]).long()
    exits = torch.randint(1, 4, (3, 8))
    with torch.no_grad():
        scores = model(ids, mask, exits)
        reference = model(ids, mask, exits, masked=True)
        changed = ids.clone()
        changed[0, 5:] = 7
        ahead = model(changed, mask, exits)
    torch.testing.assert_close(scores[mask.bool()], reference[mask.bool()], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(scores[0, :5], ahead[0, :5], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(scores[0, 6], ahead[0, 6])
    told = next_token_counts(scores, ids, mask)
    assert told[:, 1].tolist() == [7, 4, 1]
    assert told[:, 2].sum() / told[:, 1].sum() == pytest.approx(float(next_token_loss(scores, ids, mask)), rel=1e-5)


def test_text_generated_by_skipping_is_that_of_full_passes():
    model, layers = lm(), torch.randint(1, 4, (60,))
    ids = torch.randint(5, 60, (4, 3))
    ours = continue_text(model, ids, layers, steps=6)
    for _ in range(6):
        with torch.no_grad():
            scores = model(ids, torch.ones_like(ids), layers[ids], masked=True)
        ids = torch.cat([ids, scores[:, -1].argmax(-1, keepdim=True)], 1)
    assert torch.equal(ours, ids) and len(set(ours[:, 3:].flatten().tolist())) > 2
    most = model.encoder.encoder.config.max_position_embeddings
    with pytest.raises(InputError, match=f"do not fit the {most} positions"):
        continue_text(model, ids, layers, steps=most)
