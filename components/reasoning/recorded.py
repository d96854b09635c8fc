"""Questions with recorded chains, as a sampler sees them: an ordered sample each, gold answers kept apart."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paperflows.components.errors import InputError
from paperflows.components.reasoning.aggregation import Chain, Sample
from paperflows.components.reasoning.answers import AnswerKind, canonical

_STEP = re.compile(r"\n|(?<=[.!?])\s")


@dataclass(frozen=True)
class Question:
    """A question with its recorded chains in file order; `topic` keeps questions together that share a context.

    `models` names who wrote each chain, apart from the chains: no judge sees it.
    """

    text: str
    gold: str
    topic: str
    chains: tuple[Chain, ...]
    models: tuple[str, ...] = ()


def read_questions(
    rows: Sequence[Mapping[str, Any]],
    *,
    kind: AnswerKind,
    styles: Collection[str] = (),
    without_models: Collection[str] = (),
    temperature: float | None = None,
) -> list[Question]:
    """Questions of a dataset of reasoning chains.

    Args:
        styles: keep only chains of these styles; all when empty.
        without_models: leave out chains of these models.
        temperature: keep only chains sampled at it; all when None.

    Raises:
        InputError: the filters leave a question without chains.
    """
    questions = []
    for row in rows:
        kept = [
            chain
            for chain in row["chains"]
            if (not styles or chain.get("style") in styles)
            and chain["model"] not in without_models
            and (temperature is None or chain.get("temperature") == temperature)
        ]
        if not kept:
            raise InputError(f"question {row['id']}: the filters on style, model and temperature leave no chain")
        chains = tuple(
            Chain(number, chain["text"], canonical(chain["answer"], kind)) for number, chain in enumerate(kept)
        )
        gold = canonical(row["answer"], kind)
        if gold is None:
            raise InputError(f"question {row['id']}: its answer {row['answer']!r} is no {kind}")
        topic = " ".join(str(row.get("context") or row["question"]).casefold().split())
        models = tuple(chain["model"] for chain in kept)
        questions.append(Question(row["question"], gold, topic, chains, models))
    return questions


def count_steps(chain: str) -> int:
    """Lines or sentences of a chain."""
    return len([step for step in _STEP.split(chain) if step.strip()])


def step_starts(chain: str) -> list[int]:
    """Where each line or sentence of a chain begins, in characters; the first begins at 0."""
    return [0, *(found.end() for found in _STEP.finditer(chain))]


def recorded_sampler(questions: Sequence[Question], where: str) -> Any:
    """`sample` for `aggregation.run_all`: sample i of a question is its i-th recorded chain.

    Args:
        where: names the record in errors.
    """

    def sample(asks: Sequence[Sample]) -> list[list[Chain]]:
        found = []
        for ask in asks:
            chains = questions[ask.question].chains
            if ask.first + ask.count > len(chains):
                raise InputError(
                    f"{where}: {ask.first + ask.count} chains of question {ask.question} were asked for, "
                    f"{len(chains)} are recorded"
                )
            found.append(list(chains[ask.first : ask.first + ask.count]))
        return found

    return sample
