"""Brackets in the sentinels of an encoder-decoder, which are single tokens where `<0>` would be several."""

from typing import Any

_SENTINELS = {"<0>": "<extra_id_0>", "<1>": "<extra_id_1>", "<5>": "<extra_id_5>"}  # UIE's names for the marks


def to_sentinels(target: str, tokenizer: Any) -> str:
    """A target with its marks as sentinels, or as it is where the tokenizer has none."""
    if _SENTINELS["<0>"] not in tokenizer.get_vocab():
        return target
    for mark, sentinel in _SENTINELS.items():
        target = target.replace(mark, sentinel)
    return target


def from_sentinels(numbers: list[int], tokenizer: Any) -> str:
    """The text of what was written, with marks for sentinels, without the tokens that begin, end or pad it."""
    frame = {tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id}
    text = tokenizer.decode([n for n in numbers if n not in frame], skip_special_tokens=False)
    for mark, sentinel in _SENTINELS.items():
        text = text.replace(sentinel, f" {mark} ")
    return " ".join(text.split())
