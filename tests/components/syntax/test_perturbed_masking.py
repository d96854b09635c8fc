"""Impact matrices against one masking at a time; words, aspects and the parser."""

import numpy as np
import pytest
import torch

from paperflows.components.evaluation.statistics import macro_f1
from paperflows.components.models.tiny_bert import tiny_bert, train_wordpiece
from paperflows.components.syntax import words
from paperflows.components.syntax.perturbed_masking import impact_matrices

SENTENCES = [
    ["The", "unbelievable", "soup", "was", "cold", "."],
    ["Cold", "soup"],
    ["Waiters", "were", "nice", "but", "the", "soup", "was", "cold"],
    ["Soup"],
]


@pytest.fixture(scope="module")
def encoder():
    tokenizer = train_wordpiece([" ".join(s) for s in SENTENCES] * 3, vocab_size=60)
    return tiny_bert(
        vocab_size=len(tokenizer), width=16, layers=2, heads=2, positions=64, seed=0
    ).bert.eval(), tokenizer


@torch.inference_mode()
def naive(model, tokenizer, sentence):
    """The definition, word by word: no shared runs, no batches."""
    pieces = tokenizer(sentence, is_split_into_words=True, return_tensors="pt")
    owner = [-1 if w is None else w for w in pieces.word_ids(0)]

    def state(word, masked):
        ids = pieces["input_ids"].clone()
        for place, w in enumerate(owner):
            if w in masked:
                ids[0, place] = tokenizer.mask_token_id
        hidden = model(input_ids=ids).last_hidden_state[0]
        return hidden[[place for place, w in enumerate(owner) if w == word]].mean(0)

    n = len(sentence)
    out = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if i != j:
                out[i, j] = (state(i, {i}) - state(i, {i, j})).norm()
    return out


@pytest.mark.parametrize("budget", [16, 4096])
def test_impact_matrices_are_those_of_the_naive_loop(encoder, budget):
    model, tokenizer = encoder
    assert any(len(tokenizer.tokenize(word)) > 1 for word in SENTENCES[0]), "some word must have several pieces"
    found = impact_matrices(model, tokenizer, SENTENCES, token_budget=budget)
    for sentence, matrix in zip(SENTENCES, found, strict=True):
        np.testing.assert_allclose(matrix, naive(model, tokenizer, sentence), atol=1e-5)


def test_a_word_the_tokenizer_drops_keeps_its_place(encoder):
    ((ids, owner),) = words.pieces_of(encoder[1], [["soup", "​", "cold"]])
    assert set(owner.tolist()) == {-1, 0, 1, 2} and len(ids) == len(owner)
    assert np.diff(owner[1:-1]).min() >= 0, "pieces stay in the order of their words"


def test_aspects_by_their_offsets():
    text = "The fish-soup wasn't bad, was it?"
    row = {"text": text, "aspect": "fish-soup", "from": 4, "to": 13, "label": "positive"}
    aspect = words.aspect_of(row)
    assert [w for w, inside in zip(aspect.words, aspect.inside, strict=True) if inside] == ["fish", "-", "soup"]
    assert "wasn't" in aspect.words
    assert words.aspect_of({**row, "from": 3, "to": 4}) is None
    assert {"bad", "great"} <= words.sentiment_words() and "table" not in words.sentiment_words()


def test_macro_f1_by_hand_and_over_resamples():
    gold, output = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 0])
    # class 0: 2 * 1 / (2 + 2), class 1: 2 * 2 / (2 + 3), class 2: 0
    assert macro_f1(gold, output) == pytest.approx((0.5 + 0.8 + 0) / 3)
    both = macro_f1(np.stack([gold, gold]), np.stack([output, gold]))
    assert both.tolist() == pytest.approx([(0.5 + 0.8) / 3, 1.0])


def test_the_parser_learns_a_toy_grammar():
    from paperflows.components.syntax.parser import BiaffineParser, parser_loss

    torch.manual_seed(0)
    parser = BiaffineParser(layers=2, width=6, hidden=12)
    kinds = torch.randint(0, 3, (32, 6))
    kinds[:, 0] = 0
    states = torch.nn.functional.one_hot(kinds, 6).float().unsqueeze(2).expand(-1, -1, 2, -1).clone()
    states[:, 0] += 3  # the first word is marked: all others hang on it, it hangs on the root
    heads = torch.ones(32, 6, dtype=torch.long)
    heads[:, 0] = 0
    mask = torch.ones(32, 6, dtype=torch.bool)
    optimizer = torch.optim.Adam(parser.parameters(), lr=0.01)
    first = float(parser_loss(parser(states, mask), heads))
    for _ in range(40):
        loss = parser_loss(parser(states, mask), heads)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss) < 0.2 * first
    padded = parser.eval()(states, mask & (torch.arange(6) < 4))
    assert (padded[:, 5:] < -1e8).all(), "padding is nobody's head"
    alone = parser(states[:, :4], mask[:, :4])
    torch.testing.assert_close(padded[:, :5, :4], alone, atol=1e-5, rtol=0, msg="scores do not depend on the padding")
