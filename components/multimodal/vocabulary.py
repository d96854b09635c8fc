"""One vocabulary for all: the text tokenizer's ids, the marks of a dialogue, and a block of ids a modality.

Letters: V old ids, W new ids, D width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MARKS = ("<user>", "<bot>", "<eoh>", "<eom>")
NULL = "<none>"  # stands for a dropped text condition


@dataclass(frozen=True)
class Block:
    """Ids of one modality: `first` .. `first + n_ids - 1`, between a begin and an end token."""

    first: int
    n_ids: int
    exact: int | None
    begin: int
    end: int


class Vocabulary:
    """The text tokenizer with marks added, and blocks of ids behind it.

    Args:
        tokenizer: a fast tokenizer with a padding token; the marks are added to it where it lacks them.
        modalities: name -> tokenizer of that modality (`n_ids`, `exact`, `begin`, `end`).
        marks: whether blocks stand between begin and end tokens; without, a block ends with its message.

    Attributes:
        known: ids below it were the tokenizer's own; a model has never seen those from there on.
    """

    def __init__(self, tokenizer: Any, modalities: Mapping[str, Any], *, marks: bool = True) -> None:
        names = [*MARKS, NULL, *(name for media in modalities.values() for name in (media.begin, media.end))]
        missing = [name for name in names if name not in tokenizer.get_vocab()]
        known = len(tokenizer)
        if missing:
            tokenizer.add_special_tokens({"additional_special_tokens": missing})
        self.tokenizer, self.marks = tokenizer, marks
        self.user, self.bot, self.eoh, self.eom, self.null = (
            tokenizer.convert_tokens_to_ids(n) for n in (*MARKS, NULL)
        )
        self.pad = tokenizer.pad_token_id
        self.words = len(tokenizer)
        self.blocks: dict[str, Block] = {}
        first = self.words
        for name, media in modalities.items():
            begin, end = tokenizer.convert_tokens_to_ids([media.begin, media.end])
            self.blocks[name] = Block(first, media.n_ids, media.exact, begin, end if marks else self.eom)
            first += media.n_ids
        self.size = first
        self.known = known if missing else first
        special = {*tokenizer.all_special_ids}
        self.text_ids = [i for i in range(self.words) if i not in special]

    def text(self, words: str) -> list[int]:
        """Ids of a text."""
        ids: list[int] = self.tokenizer(words, add_special_tokens=False)["input_ids"]
        return ids

    def block(self, modality: str, ids: Sequence[int]) -> list[int]:
        """An item of a modality between its begin and end tokens."""
        b = self.blocks[modality]
        inner = [b.first + i for i in ids]
        return [b.begin, *inner, b.end] if self.marks else inner

    def parse(self, ids: Sequence[int]) -> list[tuple[str, Any]]:
        """A message as its parts in order: ("text", words) and (modality, ids of its tokenizer).

        A block is left out where its end token is missing, or where its length is not its modality's exact one; without
        marks the message's end is a block's end too.
        """
        parts: list[tuple[str, list[int]]] = []
        for number in ids:
            kind = self.kind(number)
            if kind is None:
                parts.append(("", [number]))  # a mark ends the part before it
            elif parts and parts[-1][0] == kind:
                parts[-1][1].append(number)
            else:
                parts.append((kind, [number]))
        found: list[tuple[str, Any]] = []
        for (kind, some), (_, after) in zip(parts, [*parts[1:], ("", [])], strict=True):
            if kind == "text":
                found.append((kind, self.tokenizer.decode(some).strip()))
            elif kind:
                block = self.blocks[kind]
                closed = after == [block.end] or not self.marks
                if closed and block.exact in (None, len(some)):
                    found.append((kind, [i - block.first for i in some]))
        return found

    def kind(self, number: int) -> str | None:
        """Modality of an id, "text" for words, None for marks."""
        if number >= self.words:
            return next(name for name, b in self.blocks.items() if b.first <= number < b.first + b.n_ids)
        return None if number in self._marks else "text"

    @property
    def _marks(self) -> frozenset[int]:
        return frozenset(self.tokenizer.all_special_ids)


def train_text_tokenizer(texts: Sequence[str], *, size: int) -> Any:
    """Byte-level BPE over words with the space before them; at most `size` tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    learner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<pad>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    learner.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=learner, pad_token="<pad>")


def extend_vocabulary(model: Any, size: int, *, known: int, seed: int) -> None:
    """Give a causal language model's embedding and output matrix rows for the ids from `known` to `size`, in place.

    New rows are drawn from the normal distribution with the mean and covariance of the old ones (Hewitt 2021), so that
    they have the old rows' scale; with fewer old rows than the width the covariance is that of a subspace. Many models
    have rows behind their tokenizer's words, to round the matrix up; those were never trained and are drawn anew too.
    """
    tables = [model.get_input_embeddings()]
    if model.get_output_embeddings().weight is not tables[0].weight:
        tables.append(model.get_output_embeddings())
    rows = tables[0].weight.shape[0]
    known = min(known, rows)
    if known >= size:
        return
    generator = torch.Generator().manual_seed(seed)
    drawn = [_like(table.weight.detach()[:known], size - known, generator) for table in tables]
    if rows < size:
        model.resize_token_embeddings(size, mean_resizing=False)
        tables = [model.get_input_embeddings(), model.get_output_embeddings()][: len(tables)]
    with torch.no_grad():
        for table, new in zip(tables, drawn, strict=True):
            table.weight[known:size] = new


def _like(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(W, D) normal vectors with the mean and covariance of (V, D): the centred rows, mixed by normal weights."""
    centred = rows - rows.mean(0)
    weights = torch.randn(count, len(rows), generator=generator).to(rows)
    return rows.mean(0) + weights @ centred / (len(rows) - 1) ** 0.5
