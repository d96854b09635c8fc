"""Sentences with entities and relations between them, as a model that writes records sees them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Record = dict[str, str]  # what one line of a target says; its keys depend on the task
ENTITY_KEYS = ("text", "type")
RELATION_KEYS = ("rel_type", "ent1_type", "ent1_text", "ent2_type", "ent2_text")


@dataclass(frozen=True)
class Span:
    """Tokens start .. end-1 are an entity of a type (in words)."""

    start: int
    end: int
    type: str


@dataclass(frozen=True)
class Sentence:
    """A sentence with its gold entities and relations (head, tail, type: numbers of entities, type in words)."""

    tokens: tuple[str, ...]
    entities: tuple[Span, ...]
    relations: tuple[tuple[int, int, str], ...] = ()

    @property
    def text(self) -> str:
        """The tokens joined by spaces."""
        return " ".join(self.tokens)

    def words(self, span: Span) -> str:
        """The text of a span."""
        return " ".join(self.tokens[span.start : span.end])


@dataclass(frozen=True)
class Schema:
    """What may be extracted: types in words. Relations are asked for where `relations` is not empty."""

    entities: tuple[str, ...]
    relations: tuple[str, ...] = ()


def read_sentences(rows: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> list[Sentence]:
    """Rows of tagging (BIO) or of relations as sentences.

    Args:
        names: type in the data -> words; a type that is not named is lower-cased with spaces for `_` and `-`.
    """

    def words(kind: str) -> str:
        return names.get(kind) or kind.replace("_", " ").replace("-", " ").lower()

    found = []
    for row in rows:
        if "tags" in row:
            spans = [Span(start, end, words(kind)) for start, end, kind in bio_spans(row["tags"])]
            found.append(Sentence(tuple(row["tokens"]), tuple(spans)))
        else:
            spans = [Span(e["start"], e["end"], words(e["type"])) for e in row["entities"]]
            links = [(r["head"], r["tail"], words(r["type"])) for r in row["relations"]]
            found.append(Sentence(tuple(row["tokens"]), tuple(spans), tuple(links)))
    return found


def bio_spans(tags: Sequence[str]) -> list[tuple[int, int, str]]:
    """(start, end, type) of each entity of a BIO sequence."""
    spans: list[tuple[int, int, str]] = []
    start = None
    for place, tag in enumerate([*tags, "O"]):
        inside = start is not None and tag == f"I-{tags[start][2:]}"
        if start is not None and not inside:
            spans.append((start, place, tags[start][2:]))
            start = None
        if tag.startswith("B-") or (tag.startswith("I-") and not inside):
            start = place
    return spans


def schema_of(sentences: Sequence[Sentence], *, relations: bool) -> Schema:
    """All types that occur, in sorted order."""
    kinds = sorted({span.type for s in sentences for span in s.entities})
    links = sorted({kind for s in sentences for _, _, kind in s.relations}) if relations else []
    return Schema(tuple(kinds), tuple(links))


def records_of(sentence: Sentence, schema: Schema, texts: Sequence[str] | None = None) -> list[Record]:
    """The gold records in the order of the annotation: entities, or relations where the schema has them.

    Args:
        texts: what stands for each entity; empty for its words.
    """
    spans = sentence.entities
    texts = [sentence.words(span) for span in spans] if texts is None else texts
    if not schema.relations:
        return [{"text": text, "type": span.type} for text, span in zip(texts, spans, strict=True)]
    return [
        {
            "rel_type": kind, "ent1_type": spans[head].type, "ent1_text": texts[head], "ent2_type": spans[tail].type,
            "ent2_text": texts[tail],
        }
        for head, tail, kind in sentence.relations
    ]  # fmt: skip
