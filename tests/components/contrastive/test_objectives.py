import numpy as np
import pytest
import torch

from paperflows.components.contrastive import objectives
from paperflows.components.contrastive.losses import info_nce, similarity_regression, soft_info_nce
from paperflows.components.contrastive.triplets import nli_triplets
from paperflows.components.models.encoder import SentenceEncoder
from paperflows.components.models.tiny_bert import tiny_bert, train_wordpiece

TEXTS = [" ".join(f"w{(i * j) % 30}" for j in range(1, 2 + i % 11)) for i in range(60)]


@pytest.fixture(scope="module")
def encoder():
    tokenizer = train_wordpiece(TEXTS * 3, vocab_size=120)
    bert = tiny_bert(vocab_size=len(tokenizer), width=32, layers=2, heads=2, positions=32, seed=0)
    return SentenceEncoder(bert.bert, tokenizer, pooling="mean", max_length=32).eval()  # no dropout: exact values


def embed(encoder, texts):
    """One text at a time: no padding at all."""
    return torch.cat([encoder(*encoder.tokens([t]).pad(np.array([0]))) for t in texts])


@pytest.fixture(autouse=True, params=[2048, 16])
def part_tokens(request, monkeypatch):
    """Once in one part, once in several: the loss must not tell."""
    monkeypatch.setattr(objectives, "PART_TOKENS", request.param)


def test_regression_is_the_loss_of_the_texts_one_by_one(encoder):
    pairs = [(TEXTS[i], TEXTS[-i - 1], i / 60) for i in range(60)]
    objective = objectives.regression(encoder, pairs, batch_size=16, seed=0)
    for step in range(3):
        batch = objective.batch_at(step)
        rows = [pairs[i] for i in batch["ids"]]
        sides = [embed(encoder, [row[k] for row in rows]) for k in (0, 1)]
        by_hand = similarity_regression(*sides, torch.tensor([row[2] for row in rows]))
        assert objective.loss_fn(encoder, batch).item() == pytest.approx(by_hand.item(), rel=1e-4)


@pytest.mark.parametrize("smooth", [None, "all", "positive"])
def test_triplets_are_the_loss_of_the_texts_one_by_one(encoder, smooth):
    rows = [(TEXTS[i], TEXTS[(i + 7) % 60], TEXTS[(i + 20) % 60]) for i in range(60)]
    scores = None if smooth is None else [(i % 10) / 10 for i in range(60)]
    objective = objectives.triplets(
        encoder, rows, batch_size=16, temperature=0.1, seed=1, scores=scores, smooth=smooth or "all"
    )
    batch = objective.batch_at(4)
    picked = [rows[i] for i in batch["ids"]]
    anchor, positive, negative = (embed(encoder, [row[k] for row in picked]) for k in range(3))
    candidates = [row[1] for row in picked] + [row[2] for row in picked]
    duplicates = torch.tensor([[c == row[1] for c in candidates] for row in picked])
    shared = {"temperature": 0.1, "negatives": negative, "duplicates": duplicates}
    if scores is None:
        by_hand = info_nce(anchor, positive, **shared)
    else:
        score = torch.tensor([scores[i] for i in batch["ids"]])
        by_hand = soft_info_nce(anchor, positive, score, smooth=smooth, **shared)
    assert objective.loss_fn(encoder, batch).item() == pytest.approx(by_hand.item(), rel=1e-4)


def test_dropout_pairs_see_two_masks_and_equal_sentences_are_no_negatives(encoder):
    objective = objectives.dropout_pairs(encoder, ["a b", "a b", "c"], batch_size=3, temperature=0.05, seed=0)
    batch = objective.batch_at(0)
    same = [i for i, row in enumerate(batch["ids"]) if row in (0, 1)]
    assert batch["duplicates"][same[0], same[1]] and batch["duplicates"].sum() == 5
    sides = {}
    for training in (True, False):
        encoder.train(training)
        first, second = objectives._embed(encoder, batch).chunk(2)
        sides[training] = (first - second).abs().max().item()
    assert sides[True] > 0.01 and sides[False] < 1e-6


def test_parts_save_padding():
    """The figure is arithmetic, not time: padded tokens of a mixed batch, whole and in parts."""
    lengths = np.random.default_rng(0).integers(4, 48, 192)
    whole = lengths.max() * len(lengths)
    parts = sum(part.max() * len(part) for part in np.array_split(np.sort(lengths), objectives.MOST_PARTS))
    assert parts < 0.75 * whole


def test_nli_triplets():
    rows = [
        {"text": "p", "text_pair": "e1", "label": "entailment"},
        {"text": "p", "text_pair": "e2", "label": "entailment"},
        {"text": "p", "text_pair": "c", "label": "contradiction"},
        {"text": "q", "text_pair": "n", "label": "neutral"},
        {"text": "q", "text_pair": "e", "label": "entailment"},
    ]
    assert nli_triplets(rows) == [("p", "e1", "c")]
