"""Retrieval that a judge verifies: select, verify, ask for what is missing, retrieve again (Li et al., 2024).

All questions go through each step together, so that the judge and the index see large batches.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Search = Callable[[Sequence[str], int], Sequence[Sequence[int]]]  # queries, depth -> passage numbers, best first


@dataclass(frozen=True)
class Settings:
    """How much is looked at.

    Args:
        keep: passages that an answer may stand on (k).
        pool: candidates of a round (N).
        window: candidates that the judge sees at once, beside the chosen ones.
        rounds: retrievals of a question at most (T).
    """

    keep: int = 5
    pool: int = 50
    window: int = 20
    rounds: int = 4


@dataclass(frozen=True)
class Ask:
    """What a judge is shown of one question.

    Args:
        question: its number.
        queries: what was searched for this round.
        chosen: passage numbers chosen so far.
        window: candidates, none of them chosen.
    """

    question: int
    queries: tuple[str, ...]
    chosen: tuple[int, ...]
    window: tuple[int, ...] = ()


class Judge(Protocol):
    """Selects and verifies passages, and says what is missing."""

    def select(self, asks: Sequence[Ask], keep: int) -> list[list[int]]:
        """The `keep` passages among chosen and window that together support an answer best, best first."""

    def verify(self, asks: Sequence[Ask]) -> list[bool]:
        """Whether the chosen passages support a full answer."""

    def missing(self, asks: Sequence[Ask]) -> list[list[str]]:
        """Queries for what the chosen passages lack; none when the judge knows no more."""


@dataclass
class Outcome:
    """What became of one question.

    Attributes:
        chosen: passage numbers, best first.
        rounds: retrievals.
        verified: whether the last verification said yes.
        calls: selections and verifications.
        trace: one entry a round: queries, chosen, verified.
    """

    question: int
    chosen: list[int] = field(default_factory=list)
    rounds: int = 0
    verified: bool = False
    calls: int = 0
    trace: list[dict[str, Any]] = field(default_factory=list)


def retrieve_verified(
    questions: Sequence[str],
    search: Search,
    judge: Judge,
    settings: Settings,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Outcome]:
    """Run the rounds; a question leaves when it is verified, when nothing more is asked for, or after the last one.

    A passage is shown once a round at most, and never both as chosen and as candidate.
    """
    outcomes = [Outcome(i) for i in range(len(questions))]
    queries: dict[int, list[str]] = {i: [question] for i, question in enumerate(questions)}
    for done in range(settings.rounds):
        if not queries:
            break
        pools = _candidates(queries, outcomes, search, settings.pool)
        for start in range(0, max(map(len, pools.values()), default=0), settings.window):
            asks = []
            for number, pool in pools.items():
                chosen = outcomes[number].chosen
                window = [place for place in pool[start : start + settings.window] if place not in chosen]
                if window:
                    asks.append(Ask(number, tuple(queries[number]), tuple(chosen), tuple(window)))
            for ask, picked in zip(asks, judge.select(asks, settings.keep), strict=True):
                _take(outcomes[ask.question], ask, picked, settings.keep)
        asks = [Ask(number, tuple(queries[number]), tuple(outcomes[number].chosen)) for number in queries]
        for ask, verdict in zip(asks, judge.verify(asks), strict=True):
            outcome = outcomes[ask.question]
            outcome.rounds, outcome.verified, outcome.calls = done + 1, verdict, outcome.calls + 1
            outcome.trace.append({"queries": list(ask.queries), "chosen": list(outcome.chosen), "verified": verdict})
        open_asks = [ask for ask in asks if not outcomes[ask.question].verified]
        asked = judge.missing(open_asks) if open_asks and done + 1 < settings.rounds else []
        queries = {ask.question: more for ask, more in zip(open_asks, asked, strict=False) if more}
        if on_progress:
            on_progress(len(questions) - len(queries), len(questions))
    return outcomes


def _candidates(
    queries: dict[int, list[str]], outcomes: Sequence[Outcome], search: Search, pool: int
) -> dict[int, list[int]]:
    """Question -> candidates, taken in turns from the rankings of its queries; chosen ones are left out."""
    flat = [query for some in queries.values() for query in some]
    rankings = iter(search(flat, pool))
    found = {}
    for number, some in queries.items():
        mine = [list(next(rankings)) for _ in some]
        turns = [ranking[rank] for rank in range(pool) for ranking in mine if rank < len(ranking)]
        chosen = set(outcomes[number].chosen)
        found[number] = [place for place in dict.fromkeys(turns) if place >= 0 and place not in chosen][:pool]
    return found


def _take(outcome: Outcome, ask: Ask, picked: Sequence[int], keep: int) -> None:
    """Keep what the judge picked of what it was shown; what it left open goes to those chosen before, then in order.

    So a reply that names too few, or none that was shown, neither shrinks the set nor changes the budget.
    """
    shown = [*ask.chosen, *ask.window]
    named = [place for place in dict.fromkeys(picked) if place in set(shown)]
    outcome.chosen = list(dict.fromkeys([*named, *shown]))[:keep]
    outcome.calls += 1
