"""Choosing an answer by votes of chains: what aggregation of reasoning is compared with.

Every function gives the expected correctness of its choice: ties are split evenly, not drawn. `answers` are canonical,
None where a chain gives none; `right` says which answers are correct.
"""

from collections.abc import Callable, Collection, Sequence

from paperflows.components.reasoning.answers import group

Right = Callable[[str], bool]


def vote(answers: Sequence[str | None], right: Right, weights: Sequence[float] | None = None) -> float:
    """Majority (self-consistency, Wang et al. 2023), or the largest sum of weights (DiVeRSe's weighted vote)."""
    totals = {
        answer: sum(1.0 if weights is None else weights[i] for i in members)
        for answer, members in group(answers).items()
    }
    if not totals:
        return 0.0
    top = max(totals.values())
    winners = [answer for answer, total in totals.items() if total >= top - 1e-12]
    return sum(right(answer) for answer in winners) / len(winners)


def vote_of_complex(answers: Sequence[str | None], steps: Sequence[int], right: Right) -> float:
    """Majority among the half of the chains with the most steps (complexity-based consistency, Fu et al. 2023)."""
    order = sorted(range(len(answers)), key=lambda i: (-steps[i], i))[: -(-len(answers) // 2)]
    return vote([answers[i] for i in order], right)


def best_of(answers: Sequence[str | None], scores: Sequence[float], right: Right) -> float:
    """The answer of the chain with the highest score among those that give one."""
    given = [i for i, answer in enumerate(answers) if answer is not None]
    if not given:
        return 0.0
    top = max(scores[i] for i in given)
    best = [str(answers[i]) for i in given if scores[i] >= top - 1e-12]
    return sum(right(answer) for answer in best) / len(best)


def adaptive(answers: Sequence[str | None], right: Right, *, confidence: float = 0.95) -> tuple[float, int]:
    """Majority over as many chains as it takes to be sure of it, and their number (Aggarwal et al. 2023).

    Sampling stops when the probability that the leading answer beats the second, under a Beta posterior of their
    counts, exceeds `confidence`.
    """
    from scipy.stats import beta

    for count in range(1, len(answers) + 1):
        sizes = sorted((len(m) for m in group(answers[:count]).values()), reverse=True)
        first, second = [*sizes, 0, 0][:2]
        if float(beta.sf(0.5, first + 1, second + 1)) > confidence:
            return vote(answers[:count], right), count
    return vote(answers, right), len(answers)


def any_right(answers: Collection[str | None], right: Right) -> float:
    """Whether any chain is right: the upper bound of every choice."""
    return float(any(answer is not None and right(answer) for answer in answers))
