"""Targets as numbers for the copy model: its own vocabulary for the form, copies of the sentence's pieces for spans.

Letters: V vocabulary of the decoder. A number below V is a token, V + t is source piece t.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from paperflows.components.extraction.forms import Form
from paperflows.components.extraction.records import Schema, Sentence, Span, records_of

BEGIN, END = 0, 1
_FIRST_MARK = 0xE000  # private characters stand for entities until their target is written
_MARK = re.compile("([\ue000-\uf8ff])")


class Vocabulary(Protocol):
    """A tokenizer of the decoder's own tokens, of the library tokenizers."""

    def encode(self, text: str) -> Any:
        """With `ids`."""

    def decode(self, ids: list[int]) -> str:
        """The text again."""

    def get_vocab_size(self) -> int:
        """V."""


def train_vocabulary(texts: Sequence[str], *, size: int) -> Any:
    """A byte-level BPE of `size` tokens; token 0 begins a target and token 1 ends it."""
    from tokenizers import ByteLevelBPETokenizer

    learner = ByteLevelBPETokenizer(add_prefix_space=False)
    learner.train_from_iterator(
        texts, vocab_size=size, min_frequency=2, show_progress=False, special_tokens=["<begin>", "<end>"]
    )
    return learner


@dataclass(frozen=True)
class Source:
    """A sentence in pieces: ids, and the place in the text of each piece (start, end); specials have an empty place."""

    text: str
    ids: list[int]
    places: list[tuple[int, int]]


def read_source(sentence: Sentence, tokenizer: Any, *, max_length: int) -> Source:
    """The sentence tokenised for the encoder."""
    encoded = tokenizer(sentence.text, truncation=True, max_length=max_length, return_offsets_mapping=True)
    return Source(sentence.text, encoded["input_ids"], [tuple(place) for place in encoded["offset_mapping"]])


def write_target(sentence: Sentence, source: Source, form: Form, schema: Schema, vocabulary: Vocabulary) -> list[int]:
    """The target of the gold records as numbers, with begin and end.

    A span is written as copies of its pieces; one that is cut off or needs escapes is spelt.
    """
    pieces, texts = [_pieces(sentence, span, source) for span in sentence.entities], []
    for number, span in enumerate(sentence.entities):
        text = sentence.words(span)
        plain = json.dumps(text, ensure_ascii=False) == f'"{text}"' and not _MARK.search(sentence.text)
        texts.append(chr(_FIRST_MARK + number) if pieces[number] and plain else text)
    size, numbers = vocabulary.get_vocab_size(), [BEGIN]
    for part in _MARK.split(form.target(records_of(sentence, schema, texts), schema)):
        if _MARK.fullmatch(part):
            numbers += [size + piece for piece in pieces[ord(part) - _FIRST_MARK]]
        else:
            numbers += vocabulary.encode(part).ids
    return [*numbers, END]


def spell(numbers: Sequence[int], source: Source, vocabulary: Vocabulary) -> str:
    """The text that numbers stand for; copied pieces that follow each other keep what is between them."""
    size, parts, pending = vocabulary.get_vocab_size(), [], []
    before: int | None = None
    for number in numbers:
        if number < size:
            pending.append(number)
            before = None
            continue
        if pending:
            parts.append(vocabulary.decode(pending))
            pending = []
        piece = number - size
        if piece < len(source.places):
            start, end = source.places[piece]
            if before is not None:
                gap = source.text[source.places[before][1] : start] if piece == before + 1 else " "
                parts.append(gap)
            parts.append(source.text[start:end])
            before = piece
    if pending:
        parts.append(vocabulary.decode(pending))
    return "".join(parts)


def _pieces(sentence: Sentence, span: Span, source: Source) -> list[int]:
    start = len(" ".join(sentence.tokens[: span.start])) + (span.start > 0)
    end = start + len(sentence.words(span))
    inside = [i for i, (a, b) in enumerate(source.places) if a < b and a >= start and b <= end]
    whole = bool(inside) and source.places[inside[0]][0] == start and source.places[inside[-1]][1] == end
    return inside if whole else []
