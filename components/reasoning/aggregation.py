"""Aggregation of reasoning (AoR, Yin et al. 2024): score chains within answers, then answers against each other.

One question is a generator: it asks for chains and for scores, and is sent what it asked for. The driver runs the
generators of all questions side by side, so that what they ask at the same time can be answered in one batch.
"""

import math
import random
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from paperflows.components.reasoning.answers import group


@dataclass(frozen=True)
class Chain:
    """A sampled chain: its number in the question's sample, its text and its canonical answer."""

    number: int
    text: str
    answer: str | None


@dataclass(frozen=True)
class Settings:
    """Section 4 and the official code's defaults.

    Args:
        first: chains sampled at the start (n0).
        most: chains at most.
        step: chains sampled at a time while the margin is small (b).
        batch: chains the judge sees at once in local scoring.
        keep: representatives of an answer (k).
        threshold: local score that a representative needs (epsilon).
        margin: lead of the best answer that ends the sampling (theta).
        local: without it representatives are drawn at random.
        compare: without it the answer with the best mean local score of its representatives wins.
    """

    first: int = 20
    most: int = 40
    step: int = 5
    batch: int = 5
    keep: int = 3
    threshold: float = 6.0
    margin: float = 2.0
    local: bool = True
    compare: bool = True


@dataclass(frozen=True)
class Sample:
    """Asks for further chains: those numbered from `first` on."""

    question: int
    first: int
    count: int


@dataclass(frozen=True)
class Local:
    """Asks for 0-10 of each chain, all of one answer; `anchors` are the group's best and worst so far with scores."""

    question: int
    chains: tuple[Chain, ...]
    anchors: tuple[tuple[Chain, float], ...] = ()


@dataclass(frozen=True)
class Compare:
    """Asks for 0-10 of each chain, each of another answer, in the order in which the judge is to see them."""

    question: int
    chains: tuple[Chain, ...]


@dataclass
class Outcome:
    """What AoR chose and how it came to it."""

    answer: str | None = None
    sampled: int = 0
    local_calls: int = 0
    compare_calls: int = 0
    unread: int = 0
    margin: float | None = None
    ended: str = ""
    trace: list[dict[str, object]] = field(default_factory=list)


Scores = list[float | None]
Steps = Generator[list[Any], Any, Outcome]


def aggregate(question: int, settings: Settings, *, seed: int) -> Steps:
    """The whole procedure for one question; yields lists of asks and is sent their replies in order.

    A score that could not be read is None: its chain counts as unscored. Where no chain of any answer reaches the
    threshold the majority decides, where no comparison could be read the local scores, and `ended` says so.
    """
    s, out = settings, Outcome()
    order = random.Random(f"{seed}\0{question}")
    chains: list[Chain] = []
    local: dict[int, float] = {}
    top: dict[str, list[int]] = {}
    wanted = s.first
    while True:
        new = (yield [Sample(question, len(chains), wanted)])[0]
        chains += new
        out.sampled = len(chains)
        groups = group([chain.answer for chain in chains])
        if len(groups) <= 1 and not top:
            out.answer, out.ended, out.margin = next(iter(groups), None), "one answer", math.inf
            return out
        fresh = [c for c in chains[-len(new) :] if c.answer is not None]
        if s.local:
            yield from _score_locally(_local_asks(question, fresh, chains, top, local, s), local, out)
        else:
            local |= {c.number: s.threshold + order.random() for c in fresh}
        before = top
        top = _representatives(groups, local, s)
        if not top:
            out.answer = max(groups, key=lambda a: len(groups[a]))
            out.ended = "majority, none reached the threshold"
            if len(chains) >= s.most:
                return out
        elif top != before:
            totals = {a: sum(local[n] for n in numbers) / len(numbers) for a, numbers in top.items()}
            compared = yield from _compare(question, top, chains, s, order, out)
            totals = compared or totals
            ranked = sorted(totals, key=lambda a: -totals[a])
            lead = totals[ranked[0]] - (totals[ranked[1]] if len(ranked) > 1 else 0.0)
            out.answer, out.margin, out.ended = ranked[0], lead, "margin" if lead >= s.margin else "all chains"
            if compared is None:
                out.ended += ", no comparison was read"
            out.trace.append({"sampled": len(chains), "representatives": top, "scores": totals, "margin": lead})
        if (out.margin is not None and out.margin >= s.margin) or len(chains) >= s.most:
            return out
        wanted = min(s.step, s.most - len(chains))


def run_all(
    questions: Sequence[int],
    settings: Settings,
    *,
    seed: int,
    sample: Callable[[list[Sample]], list[list[Chain]]],
    local: Callable[[list[Local]], list[Scores]],
    compare: Callable[[list[Compare]], list[Scores]],
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[int, Outcome]:
    """Run `aggregate` for all questions; what they ask in the same round is handed over together, by kind."""
    running = {q: aggregate(q, settings, seed=seed) for q in questions}
    asks = {q: next(steps) for q, steps in running.items()}
    done: dict[int, Outcome] = {}
    answerers: dict[type, Callable[[list], list]] = {Sample: sample, Local: local, Compare: compare}
    while asks:
        replies: dict[int, list] = {}
        for kind, answer in answerers.items():
            mine = {q: a for q, a in asks.items() if isinstance(a[0], kind)}
            flat = iter(answer([ask for group_ in mine.values() for ask in group_]) if mine else ())
            replies |= {q: [next(flat) for _ in group_] for q, group_ in mine.items()}
        asks = {}
        for q, reply in replies.items():
            try:
                asks[q] = running[q].send(reply)
            except StopIteration as end:
                done[q] = end.value
        if on_progress:
            on_progress(len(done), len(questions))
    return {q: done[q] for q in questions}


def _score_locally(asks: list[Local], local: dict[int, float], out: Outcome) -> Generator[list[Any], Any, None]:
    """Ask for the scores of chains within their answers and note them in `local`."""
    out.local_calls += len(asks)
    for ask, scores in zip(asks, (yield asks) if asks else [], strict=True):
        for chain, score in zip(ask.chains, scores, strict=True):
            out.unread += score is None
            if score is not None:
                local[chain.number] = score


def _compare(
    question: int, top: dict[str, list[int]], chains: list[Chain], s: Settings, order: random.Random, out: Outcome
) -> Generator[list[Any], Any, dict[str, float] | None]:
    """Mean score of each answer over the rounds in which it could be read; 0 where in none, None where none was read.

    Nothing, and nothing is asked, where there is nothing to compare.
    """
    if not s.compare or len(top) == 1:
        return {}
    rounds = _rounds(question, top, chains, s, order)
    out.compare_calls += len(rounds)
    found: dict[str, list[float]] = {str(chain.answer): [] for chain in rounds[0].chains}
    for ask, scores in zip(rounds, (yield rounds), strict=True):
        for chain, score in zip(ask.chains, scores, strict=True):
            out.unread += score is None
            if score is not None:
                found[str(chain.answer)].append(score)
    if not any(found.values()):
        return None
    return {answer: sum(read) / max(1, len(read)) for answer, read in found.items()}


def _local_asks(
    question: int, fresh: list[Chain], chains: list[Chain], top: dict[str, list[int]], local: dict[int, float],
    s: Settings,
) -> list[Local]:  # fmt: skip
    """Batches of one answer's new chains; an answer that has scores already lends its best and worst as anchors."""
    by_number = {chain.number: chain for chain in chains}
    asks = []
    for answer, members in group([chain.answer for chain in fresh]).items():
        known = sorted((n for n in local if by_number[n].answer == answer), key=lambda n: (-local[n], n))
        ends = [known[0], known[-1]] if len(known) > 1 else known
        anchors = tuple((by_number[n], local[n]) for n in ends) if top else ()
        mine = [fresh[i] for i in members]
        asks += [Local(question, tuple(mine[i : i + s.batch]), anchors) for i in range(0, len(mine), s.batch)]
    return asks


def _representatives(groups: dict[str, list[int]], local: dict[int, float], s: Settings) -> dict[str, list[int]]:
    """The `keep` best chains of each answer that reach the threshold, best first; answers without one are out."""
    found = {}
    for answer, members in groups.items():
        good = sorted((n for n in members if local.get(n, -1.0) >= s.threshold), key=lambda n: (-local[n], n))
        if good:
            found[answer] = good[: s.keep]
    return found


def _rounds(
    question: int, top: dict[str, list[int]], chains: list[Chain], s: Settings, order: random.Random
) -> list[Compare]:
    """`keep` rounds; an answer with fewer representatives shows them in turn. The order is drawn for each round."""
    asks = []
    for number in range(s.keep):
        shown = [chains[numbers[number % len(numbers)]] for numbers in top.values()]
        order.shuffle(shown)
        asks.append(Compare(question, tuple(shown)))
    return asks
