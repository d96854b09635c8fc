"""From raw records to spans in the sentence, with CodeIE's counters, and their F1 (section 3.4; official scorer)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from paperflows.components.extraction.records import Record, Schema, Sentence

Place = tuple[int, int]
COUNTERS = ("invalid_label", "invalid_span", "invalid_relation", "invalid_tail")


@dataclass
class Located:
    """Predictions at places of the sentence: entities (start, end, type); relations (type, head, tail) of such."""

    entities: list[tuple[int, int, str]] = field(default_factory=list)
    relations: list[tuple[str, tuple[int, int, str], tuple[int, int, str]]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def locate(records: Sequence[Record], sentence: Sentence, schema: Schema) -> Located:
    """Check records against schema and sentence, and find their texts in it.

    An entity takes the first place that no equal prediction took yet; duplicates beyond the places are dropped. A
    relation takes the pair of places that lie nearest to each other. An unknown type or a text that the sentence does
    not hold drops the record and is counted.
    """
    found, taken = Located(), Counter[tuple[str, str]]()
    for record in records:
        if schema.relations:
            _relation(record, sentence, schema, found)
            continue
        kind, places = record["type"], occurrences(record["text"], sentence.tokens)
        if kind not in schema.entities:
            found.counts["invalid_label"] += 1
        elif not places:
            found.counts["invalid_span"] += 1
        else:
            key = (record["text"], kind)
            if taken[key] < len(places):
                found.entities.append((*places[taken[key]], kind))
                taken[key] += 1
    return found


def occurrences(text: str, tokens: Sequence[str]) -> list[Place]:
    """All places (start, end) at which a text stands as whole tokens, first to last."""
    words = text.split()
    if not words:
        return []
    return [
        (i, i + len(words)) for i in range(len(tokens) - len(words) + 1) if list(tokens[i : i + len(words)]) == words
    ]


def counts_of(found: Located, sentence: Sentence, schema: Schema) -> NDArray[np.float64]:
    """(3,) hits, said, true of a sentence, for micro F1; each gold item is matched once.

    Relations are strict: type, both places and both entity types.
    """
    gold: set
    said: set
    if schema.relations:
        ends = [(s.start, s.end, s.type) for s in sentence.entities]
        gold = {(kind, ends[head], ends[tail]) for head, tail, kind in sentence.relations}
        said = set(found.relations)
    else:
        gold = {(s.start, s.end, s.type) for s in sentence.entities}
        said = set(found.entities)
    return np.array([len(gold & said), len(said), len(gold)], dtype=np.float64)


def _relation(record: Record, sentence: Sentence, schema: Schema, found: Located) -> None:
    heads = occurrences(record["ent1_text"], sentence.tokens)
    tails = occurrences(record["ent2_text"], sentence.tokens)
    wrong = {
        "invalid_relation": record["rel_type"] not in schema.relations,
        "invalid_label": not {record["ent1_type"], record["ent2_type"]} <= set(schema.entities),
        "invalid_span": not heads,
        "invalid_tail": not tails,
    }
    found.counts.update({name: 1 for name, is_so in wrong.items() if is_so})
    if any(wrong.values()):
        return
    head, tail = min(((h, t) for h in heads for t in tails if h != t), key=_gap, default=(heads[0], tails[0]))
    item = (record["rel_type"], (*head, record["ent1_type"]), (*tail, record["ent2_type"]))
    if item not in found.relations:
        found.relations.append(item)


def _gap(pair: tuple[Place, Place]) -> int:
    (a, b), (c, d) = pair
    return max(c - b, a - d)
