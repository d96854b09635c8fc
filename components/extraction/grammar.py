"""Well-formed targets as a walk over tokens, for decoding that can write nothing else (entities).

Letters: B sentences, T source pieces, V vocabulary of the decoder, S states of the walk.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from paperflows.components.extraction.forms import Form
from paperflows.components.extraction.records import Schema
from paperflows.components.extraction.targets import END, Vocabulary

_ONE, _TWO = "\ue000", "\ue001"  # stand for spans in a target
# states: a span begins; a span may go on or end; the target begins; it begins and there is nothing to copy
_COPY, _BETWEEN, _START, _NOTHING = 0, 1, 2, 3


class Grammar:
    """What may follow what: fixed words of a form before, between and behind spans, and spans that are copied.

    A span is a run of neighbouring pieces; what the form must spell, such as a text with quotes, cannot be written.

    Args:
        schema: of entities; relations nest, and are not walked.
        vocabulary: of the decoder, for the fixed words.
    """

    def __init__(self, form: Form, schema: Schema, vocabulary: Vocabulary) -> None:
        first, between, last = set(), set(), set()
        for one in schema.entities:
            for two in schema.entities:
                target = form.target([{"text": _ONE, "type": one}, {"text": _TWO, "type": two}], schema)
                before, rest = target.split(_ONE)
                middle, behind = rest.split(_TWO)
                first.add(before)
                between.add(middle)
                last.add(behind)
        rows: list[dict[int, int]] = [{}, {}, {}, {}]  # in the order of the states

        def add(start: int, tokens: Sequence[int], goal: int) -> None:
            for token in tokens[:-1]:
                if token not in rows[start]:
                    rows.append({})
                    rows[start][token] = len(rows) - 1
                start = rows[start][token]
            rows[start][tokens[-1]] = goal

        def ids(text: str) -> list[int]:
            return list(vocabulary.encode(text).ids)

        for text in sorted(first):
            add(_START, ids(text), _COPY)
        for start in (_START, _NOTHING):
            add(start, [*ids(form.target([], schema)), END], _COPY)
        for text in sorted(between):
            add(_BETWEEN, ids(text), _COPY)
        for text in sorted(last):
            add(_BETWEEN, [*ids(text), END], _COPY)
        self.table = torch.full((len(rows), vocabulary.get_vocab_size()), -1)
        for state, row in enumerate(rows):
            for token, goal in row.items():
                self.table[state, token] = goal

    def walk(self, pieces: Tensor) -> "Walk":
        """A walk for each of B sentences.

        Args:
            pieces: (B, T) true where a source piece is part of the text.
        """
        return Walk(self.table.to(pieces.device), pieces)


class Walk:
    """Where each sentence's target stands."""

    def __init__(self, table: Tensor, pieces: Tensor) -> None:
        self.table, self.pieces = table, pieces
        self.state = torch.where(pieces.any(1), _START, _NOTHING)
        self.piece = torch.full_like(self.state, -1)

    def allowed(self) -> Tensor:
        """(B, V + T) true where the target may go on."""
        behind = torch.arange(self.pieces.shape[1], device=self.piece.device) == self.piece[:, None] + 1
        copies = (self.state == _COPY)[:, None] | ((self.state == _BETWEEN)[:, None] & behind)
        return torch.cat([self.table[self.state] >= 0, copies & self.pieces], 1)

    def advance(self, ids: Tensor) -> None:
        """(B,) numbers that were written: tokens, or V + a piece."""
        size = self.table.shape[1]
        copied = ids >= size
        self.state = torch.where(copied, _BETWEEN, self.table[self.state, ids.clamp(max=size - 1)])
        self.piece = torch.where(copied, ids - size, -1)

    def keep(self, rows: Tensor) -> None:
        """Go on with these sentences alone, (B,) true."""
        self.pieces, self.state, self.piece = self.pieces[rows], self.state[rows], self.piece[rows]
