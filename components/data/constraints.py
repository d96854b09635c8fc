"""What one row's fields must satisfy together. Each check yields (field, message) of what is wrong."""

from collections.abc import Iterator
from typing import Any

from paperflows.components.data.problems import shorten

Row = dict[str, Any]
Faults = Iterator[tuple[str, str]]


def aspect_is_in_text(row: Row) -> Faults:
    """`text[from:to]` must be the aspect."""
    start, end, text = row["from"], row["to"], row["text"]
    if not start < end <= len(text):
        yield "to", f"expected from < to <= {len(text)} (length of text), got from {start}, to {end}"
    elif text[start:end] != row["aspect"]:
        yield "aspect", f"expected text[{start}:{end}] = {shorten(text[start:end])}, got {shorten(row['aspect'])}"


def tags_fit_tokens(row: Row) -> Faults:
    """One tag (and head, and relation) a token; heads within the sentence; every I- continues its own entity."""
    size = len(row["tokens"])
    for field in ("tags", "heads", "deprels"):
        if row.get(field) is not None and len(row[field]) != size:
            yield field, f"expected {size} items (one a token), got {len(row[field])}"
            return
    for position, head in enumerate(row.get("heads") or ()):
        if head > size or head == position + 1:
            yield f"heads[{position}]", f"expected 0..{size} and not the token itself ({position + 1}), got {head}"
            return
    if {tag[:2] for tag in row["tags"]} <= {"O", "B-", "I-"}:
        previous = "O"
        for position, tag in enumerate(row["tags"]):
            if tag.startswith("I-") and previous[2:] != tag[2:]:
                yield f"tags[{position}]", f"expected {tag} to follow B-{tag[2:]} or {tag}, but it follows {previous}"
                return
            previous = tag


def spans_are_in_tokens(row: Row) -> Faults:
    """Entity spans lie within the tokens; relations link two different entities of the list."""
    size, known = len(row["tokens"]), len(row["entities"])
    for index, entity in enumerate(row["entities"]):
        if not entity["start"] < entity["end"] <= size:
            yield f"entities[{index}]", f"expected start < end <= {size}, got {entity['start']}, {entity['end']}"
            return
    for index, relation in enumerate(row["relations"]):
        head, tail = relation["head"], relation["tail"]
        if max(head, tail) >= known or head == tail:
            yield f"relations[{index}]", f"expected two different entities below {known}, got {head} and {tail}"
            return


def mentions_are_in_tokens(row: Row) -> Faults:
    """Both mentions name tokens of the sentence."""
    size = len(row["tokens"])
    for field in ("head", "tail"):
        outside = [index for index in row[field]["mention"] if index >= size]
        if outside:
            yield f"{field}.mention", f"expected token numbers below {size}, got {outside[0]}"


def mentions_are_in_text(row: Row) -> Faults:
    """Mentions lie within the text; targets number the row's own triples, with one setting each."""
    size = len(row["text"])
    for index, mention in enumerate(row["mentions"]):
        if not mention["start"] < mention["end"] <= size:
            place = f"{mention['start']}, {mention['end']}"
            yield f"mentions[{index}]", f"expected start < end <= {size} (length of text), got {place}"
            return
    targets = row.get("targets") or []
    if any(target >= len(row["triples"]) for target in targets):
        yield "targets", f"expected numbers below {len(row['triples'])} (triples of the row), got {max(targets)}"
    elif row.get("settings") is not None and len(row["settings"]) != len(targets):
        yield "settings", f"expected {len(targets)} items (one a target), got {len(row['settings'])}"


def answer_is_a_choice(row: Row) -> Faults:
    """The answer numbers one of the choices."""
    if row["answer"] >= len(row["choices"]):
        yield "answer", f"expected a number below {len(row['choices'])} (choices), got {row['answer']}"


def no_fault(_row: Row) -> Faults:
    """Nothing beyond the types."""
    yield from ()
