"""Answers with citations, and how well the citations support them (ALCE's measures; Gao et al., 2023)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from paperflows.components.retrieval.closed_book import holds_answer

Supported = Callable[[str, Sequence[int]], bool]  # do these cited passages, together, support this statement?


@dataclass(frozen=True)
class Statement:
    """One sentence of an answer and the numbers of the passages it cites."""

    text: str
    citations: tuple[int, ...]


@dataclass(frozen=True)
class Gold:
    """What is known of a question.

    Args:
        answers: each with its accepted wordings.
        holders: for each answer, the passages that state it.
        links: passages without an answer that the question needs as well; one of each group.
    """

    answers: tuple[tuple[str, ...], ...]
    holders: tuple[frozenset[int], ...]
    links: tuple[frozenset[int], ...] = ()


def answer_recall(statements: Sequence[Statement], gold: Gold) -> float:
    """Share of the answers that a statement holds."""
    said = " \n ".join(statement.text for statement in statements)
    return sum(holds_answer(said, wordings) for wordings in gold.answers) / len(gold.answers)


def known_support(gold: Gold) -> Supported:
    """The judge that knows the data: whether the cited passages entail that the statement answers the question.

    They must hold a passage that states an answer which the statement holds, and every link.
    """

    def supported(text: str, cited: Sequence[int]) -> bool:
        cites = set(cited)
        if not all(link & cites for link in gold.links):
            return False
        pairs = zip(gold.answers, gold.holders, strict=True)
        return any(holders & cites and holds_answer(text, wordings) for wordings, holders in pairs)

    return supported


def citation_recall(statements: Sequence[Statement], supported: Supported) -> float:
    """Share of the statements that their citations support; 0 without a statement."""
    if not statements:
        return 0.0
    return sum(supported(s.text, s.citations) for s in statements) / len(statements)


def citation_precision(statements: Sequence[Statement], supported: Supported) -> float:
    """Share of the citations of use: the statement is supported, by this one alone or not without it."""
    useful = total = 0
    for statement in statements:
        total += len(statement.citations)
        if supported(statement.text, statement.citations):
            useful += sum(
                supported(statement.text, (one,)) or not supported(statement.text, _without(statement, one))
                for one in statement.citations
            )
    return useful / total if total else 0.0


def judgements_of(statements: Sequence[Statement]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Each (text, cited passages) that recall and precision may ask for."""
    for statement in statements:
        alone = [(one,) for one in statement.citations]
        rests = [_without(statement, one) for one in statement.citations]
        yield from ((statement.text, cited) for cited in (statement.citations, *alone, *rests) if cited)


def _without(statement: Statement, one: int) -> tuple[int, ...]:
    return tuple(cited for cited in statement.citations if cited != one)


def shuffled(answers: Mapping[int, Sequence[Statement]]) -> dict[int, list[Statement]]:
    """The same statements with the citations of the next question: the negative control of a citation measure."""
    numbers = list(answers)
    turned = numbers[1:] + numbers[:1]
    out = {}
    for mine, other in zip(numbers, turned, strict=True):
        theirs = [s.citations for s in answers[other]] or [()]
        out[mine] = [Statement(s.text, theirs[i % len(theirs)]) for i, s in enumerate(answers[mine])]
    return out


def is_sufficient(chosen: Sequence[int], gold: Gold) -> bool:
    """Whether the passages hold every answer and every link."""
    cites = set(chosen)
    return all(holders & cites for holders in gold.holders) and all(link & cites for link in gold.links)
