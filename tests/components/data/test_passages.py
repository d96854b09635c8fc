import numpy as np

from paperflows.components.data.passages import byte_tokens, cut_passages, model_tokens


def test_passages_do_not_overlap_and_cover_the_text():
    texts = ["abcdefgh", "ijklm", "né"]
    ids, sizes = cut_passages(texts, byte_tokens, length=4, limit=99, seed=0)
    assert ids.shape == (4, 5) and sizes.tolist() == [4] * 4
    joined = "\n".join(texts).encode()
    assert {bytes(row.astype(np.uint8)) for row in ids} == {joined[at : at + 5] for at in (0, 4, 8, 12)}


def test_limit_draws_over_the_whole_text():
    text = ["".join(chr(97 + i % 26) for i in range(1000))]
    some, _ = cut_passages(text, byte_tokens, length=10, limit=7, seed=3)
    again, _ = cut_passages(text, byte_tokens, length=10, limit=7, seed=3)
    other, _ = cut_passages(text, byte_tokens, length=10, limit=7, seed=4)
    assert some.shape == (7, 11) and np.array_equal(some, again) and not np.array_equal(some, other)


def test_too_little_text_gives_no_passage():
    ids, sizes = cut_passages(["abc"], byte_tokens, length=8, limit=5, seed=0)
    assert ids.shape == (0, 9) and sizes.shape == (0,)


def test_bytes_of_a_models_tokens_add_up_to_the_text():
    tokenise, vocabulary = model_tokens("minilm")
    ids, sizes = tokenise("the cats unaffordable")
    assert len(ids) == len(sizes) and ids.max() < vocabulary
    assert sizes.sum() == len("the cats unaffordable") - 2, "a WordPiece vocabulary leaves the spaces out"
