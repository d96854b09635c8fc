"""Short reviews with the sentiment towards each aspect, and their sentences as dependency trees (universal style)."""

from dataclasses import dataclass, field
from random import Random
from typing import Any

from paperflows.components.data.world.hashing import part_of, stable_number
from paperflows.components.data.world.lexicon import NOUNS

Row = dict[str, Any]

_GROUPS = ("dish", "fruit", "vegetable", "device", "instrument", "furniture", "clothing")
_ASPECTS = sorted(noun.key for noun in NOUNS.values() if noun.group in _GROUPS and " " not in noun.key)
_ADJECTIVES = {
    "positive": (
        "excellent",
        "wonderful",
        "great",
        "amazing",
        "superb",
        "fantastic",
        "lovely",
        "perfect",
        "pleasant",
        "brilliant",
    ),
    "negative": (
        "terrible",
        "awful",
        "horrible",
        "bad",
        "poor",
        "disappointing",
        "dreadful",
        "nasty",
        "useless",
        "disgusting",
    ),
    "neutral": ("Italian", "round", "average", "green", "wooden", "new", "ordinary", "square"),
}
_VERBS = {
    "positive": ("loved", "enjoyed", "adored", "praised", "admired"),
    "negative": ("hated", "disliked", "regretted", "despised", "avoided"),
    "neutral": ("ordered", "saw", "bought", "tried", "noticed"),
}
_LABELS = ("positive", "negative", "neutral")


@dataclass
class _Sentence:
    """Words with tags and heads (positions from 0, -1 for the root), and the aspects named so far."""

    words: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    heads: list[int] = field(default_factory=list)
    aspects: list[tuple[int, str]] = field(default_factory=list)

    def add(self, word: str, tag: str, head: int) -> int:
        """Append a word; returns its position."""
        self.words.append(word)
        self.tags.append(tag)
        self.heads.append(head)
        return len(self.words) - 1


def review_rows(part: str, count: int) -> list[Row]:
    """Rows of aspect sentiment; an aspect's noun belongs to one part only."""
    rows: list[Row] = []
    for number, sentence in enumerate(_sentences(part, "reviews")):
        text, starts = "", []
        for word in sentence.words:
            text += " " if text and word not in ".," else ""
            starts.append(len(text))
            text += word
        for place, label in sentence.aspects:
            aspect, start = sentence.words[place], starts[place]
            rows.append(
                {"id": number, "text": text, "aspect": aspect, "from": start, "to": start + len(aspect), "label": label}
            )
        if len(rows) >= count:
            break
    return rows[:count]


def tree_rows(part: str, count: int) -> list[Row]:
    """Rows of tagging with heads (from 1, 0 for the root)."""
    sentences = [s for s, _ in zip(_sentences(part, "trees"), range(count), strict=False)]
    return [
        {"id": i, "tokens": s.words, "tags": s.tags, "heads": [h + 1 for h in s.heads]} for i, s in enumerate(sentences)
    ]


def _sentences(part: str, name: str) -> Any:
    rng = Random(stable_number(name, part))
    nouns = [noun for noun in _ASPECTS if part_of(f"aspect|{noun}") == part]
    seen: set[tuple[str, ...]] = set()
    while True:
        sentence = _Sentence()
        first = _clause(sentence, nouns, rng, head=-1)
        if rng.random() < 0.6:
            place = len(sentence.words)
            sentence.add(rng.choice(("and", "but")), "CCONJ", -1)
            second = _clause(sentence, nouns, rng, head=first)
            sentence.heads[place] = second
        sentence.add(".", "PUNCT", first)
        sentence.words[0] = sentence.words[0].capitalize()
        if tuple(sentence.words) not in seen:
            seen.add(tuple(sentence.words))
            yield sentence


def _clause(sentence: _Sentence, nouns: list[str], rng: Random, *, head: int) -> int:
    """Append `the soup was very bad` or `I hated the soup`; returns the position of the word all else hangs on."""
    label = rng.choice(_LABELS)
    start = len(sentence.words)
    if rng.random() < 0.6:
        adverb = rng.random() < 0.4
        top = start + 3 + adverb
        sentence.add("the", "DET", start + 1)
        noun = sentence.add(rng.choice(nouns), "NOUN", top)
        sentence.add(rng.choice(("was", "is", "looked")), "AUX", top)
        if adverb:
            sentence.add(rng.choice(("very", "really", "quite")), "ADV", top)
        sentence.add(rng.choice(_ADJECTIVES[label]), "ADJ", head)
    else:
        top = start + 1
        sentence.add(rng.choice(("I", "we", "they")), "PRON", top)
        sentence.add(rng.choice(_VERBS[label]), "VERB", head)
        sentence.add("the", "DET", start + 3)
        noun = sentence.add(rng.choice(nouns), "NOUN", top)
    sentence.aspects.append((noun, label))
    return top
