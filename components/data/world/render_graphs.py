"""Texts that state facts, with the entities they mention: word-knowledge graphs of the small world."""

from random import Random
from typing import Any

from paperflows.components.data.world.facts import Fact, facts, is_number
from paperflows.components.data.world.hashing import stable_number
from paperflows.components.data.world.render_facts import fact_sentence

Row = dict[str, Any]
RELATIONS = ("located in", "capital of", "on continent", "borders", "currency", "language", "time zone")


def graph_rows() -> dict[str, list[Row]]:
    """Rows of text graphs by split, and all entities.

    Facts are split, not texts: one in twelve is test and one in twelve validation, and so is every fact of two in
    twenty subjects, which training never sees (inductive). A row of training states two or three facts of a subject;
    another states a held-out one, its target, and one more fact of the same subject that is not of another split's.
    """
    chosen = _chosen()
    part = {f: _part(f) for f in chosen}
    by_subject: dict[str, list[Fact]] = {}
    for fact in chosen:
        by_subject.setdefault(fact.subject, []).append(fact)
    splits: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    rng = Random(stable_number("graphs"))
    known: set[str] = set()
    for subject in sorted(by_subject):
        own = [f for f in by_subject[subject] if part[f] == "train"]
        rng.shuffle(own)
        for at in range(0, len(own) - 1, 2):
            some = own[at : at + 3 if len(own) - at == 3 else at + 2]
            splits["train"].append(_row(some, rng, len(splits["train"])))
            known |= {end for f in some for end in (f.subject, str(f.object))}
    for fact in chosen:
        where = part[fact]
        beside = [f for f in by_subject[fact.subject] if f != fact and part[f] in ("train", where)]
        if where == "train" or not beside:
            continue
        row = _row([fact, rng.choice(beside)], rng, len(splits[where]))
        setting = "transductive" if {fact.subject, str(fact.object)} <= known else "inductive"
        splits[where].append({**row, "targets": [0], "settings": [setting]})
    names = sorted({end for f in chosen for end in (f.subject, str(f.object))})
    return {**splits, "entities": [{"id": name, "name": name} for name in names]}


def relation_rows() -> dict[str, list[Row]]:
    """Rows of relation classification by split: one sentence a fact, split as the facts of the graphs are."""
    splits: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    for fact in _chosen():
        text = fact_sentence(fact, stable_number("labelled", fact.subject, fact.relation, str(fact.object)))
        ends = {"head": fact.subject, "tail": str(fact.object)}
        places = sorted((text.find(entity), text.find(entity) + len(entity), side) for side, entity in ends.items())
        if places[0][0] < 0 or places[0][1] > places[1][0]:
            continue  # a wording that says an end otherwise, or one inside the other
        tokens, spans, done = list[str](), {}, 0
        for start, end, side in places:
            tokens += text[done:start].split()
            words = text[start:end].split()
            spans[side] = {
                "name": ends[side], "entity": ends[side], "mention": list(range(len(tokens), len(tokens) + len(words)))
            }  # fmt: skip
            tokens, done = tokens + words, end
        rows = splits[_part(fact)]
        tokens += text[done:].split()
        rows.append({"id": len(rows), "tokens": tokens, **spans, "label": fact.relation.replace(" ", "_")})
    return splits


def _chosen() -> list[Fact]:
    links = [f for f in facts() if not is_number(f) and f.relation in RELATIONS and f.subject != f.object]
    return [f for f in links if f.kind == "country" or stable_number("city", f.subject) % 4 == 0]


def _part(fact: Fact) -> str:
    unseen = stable_number("unseen", fact.subject) % 20
    if unseen < 2:
        return ("test", "validation")[unseen]
    return {0: "test", 1: "validation"}.get(
        stable_number("fact", fact.subject, fact.relation, fact.object) % 12, "train"
    )


def _row(some: list[Fact], rng: Random, number: int) -> Row:
    text, found = "", set[str]()
    mentions: list[dict[str, Any]] = []
    for fact in some:
        start = len(text)
        text += fact_sentence(fact, rng.getrandbits(32)) + " "
        for entity in (fact.subject, str(fact.object)):
            at = text.find(entity, start)
            overlaps = any(at < m["end"] and m["start"] < at + len(entity) for m in mentions)
            if at >= 0 and not overlaps and entity not in found:
                found.add(entity)
                mentions.append({"start": at, "end": at + len(entity), "entity": entity})
    triples = [[f.subject, f.relation.replace(" ", "_"), str(f.object)] for f in some]
    return {"id": number, "text": text.strip(), "mentions": mentions, "triples": triples}
