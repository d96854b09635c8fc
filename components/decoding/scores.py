"""How good an output is for its family, in [0, 1]. Letters: N texts, V tokens of the vocabulary."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from paperflows.components.decoding.families import Item, Kind

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def score_outputs(kind: Kind, items: Sequence[Item], outputs: Sequence[str], fluency: "Fluency | None") -> list[float]:
    """One score for each output of the item beside it.

    Whether its last number is the answer, for sums; chrF for translation; for captions, chrF to the other captions
    times distance (1 - chrF) to the given one; for continuations, distinct bigrams times the share of 4-grams that do
    not repeat times fluency.
    """
    from sacrebleu.metrics import CHRF

    chrf = CHRF()

    def similar(text: str, references: Sequence[str]) -> float:
        return float(chrf.sentence_score(text, list(references)).score) / 100 if text.strip() else 0.0

    if kind == "sums":
        return [float(_last_number(text) == float(item.answer)) for item, text in zip(items, outputs, strict=True)]
    if kind == "translation":
        return [similar(text, item.references) for item, text in zip(items, outputs, strict=True)]
    if kind == "captions":
        return [
            similar(text, item.references) * (1 - similar(text, [item.source]))
            for item, text in zip(items, outputs, strict=True)
        ]
    assert fluency is not None
    fluent = fluency.of(outputs)
    words = [text.split() for text in outputs]
    return [distinct(w, 2) * distinct(w, 4) * f for w, f in zip(words, fluent, strict=True)]


def _last_number(text: str) -> float | None:
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def distinct(words: Sequence[str], n: int) -> float:
    """Distinct n-grams over n-grams (distinct-n, Li et al. 2016); 1 where a text of some words has none, 0 if empty."""
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else float(bool(words))


class Fluency:
    """How likely texts are beside real ones, under an interpolated trigram model of words.

    p(w | u, v) = 0.6 f(w | u, v) + 0.3 f(w | v) + 0.1 (count(w) + 1) / (N + V), Jelinek-Mercer with an add-one unigram.

    Args:
        texts: what the model is estimated from.
        real: texts whose mean log-likelihood a word counts as 1.
    """

    def __init__(self, texts: Sequence[str], real: Sequence[str]) -> None:
        from collections import Counter

        self._grams: list[Counter[tuple[str, ...]]] = [Counter(), Counter(), Counter()]
        self._before: list[Counter[tuple[str, ...]]] = [Counter(), Counter(), Counter()]
        for text in texts:
            words = _padded(text)
            for n in range(3):
                grams = [tuple(words[i - n : i + 1]) for i in range(2, len(words))]
                self._grams[n].update(grams)
                self._before[n].update(gram[:-1] for gram in grams)
        self._total, self._kinds = sum(self._grams[0].values()), len(self._grams[0]) + 1
        self._level = float(np.mean([self.log_likelihood(text) for text in real]))

    def log_likelihood(self, text: str) -> float:
        """Mean log-probability of a word of the text, its end included."""
        words = _padded(text)
        return float(np.mean([np.log(self._probability(tuple(words[i - 2 : i + 1]))) for i in range(2, len(words))]))

    def of(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """(N,) likelihood a word over that of the real texts, at most 1; empty texts have 0."""
        return np.array([min(1.0, np.exp(self.log_likelihood(t) - self._level)) if t.strip() else 0.0 for t in texts])

    def _probability(self, gram: tuple[str, ...]) -> float:
        estimate = 0.1 * (self._grams[0][gram[2:]] + 1) / (self._total + self._kinds)
        for n, weight in ((1, 0.3), (2, 0.6)):
            if before := self._before[n][gram[2 - n : 2]]:
                estimate += weight * self._grams[n][gram[2 - n :]] / before
        return estimate


def _padded(text: str) -> list[str]:
    return ["<s>", "<s>", *text.casefold().split(), "</s>"]
