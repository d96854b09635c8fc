"""Metrics of generated text: by hand, and against the packages they stand beside."""

import math

import numpy as np
import pytest
import torch

from paperflows.components.errors import InputError
from paperflows.components.generation_metrics.likelihood import mean_log_likelihood
from paperflows.components.generation_metrics.matching import bert_score, match_tokens, mover_score
from paperflows.components.generation_metrics.ngram import ngram_scores
from paperflows.components.generation_metrics.token_states import inverse_document_frequency, load_token_encoder
from paperflows.components.models.tiny_bert import train_wordpiece
from paperflows.components.models.tiny_seq2seq import corrupt, tiny_bart

PAIRS = [
    ("Old people put on weight and get fat.", "people put on weight and get fat."),
    ("Trees are bending in storm.", "A man plays a guitar."),
    ("A man is slicing a potato.", "A man is slicing a potato."),
    ("x", "An unbelievably long reference about nothing at all, in several words."),
    ("🙂 naïve", "people put on weight and get fat."),
]


@pytest.fixture(scope="module")
def minilm():
    return load_token_encoder("minilm", layer=2)


@pytest.mark.parametrize("idf", [False, True])
def test_bert_score_is_that_of_the_package(minilm, idf):
    package = pytest.importorskip("bert_score", reason="bert-score is not installed (extra dev)")
    from paperflows.components.models.pretrained import model_location

    candidates, references = [c for c, _ in PAIRS], [r for _, r in PAIRS]
    # one pair a batch: beside padding the package takes 0 for a best match that is negative
    theirs = package.score(
        candidates, references, model_type=model_location("minilm"), num_layers=2, device="cpu", idf=idf, batch_size=1
    )
    weights = inverse_document_frequency(minilm.table(references)) if idf else None
    torch.testing.assert_close(bert_score(minilm, PAIRS, idf=weights), torch.stack(theirs, 1), atol=1e-4, rtol=0)


def test_matching_by_hand():
    candidate = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]])
    reference = torch.tensor([[[0.6, 0.8]]])
    weights, mask = torch.tensor([[1.0, 3.0, 0.0]]), torch.tensor([[True, True, False]])
    precision, recall, f1 = match_tokens(
        candidate, weights, mask, reference, torch.ones(1, 1), torch.ones(1, 1, dtype=torch.bool)
    )[0].tolist()
    assert precision == pytest.approx((0.6 + 3 * 0.8) / 4) and recall == pytest.approx(0.8)
    assert f1 == pytest.approx(2 * precision * recall / (precision + recall))


def test_f1_of_texts_that_repel_each_other_is_negative():
    candidate, reference = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[-0.6, 0.8]]])
    one, mask = torch.ones(1, 1), torch.ones(1, 1, dtype=torch.bool)
    assert match_tokens(candidate, one, mask, reference, one, mask)[0].tolist() == pytest.approx([-0.6, -0.6, -0.6])
    # where P + R is 0 the package says 0 too
    assert match_tokens(candidate, one, mask, torch.zeros(1, 1, 2), one, mask)[0].tolist() == [0.0, 0.0, 0.0]


def test_order_batches_and_repeats_do_not_matter(minilm):
    many = [PAIRS[i % 5] for i in range(17)]
    all_at_once = bert_score(minilm, many)
    one_by_one = torch.cat([bert_score(minilm, [pair]) for pair in many])
    torch.testing.assert_close(all_at_once, one_by_one, atol=1e-5, rtol=0)


def test_mover_score_is_exact_transport(minilm):
    from scipy.optimize import linprog

    states = minilm.states([PAIRS[0][0], PAIRS[0][1]])
    (a, b), (wa, wb), _ = states.pad(np.array([0, 1]))
    keep_a, keep_b = wa > 0, wb > 0
    cost = torch.cdist(a[keep_a].double(), b[keep_b].double()).numpy()
    n, m = cost.shape
    rows = [np.kron(np.eye(n)[i], np.ones(m)) for i in range(n)] + [np.kron(np.ones(n), np.eye(m)[j]) for j in range(m)]
    right = [1 / n] * n + [1 / m] * m
    best = linprog(cost.ravel(), A_eq=np.array(rows), b_eq=np.array(right)).fun
    found = mover_score(minilm, PAIRS[:3])
    assert found[0] == pytest.approx(1 - best, abs=1e-4)
    assert found[2] == pytest.approx(1.0, abs=1e-3) and found[1] < found[0]


def test_idf_counts_texts_not_tokens(minilm):
    table = minilm.table(["the the cat", "the dog"])
    idf = inverse_document_frequency(table)
    the, cat = minilm.tokenizer.convert_tokens_to_ids(["the", "cat"])
    assert idf[the] == pytest.approx(math.log(3 / 3)) and idf[cat] == pytest.approx(math.log(3 / 2))
    assert idf[-1] == pytest.approx(math.log(3))


def test_ngram_metrics():
    pair = [PAIRS[0]]
    assert ngram_scores("bleu-whitespace", pair)[0] == pytest.approx((4 / 8) ** 0.25)  # 7/8 * 6/7 * 5/6 * 4/5
    assert ngram_scores("bleu", pair)[0] == pytest.approx((5 / 9) ** 0.25)  # the full stop is a token of its own
    assert ngram_scores("rouge", pair)[0] == pytest.approx(2 * (7 / 8) / (1 + 7 / 8))
    for metric in ("bleu", "chrf", "rouge", "meteor"):
        same, other = ngram_scores(metric, [PAIRS[2], PAIRS[1]])
        assert same > 0.99 and other < 0.35
    assert ngram_scores("nist", pair)[0] > 0
    with pytest.raises(InputError, match="expected one of"):
        ngram_scores("blue", pair)


def test_likelihood_is_the_models_own_loss_and_knows_what_it_was_trained_for():
    texts = ["the cat sat on a mat", "a dog ran in the park", "cat", "the park is a mat"]
    tokenizer = train_wordpiece(texts * 3, vocab_size=80)
    model = tiny_bart(tokenizer=tokenizer, width=16, layers=1, heads=2, positions=32, seed=0).eval()
    sources, targets = texts, texts[::-1]
    found = mean_log_likelihood(model, tokenizer, sources, targets, max_length=32)
    for i in range(len(texts)):
        source = tokenizer(sources[i], return_tensors="pt")
        labels = tokenizer(targets[i], return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            loss = model(input_ids=source["input_ids"], labels=labels).loss
        assert float(found[i]) == pytest.approx(-float(loss), abs=1e-4)


def test_noise_masks_and_deletes_inner_tokens_only():
    tokenizer = train_wordpiece(["some words to be lost and found again"] * 3, vocab_size=80)
    ids = torch.tensor(tokenizer(["some words to be lost and found again"] * 200)["input_ids"])
    noise = torch.Generator().manual_seed(0)
    out, inside = corrupt(ids, torch.ones_like(ids), tokenizer=tokenizer, masked=0.3, deleted=0.2, generator=noise)
    inner = ids.shape[1] - 2
    assert float((out == tokenizer.mask_token_id).sum()) / (200 * inner) == pytest.approx(0.3, abs=0.05)
    assert float(inside.sum()) / 200 - 2 == pytest.approx(0.8 * inner, abs=0.4)
    assert (out[:, 0] == tokenizer.cls_token_id).all()
    ends = out.gather(1, inside.sum(1, keepdim=True) - 1)
    assert (ends == tokenizer.sep_token_id).all() and (out[inside == 0] == tokenizer.pad_token_id).all()
