"""The cross-encoder before and after training, and from disk."""

import numpy as np
import pytest
import torch

from paperflows.components.retrieval.cross_encoder import load_cross_encoder, new_cross_encoder, rerank

QUESTIONS = ["who sleeps?", "what is the currency of Nigeria?", "who sleeps?"]
PASSAGES = ["A cat sleeps.", "Nigeria pays with the naira, " + "as it did before, " * 60, "Gold is a metal."]
COSINE = np.array([0.7, 0.6, 0.1], np.float32)


def test_it_starts_as_the_cosine_and_reads_the_pair_afterwards(tmp_path):
    model = new_cross_encoder("minilm", outputs=2, max_length=64, layers=2)
    assert model.score(QUESTIONS, PASSAGES, COSINE) == pytest.approx(np.stack([5 * (COSINE - 0.5)] * 2, 1), abs=1e-6)
    torch.nn.init.normal_(model.head.weight)
    scores = model.score(QUESTIONS, PASSAGES, COSINE)
    alone = np.concatenate(
        [model.score([q], [p], COSINE[i : i + 1]) for i, (q, p) in enumerate(zip(QUESTIONS, PASSAGES, strict=True))]
    )
    assert scores == pytest.approx(alone, abs=1e-4), "a batch is its pairs"
    other = model.score([QUESTIONS[1], QUESTIONS[0], QUESTIONS[2]], PASSAGES, COSINE)
    assert abs(other[:2] - scores[:2]).min() > 1e-3 and other[2] == pytest.approx(scores[2], abs=1e-4)
    model.save(tmp_path)
    assert load_cross_encoder(tmp_path, device="cpu").score(QUESTIONS, PASSAGES, COSINE) == pytest.approx(
        scores, abs=1e-5
    )
    assert model.score([], [], COSINE[:0]).shape == (0, 2)


def test_rerank_by_hand():
    logits, candidates = np.array([[0.1, 0.9, 5.0], [2.0, 1.0, 0.0]], np.float32), np.array([[7, 8, -1], [4, 5, 6]])
    scores, ids = rerank(logits, candidates, 2)
    assert ids.tolist() == [[8, 7], [4, 5]] and scores[0].tolist() == pytest.approx([0.9, 0.1])
