"""The cross-encoder before and after training, and from disk."""

import numpy as np
import pytest
import torch

from paperflows.components.errors import InputError
from paperflows.components.models.pretrained import load_tokenizer
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


@pytest.mark.parametrize("kind", ["distilbert", "roberta", "electra"])
def test_encoders_with_and_without_segments_read_pairs_of_any_length(kind, tmp_path):
    from transformers import AutoConfig, AutoModel

    tokenizer = load_tokenizer("minilm")
    tokenizer.model_input_names = ["input_ids", "attention_mask"]  # as those of RoBERTa and DistilBERT
    tokenizer.save_pretrained(tmp_path)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
    small = {"dim": 32, "hidden_dim": 64, "n_layers": 3, "n_heads": 2} if kind == "distilbert" else sizes
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), **small)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    model = new_cross_encoder(str(tmp_path), outputs=1, max_length=24, layers=2)
    torch.nn.init.normal_(model.head.weight)
    long = ["what " * 60, *QUESTIONS[1:]]
    assert np.isfinite(model.score(long, PASSAGES, COSINE)).all(), "a question longer than all is cut"
    assert max(model.tokens(long, PASSAGES).lengths) == 24


def test_a_model_that_cannot_be_cut_says_so(tmp_path):
    from transformers import GPT2Config, GPT2Model

    GPT2Model(GPT2Config(vocab_size=50, n_embd=8, n_layer=2, n_head=2)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="cannot be cut to 1"):
        new_cross_encoder(str(tmp_path), outputs=1, max_length=8, layers=1)
