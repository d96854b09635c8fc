"""Tokenizers that are given words one by one rather than texts."""

from typing import Any

from tokenizers.pre_tokenizers import ByteLevel


def reads_words(tokenizer: Any) -> Any:
    """The tokenizer, set so that each word given alone is spelt as it is in running text; changes it in place.

    Byte-level vocabularies (RoBERTa's) hold the space before a word in the word's first piece. A word without it is
    another word, or the end of the one before.
    """
    before = getattr(getattr(tokenizer, "backend_tokenizer", None), "pre_tokenizer", None)
    if isinstance(before, ByteLevel) and not before.add_prefix_space:
        before.add_prefix_space = True
    return tokenizer
