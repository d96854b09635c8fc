"""Triplets for contrastive learning from labelled pairs."""

from collections.abc import Mapping, Sequence
from typing import Any


def nli_triplets(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """(premise, entailed, contradicting) for every premise that has both; the first of each is taken."""
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        found.setdefault(row["text"], {}).setdefault(row["label"], row["text_pair"])
    return [
        (premise, sides["entailment"], sides["contradiction"])
        for premise, sides in found.items()
        if {"entailment", "contradiction"} <= sides.keys()
    ]
