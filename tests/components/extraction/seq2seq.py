"""A tiny encoder-decoder in the form of T5, for tests."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any


def train_tokenizer(texts: Iterable[str], *, sentinels: bool) -> Any:
    """A byte-level tokenizer with T5's special tokens."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    learner = ByteLevelBPETokenizer(add_prefix_space=False)
    learner.train_from_iterator(texts, vocab_size=400, special_tokens=["<pad>", "</s>"], show_progress=False)
    extra = {"additional_special_tokens": [f"<extra_id_{i}>" for i in (0, 1, 5)]} if sentinels else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=learner._tokenizer, pad_token="<pad>", eos_token="</s>", clean_up_tokenization_spaces=False,
        **extra,
    )  # fmt: skip


def save_seq2seq(folder: Path, texts: Iterable[str]) -> None:
    """A fresh model and its tokenizer in a folder."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    tokenizer = train_tokenizer(texts, sentinels=True)
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4, pad_token_id=0,
        eos_token_id=1, decoder_start_token_id=0,
    )  # fmt: skip
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
