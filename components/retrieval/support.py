"""Which passages support which part of a question: the offline judge of retrieval, and the reader of its passages.

A part is the question itself, or the question beside a name that a supporting passage gives. Letters: P pairs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paperflows.components.retrieval.names import TitleLinks
from paperflows.components.retrieval.verified import Ask

# the cross-encoder's: belongs to what a part asks first; holds an answer to it; helps the whole question (a reranker's)
OUTPUTS = ("belongs", "answers", "helps")
Score = Callable[[Sequence[str], Sequence[int]], NDArray[np.float32]]  # parts, passages -> (P, 3) probabilities


def part_of(question: str, name: str) -> str:
    """The part of a question that is about `name`."""
    return f"{question.rstrip('? ')}: {name}?"


def choose_covering(gains: NDArray[np.float64], keep: int) -> list[int]:
    """Columns that together serve the parts best: greedily the largest sum over parts of the best gain.

    Ties and what is left of `keep` go by a column's own best gain.

    Args:
        gains: (parts, passages) in [0, 1].
    """
    covered, chosen = np.zeros(len(gains)), list[int]()
    own = gains.max(0)
    for _ in range(min(keep, gains.shape[1])):
        added = np.maximum(gains - covered[:, None], 0).sum(0) + 1e-3 * own
        added[chosen] = -1.0
        best = int(added.argmax())
        chosen.append(best)
        covered = np.maximum(covered, gains[:, best])
    return chosen


def best_f_threshold(probability: NDArray[np.float32], label: NDArray[np.bool_], *, beta: float = 1.0) -> float:
    """The threshold t for which `probability > t` has the best F-beta on (N,) labels; 0.5 where all are false.

    Args:
        beta: below 1, precision counts more than recall.
    """
    if not label.any():
        return 0.5
    order = np.argsort(-probability, kind="stable")
    hit = np.cumsum(label[order])
    score = (1 + beta**2) * hit / (np.arange(1, len(label) + 1) + beta**2 * label.sum())
    best = int(score.argmax())
    after = probability[order[best + 1]] if best + 1 < len(label) else 0.0
    return float((probability[order[best]] + after) / 2)


@dataclass(frozen=True)
class Reading:
    """What a set of passages says on a question.

    Attributes:
        parts: of the question: itself, or one for each name that a linking passage gives.
        answered: part -> passages that hold an answer to it, best first.
        links: passages that name what the parts are about.
    """

    parts: tuple[str, ...]
    answered: dict[str, list[int]]
    links: tuple[int, ...]

    @property
    def complete(self) -> bool:
        """Whether every part has an answer."""
        return all(self.answered[part] for part in self.parts)


class SupportReader:
    """Judges passages by a scorer of (part, passage) pairs, which must not have been trained on them.

    Args:
        questions: their texts.
        passages: title and text of all passages.
        score: probabilities of `OUTPUTS`; the reader uses the first two.
        cosine: parts, passages -> (P,) cosines; only the `looks` nearest passages of a part are scored.
        thresholds: probabilities from which a passage belongs to the support, and from which it holds an answer.
        most_parts: parts of a question at most.
    """

    def __init__(
        self,
        questions: Sequence[str],
        passages: Sequence[dict[str, Any]],
        score: Score,
        cosine: Callable[[Sequence[str], Sequence[int]], NDArray[np.float32]],
        *,
        links: TitleLinks,
        thresholds: tuple[float, float] = (0.5, 0.5),
        looks: int = 10,
        most_parts: int = 4,
    ) -> None:
        self._questions, self._passages, self._links = questions, passages, links
        self._score, self._cosine = score, cosine
        self._belongs, self._answers = thresholds
        self._looks, self._most_parts = looks, most_parts
        self._known: dict[tuple[str, int], NDArray[np.float32]] = {}

    def question(self, number: int) -> str:
        """Text of a question."""
        return self._questions[number]

    def probabilities(self, pairs: Sequence[tuple[str, int]]) -> NDArray[np.float32]:
        """(P, 3) of (part, passage) pairs; each is scored once."""
        new = [pair for pair in dict.fromkeys(pairs) if pair not in self._known]
        if new:
            scores = self._score([part for part, _ in new], [place for _, place in new])
            self._known.update(zip(new, scores, strict=True))
        return np.array([self._known[pair] for pair in pairs], np.float32).reshape(-1, len(OUTPUTS))

    @property
    def scored(self) -> int:
        """Pairs that the scorer has read so far."""
        return len(self._known)

    def select(self, asks: Sequence[Ask], keep: int) -> list[list[int]]:
        """The set of passages that covers the question, its parts so far and this round's queries best."""
        shown = [[*ask.chosen, *ask.window] for ask in asks]
        parts = self._needed(asks)
        near = self._nearest(parts, shown)
        self.probabilities([pair for some in near for pair in some])
        picked = []
        for some, places, pairs in zip(parts, shown, near, strict=True):
            row, column = {p: i for i, p in enumerate(some)}, {p: i for i, p in enumerate(places)}
            gains = np.zeros((len(some), len(places)))
            for part, place in pairs:
                gains[row[part], column[place]] = self._known[part, place][:2].max()
            picked.append([places[i] for i in choose_covering(gains, keep)])
        return picked

    def _needed(self, asks: Sequence[Ask]) -> list[tuple[str, ...]]:
        """What passages are chosen for; in the first round that is the question alone."""
        first = [ask.queries == (self._questions[ask.question],) for ask in asks]
        later = [(ask.question, ask.chosen) for ask, alone in zip(asks, first, strict=True) if not alone]
        readings = iter(self.read(later))
        return [
            ask.queries
            if alone
            else tuple(dict.fromkeys((self._questions[ask.question], *next(readings).parts, *ask.queries)))
            for ask, alone in zip(asks, first, strict=True)
        ]

    def verify(self, asks: Sequence[Ask]) -> list[bool]:
        """Whether every part of the question has an answer in the chosen passages."""
        return [reading.complete for reading in self.read([(a.question, a.chosen) for a in asks])]

    def missing(self, asks: Sequence[Ask]) -> list[list[str]]:
        """The parts without an answer, unless they were just searched for."""
        found = self.read([(a.question, a.chosen) for a in asks])
        return [
            [part for part in reading.parts if not reading.answered[part] and part not in ask.queries]
            for reading, ask in zip(found, asks, strict=True)
        ]

    def read(self, sets: Sequence[tuple[int, Sequence[int]]]) -> list[Reading]:
        """Parts and answers of each (question, passages).

        When no passage answers the question as it stands, the names in the passages that belong to its support (in the
        likeliest one where none is likely enough), and that the question does not hold, make its parts.
        """
        self.probabilities([(self._questions[q], place) for q, chosen in sets for place in chosen])
        parts: list[tuple[str, ...]] = []
        links: list[tuple[int, ...]] = []
        for number, chosen in sets:
            question = self._questions[number]
            known = {place: self._known[question, place] for place in chosen}
            if not known or any(answers > self._answers for _, answers, _ in known.values()):
                parts.append((question,))
                links.append(())
                continue
            linking = tuple(place for place in chosen if known[place][0] > self._belongs)
            linking = linking or (max(chosen, key=lambda place, known=known: known[place][0]),)  # type: ignore[misc]
            inside = set(self._links.named_in(question))
            names = [n for p in linking for n in self._links.named_in(self._passages[p]["text"]) if n not in inside]
            names = list(dict.fromkeys(names))[: self._most_parts]
            parts.append(tuple(part_of(question, name) for name in names) or (question,))
            links.append(linking if names else ())
        self.probabilities(
            [(p, d) for some, (_, chosen) in zip(parts, sets, strict=True) for p in some for d in chosen]
        )
        return [
            Reading(some, {part: self._answering(part, chosen) for part in some}, linking)
            for some, linking, (_, chosen) in zip(parts, links, sets, strict=True)
        ]

    def _answering(self, part: str, chosen: Sequence[int]) -> list[int]:
        chance = {place: float(self._known[part, place][1]) for place in chosen}
        return sorted((p for p in chosen if chance[p] > self._answers), key=lambda p: -chance[p])

    def _nearest(self, parts: Sequence[Sequence[str]], shown: Sequence[Sequence[int]]) -> list[list[tuple[str, int]]]:
        """Pairs of each part with the passages nearest to it."""
        pairs = [
            [(part, place) for part in some for place in places] for some, places in zip(parts, shown, strict=True)
        ]
        flat = [pair for some in pairs for pair in some]
        cosines = self._cosine([part for part, _ in flat], [place for _, place in flat])
        found, start = [], 0
        for some, places in zip(parts, shown, strict=True):
            size = len(places)
            mine = cosines[start : start + len(some) * size].reshape(len(some), size)
            order = np.argsort(-mine, axis=1, kind="stable")[:, : self._looks]
            found.append([(part, places[i]) for part, row in zip(some, order, strict=True) for i in row])
            start += len(some) * size
        return found
