"""Chunks, indexes, fusion and metrics against hand-worked cases and reference libraries."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paperflows.components.errors import InputError
from paperflows.components.retrieval import metrics
from paperflows.components.retrieval.bm25 import build_bm25, open_bm25
from paperflows.components.retrieval.chunking import chunk, sentences
from paperflows.components.retrieval.dense import build_dense, encode, open_dense
from paperflows.components.retrieval.fusion import reciprocal_rank

TEXTS = ["Lagos lies in Nigeria", "Nigeria pays with the naira", "A cat sleeps", "The cat sees a naira naira"]


def test_sentences_and_chunks_by_hand():
    text = 'Dr. A. Smith came. He said "No." Then 3 left! Was it 2.5 km? Yes'
    assert sentences(text) == ["Dr. A. Smith came.", 'He said "No."', "Then 3 left!", "Was it 2.5 km?", "Yes"]
    assert chunk("One two. Three four. Five six seven.", max_words=4) == ["One two. Three four.", "Five six seven."]
    assert chunk("One two. Three. Four five.", max_words=3, overlap=1) == ["One two. Three.", "Three. Four five."]
    assert chunk("a b c d e", max_words=2) == ["a b", "c d", "e"]


@settings(max_examples=60)
@given(st.lists(st.text("abcD.?! ", max_size=30), max_size=6), st.integers(1, 9))
def test_chunks_lose_no_word_and_keep_the_limit(parts, most):
    text = " ".join(parts)
    found = chunk(text, max_words=most)
    assert " ".join(found).split() == text.split()
    assert all(0 < len(part.split()) <= most for part in found)


def test_bm25_by_the_formula_and_from_disk(tmp_path):
    index = build_bm25(TEXTS)
    index.save(tmp_path)
    words = [
        ["lagos", "lies", "nigeria"],
        ["nigeria", "pays", "naira"],
        ["cat", "sleeps"],
        ["cat", "sees", "naira", "naira"],
    ]
    mean = sum(map(len, words)) / len(words)

    def by_hand(query, document):
        total = 0.0
        for word in query:
            n = sum(word in other for other in words)
            tf = document.count(word)
            total += (
                math.log(1 + (len(words) - n + 0.5) / (n + 0.5))
                * tf
                / (tf + 1.5 * (0.25 + 0.75 * len(document) / mean))
            )
        return total

    for found in (index, open_bm25(tmp_path)):
        scores, ids = found.search(["Who pays naira?", "cat"], 4)
        for row, query in zip(range(2), (["pays", "naira"], ["cat"]), strict=True):
            assert [by_hand(query, words[i]) for i in ids[row]] == pytest.approx(scores[row].tolist(), abs=1e-5)
            assert (np.diff(scores[row]) <= 0).all()
    assert index.search([], 3)[1].shape == (0, 3) and index.search(["x"], 9)[1].shape == (1, 4)
    with pytest.raises(InputError, match="no passages"):
        build_bm25([])


@pytest.mark.parametrize(("kind", "least"), [("flat", 1.0), ("hnsw", 0.95), ("ivfpq", 0.5)])
def test_indexes_against_numpy_and_from_a_mapped_file(kind, least, tmp_path):
    random = np.random.default_rng(0)
    centres = random.normal(size=(40, 32))
    vectors = (centres[random.integers(0, 40, 2000)] + 0.5 * random.normal(size=(2000, 32))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = vectors[:50]
    exact = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    index = build_dense(vectors, kind)
    index.save(tmp_path / "index.faiss")
    found = open_dense(tmp_path / "index.faiss")
    assert len(found) == 2000
    assert "index.faiss" in Path("/proc/self/maps").read_text(), "the file is mapped, not copied"
    for one in (index, found):
        scores, ids = one.search(queries, 10)
        assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(ids, exact, strict=True)]) >= least
        assert (np.diff(scores, axis=1) <= 1e-6).all()
    if kind == "flat":
        assert scores == pytest.approx(np.take_along_axis(queries @ vectors.T, ids, 1), abs=1e-5)
        assert found.search(queries[:1], 5000)[1].shape == (1, 2000)


def test_indexes_that_cannot_be_built():
    with pytest.raises(InputError, match="no passages"):
        build_dense(np.zeros((0, 8), np.float32))
    with pytest.raises(InputError, match="256"):
        build_dense(np.ones((20, 8), np.float32), "ivfpq")


def test_minilm_finds_a_paraphrase():
    from paperflows.components.models.encoder import load_encoder

    encoder = load_encoder("minilm", device="cpu")
    vectors = encode(encoder, TEXTS)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    assert build_dense(vectors).search(encode(encoder, ["a kitten is napping"]), 1)[1].tolist() == [[2]]


def test_fusion_by_hand():
    first, second = np.array([[3, 1, 2], [0, -1, -1]]), np.array([[1, 4], [0, 5]])
    scores, ids = reciprocal_rank([first, second], 4)
    assert ids.tolist() == [[1, 3, 4, 2], [0, 5, -1, -1]]
    assert scores[0].tolist() == pytest.approx([1 / 62 + 1 / 61, 1 / 61, 1 / 62, 1 / 63])
    assert scores[1].tolist() == pytest.approx([2 / 61, 1 / 62, 0, 0])


@settings(max_examples=40)
@given(st.lists(st.sets(st.integers(0, 14), min_size=1, max_size=6), min_size=1, max_size=6), st.integers(0, 2**16))
def test_metrics_agree_with_trec_eval(relevant, seed):
    import ir_measures
    from ir_measures import RR, R, nDCG

    random = np.random.default_rng(seed)
    ranking = np.stack([random.permutation(15)[:12] for _ in relevant])
    qrels = [ir_measures.Qrel(f"q{i:02}", str(d), 1) for i, of in enumerate(relevant) for d in of]
    run = [
        ir_measures.ScoredDoc(f"q{i:02}", str(d), -float(r)) for i, row in enumerate(ranking) for r, d in enumerate(row)
    ]
    reference = {}
    for value in ir_measures.iter_calc([R @ 5, nDCG @ 10, RR], qrels, run):
        reference.setdefault(str(value.measure), {})[value.query_id] = value.value
    ours = {
        "R@5": metrics.recall(ranking, relevant, 5),
        "nDCG@10": metrics.ndcg(ranking, relevant, 10),
        "RR": metrics.mean_reciprocal_rank(ranking, relevant, 12),
    }
    for name, values in ours.items():
        assert values.tolist() == pytest.approx([reference[name][q] for q in sorted(reference[name])]), name
