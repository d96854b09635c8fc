"""Counterfactual data augmentation: two texts that differ in the group they name, against a reference that names none.

After Zhao et al. 2018 (swapping words by lists); here also descriptors of groups are put before nouns for people, since
ordinary sentences seldom name race or religion.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from paperflows.components.bias.word_lists import NO_NOUN, PEOPLE, WordList

_WORD = re.compile(r"[A-Za-z]+(?:-[A-Za-z]+)?")
_NEXT = re.compile(r"\s+(\w+)")
_NEXT_TWO = re.compile(r"\s+([\w-]+)(?:\s+([\w-]+))?")
_ARTICLE = re.compile(r"\b([Aa])n?(?= [A-Za-z])")


@dataclass(frozen=True)
class Counterfactual:
    """Two candidates that differ only in the group, and a reference that names none."""

    attribute: str
    first: str
    second: str
    reference: str


def augment(
    texts: Sequence[str], lists: Mapping[str, WordList], *, per_attribute: int, seed: int
) -> list[Counterfactual]:
    """At most `per_attribute` counterfactuals of each attribute, drawn from `texts` in an order shuffled by `seed`.

    Where a text has a word of the list, it is swapped and, in the reference, made neutral; else a descriptor is put
    before its first noun for people, and the text itself is the reference. Both ways alternate while both are possible.
    """
    found: list[Counterfactual] = []
    for attribute in sorted(lists):
        rng = random.Random(f"{seed} {attribute}")
        order = list(texts)
        rng.shuffle(order)
        made: list[Counterfactual] = []
        for text in order:
            if len(made) == per_attribute:
                break
            ways = [swap, describe] if rng.random() < 0.5 else [describe, swap]
            pair = next((p for way in ways if (p := way(text, lists[attribute], rng))), None)
            if pair:
                made.append(Counterfactual(attribute, *pair))
        found += made
    return found


def swap(text: str, words: WordList, rng: random.Random) -> tuple[str, str, str] | None:
    """(text, text of another group, text of no group), or None when the text has no word of the list.

    `her` and `his` stand alone unless a word that can belong to a noun follows; adjectives are exchanged only where one
    of the next two words is a noun for people, since a table is black too.
    """
    places = {m.start(): _form(text, m, words) for m in _WORD.finditer(text)}
    present = sorted(set(places.values()) - {""})
    if not present:
        return None
    chosen = {form: rng.choice(words.swaps[form]) for form in present}
    return text, _replace(text, places, chosen), _replace(text, places, {form: words.neutral[form] for form in present})


def _form(text: str, match: re.Match[str], words: WordList) -> str:
    """As what the list exchanges this word: itself, its form that stands alone, or "" for not at all."""
    word, rest = match.group().lower(), text[match.end() :]
    if f"{word}*" in words.swaps:
        following = _NEXT.match(rest)
        if following is None or following[1].lower() in NO_NOUN:
            return f"{word}*"
    if word not in words.swaps:
        return ""
    if words.neutral[word]:
        return word
    described = _NEXT_TWO.match(rest)
    first, second = (str(w or "").lower() for w in described.groups()) if described else ("", "")
    return word if first in PEOPLE or (first not in NO_NOUN and second in PEOPLE) else ""


def describe(text: str, words: WordList, rng: random.Random) -> tuple[str, str, str] | None:
    """(text with one descriptor, with another, without); None without two descriptors or without a noun for people."""
    match = next((m for m in _WORD.finditer(text) if m.group().lower() in PEOPLE), None)
    if match is None or len(words.descriptors) < 2 or {m.group().lower() for m in _WORD.finditer(text)} & words.words:
        return None
    one, two = rng.sample(words.descriptors, 2)
    first, second = (
        _mend(f"{text[: match.start()]}{d} {_lower(match.group())}{text[match.end() :]}") for d in (one, two)
    )
    return first, second, text


def _replace(text: str, places: Mapping[int, str], by: Mapping[str, str]) -> str:
    def other(match: re.Match[str]) -> str:
        word = match.group()
        new = by.get(places[match.start()], word).rstrip("*")
        return new.capitalize() if new and word[0].isupper() else new

    return _mend(re.sub(r"\s+", " ", _WORD.sub(other, text)).strip())


def _mend(text: str) -> str:
    """`a` or `an` by the letter that follows, and a capital at the beginning."""

    def article(match: re.Match[str]) -> str:
        vowel = text[match.end() + 1].lower() in "aeiou"
        return match.group(1) + ("n" if vowel else "")

    text = _ARTICLE.sub(article, text)
    return text[:1].upper() + text[1:]


def _lower(word: str) -> str:
    return word if word.isupper() else word.lower()
