"""Running text cut into passages of equal length. P passages, T tokens predicted in each."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tokenise = Callable[[str], tuple[NDArray[np.int32], NDArray[np.int64]]]


def byte_tokens(text: str) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The bytes of the text in UTF-8 as token numbers 0-255, one byte each."""
    ids = np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.int32)
    return ids, np.ones(len(ids), dtype=np.int64)


def model_tokens(model: str) -> tuple[Tokenise, int]:
    """A function that tokenises text for a pretrained model, giving ids and the bytes of each, and the vocabulary."""
    from paperflows.components.models.pretrained import load_tokenizer

    tokenizer = load_tokenizer(model)

    def tokenise(text: str) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        encoded: Any = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        sizes = [len(text[start:end].encode("utf-8")) for start, end in encoded["offset_mapping"]]
        return np.array(encoded["input_ids"], dtype=np.int32), np.array(sizes, dtype=np.int64)

    return tokenise, len(tokenizer)


def cut_passages(
    texts: Sequence[str], tokenise: Tokenise, *, length: int, limit: int, seed: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Join texts by line ends and cut them into passages that do not overlap, save for the one token of context.

    Args:
        tokenise: text -> ids and the bytes of each.
        length: T.
        limit: passages kept, drawn at random by `seed`, in a random order.

    Returns:
        (P, T + 1) ids, whose first token is only context, and (P,) bytes of the T tokens that are predicted.
    """
    ids, sizes = tokenise("\n".join(texts))
    count = max(0, (len(ids) - 1) // length)
    starts = np.random.default_rng(seed).permutation(count)[:limit] * length
    places = starts[:, None] + np.arange(length + 1)
    return ids[places], sizes[places[:, 1:]].sum(1)
