"""Brackets in a model's sentinels and back."""

import pytest
from transformers import PreTrainedTokenizerFast

from paperflows.components.extraction.sentinels import from_sentinels, to_sentinels

from .seq2seq import train_tokenizer

TARGET = "<0> <0> person <5> Ann Lee <1> <0> location <5> Oslo <1> <1>\n"


@pytest.mark.parametrize("sentinels", [True, False])
def test_a_target_comes_back(sentinels):
    tokenizer = train_tokenizer([TARGET], sentinels=sentinels)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    written = to_sentinels(TARGET, tokenizer)
    assert (written == TARGET) is not sentinels
    numbers = tokenizer(written)["input_ids"]
    if sentinels:
        marks = [tokenizer.convert_tokens_to_ids(f"<extra_id_{i}>") for i in (0, 1, 5)]
        assert [numbers.count(mark) for mark in marks] == [3, 3, 2], "every mark is one token"
    padded = [tokenizer.pad_token_id, *numbers, tokenizer.eos_token_id, tokenizer.pad_token_id]
    assert from_sentinels(padded, tokenizer) == TARGET.strip()
