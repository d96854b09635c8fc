"""Sentences of words as word pieces: which pieces make which word, and where a word is read (its first piece).

Letters: N sentences, B batch, T pieces, W words.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paperflows.components.errors import InputError
from paperflows.components.evaluation.entities import from_spans
from paperflows.components.models.word_pieces import reads_words
from paperflows.components.training.batching import TokenTable

OUTSIDE = -100


def tags_of(row: Mapping[str, Any]) -> list[str]:
    """A row's tags; entities of a relations row become BIO tags."""
    return list(row["tags"]) if "tags" in row else from_spans(len(row["tokens"]), row["entities"])


class WordTable:
    """N sentences tokenised by words, with tag numbers.

    Words behind `max_length`, and words of which the tokenizer leaves nothing, have no piece: they are never trained
    on and get `fallback`, the most frequent training tag, as their prediction, so that no gold word is dropped.

    Args:
        rows: with `tokens` and `tags` (or `entities`).
        labels: tag names by number.

    Raises:
        InputError: a tag that is not among `labels`.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], tokenizer: Any, labels: Sequence[str], *, max_length: int):
        self.labels = list(labels)
        self.gold = [tags_of(row) for row in rows]
        number = {name: i for i, name in enumerate(labels)}
        unknown = {tag for tags in self.gold for tag in tags} - number.keys()
        if unknown:
            raise InputError(f"tag {min(unknown)!r} is not among the training split's: {', '.join(labels)}")
        told = reads_words(tokenizer)(
            [list(row["tokens"]) for row in rows], is_split_into_words=True, truncation=True, max_length=max_length
        )
        self.table = TokenTable(told["input_ids"], pad_id=tokenizer.pad_token_id)
        self.words = [[-1 if w is None else w for w in told.word_ids(i)] for i in range(len(rows))]
        self.word_lengths = np.array([len(tags) for tags in self.gold])
        self._tags = [[number[tag] for tag in tags] for tags in self.gold]

    def batch(self, rows: np.ndarray) -> dict[str, Any]:
        """Tensors of these sentences.

        tokens, mask (B, T); word_of (B, T): the word of a piece, -1 for special tokens and padding; first (B, W): the
        first piece of a word, 0 where there is none; real (B, W): words that have a piece; tags (B, W): numbers, -100
        for words without a piece and padding.
        """
        ids, mask = self.table.pad(rows)
        width = int(self.word_lengths[rows].max())
        word_of = np.full(ids.shape, -1, dtype=np.int64)
        first = np.zeros((len(rows), width), dtype=np.int64)
        tags = np.full((len(rows), width), OUTSIDE, dtype=np.int64)
        real = np.zeros((len(rows), width), dtype=bool)
        for place, row in enumerate(rows):
            words = np.array(self.words[row])
            word_of[place, : len(words)] = words
            known, at = np.unique(words, return_index=True)
            known, at = known[known >= 0], at[known >= 0]
            first[place, known], real[place, known] = at, True
            tags[place, known] = np.array(self._tags[row])[known]
        tensors = {"word_of": word_of, "first": first, "real": real, "tags": tags}
        return {
            "tokens": ids, "mask": mask, **{k: torch.from_numpy(v) for k, v in tensors.items()}, "ids": rows.tolist()
        }  # fmt: skip

    def said(self, rows: np.ndarray, numbers: Tensor, real: Tensor, fallback: int) -> list[list[str]]:
        """Predicted tag names of every gold word of these sentences, from (B, W) numbers."""
        filled = torch.where(real, numbers, fallback).tolist()
        return [
            [self.labels[n] for n in line[: self.word_lengths[row]]] for row, line in zip(rows, filled, strict=True)
        ]


def of_first_pieces(hidden: Tensor, first: Tensor) -> Tensor:
    """(B, T, D) states of pieces -> (B, W, D) states of words."""
    return hidden.gather(1, first.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))


def pieces_of(words: Tensor, word_of: Tensor, special: Tensor) -> Tensor:
    """(B, W) flags of words -> (B, T) flags of pieces: all pieces of a word as the word, special tokens as (B,)."""
    inside = words.gather(1, word_of.clamp(min=0))
    return torch.where(word_of >= 0, inside, special.unsqueeze(-1))


def layers_of_pieces(exits: Tensor, word_of: Tensor, mask: Tensor, depth: int) -> Tensor:
    """(B, W) executed layers of words -> (B, T) of pieces; special tokens run all, padding none."""
    inside = exits.gather(1, word_of.clamp(min=0))
    return torch.where(word_of >= 0, inside, depth) * mask
