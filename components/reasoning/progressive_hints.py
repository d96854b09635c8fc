"""Progressive-hint prompting (Zheng et al. 2023): a model answers again, told its answers so far, until two agree."""

from collections.abc import Sequence

from paperflows.components.llm.client import LLM
from paperflows.components.llm.prompts import render
from paperflows.components.llm.request import Message, Request
from paperflows.components.reasoning.answers import AnswerKind, extract
from paperflows.components.reasoning.llm_judge import PROMPTS

Answers = list[str | None]


def ask_again(
    llm: LLM,
    *,
    model: str,
    questions: Sequence[str],
    first: Sequence[str | None],
    kind: AnswerKind,
    temperature: float,
    rounds: int = 5,
) -> list[Answers]:
    """All answers to each question in turn, canonical, None where a reply gives none; `chosen` says which stands.

    A question is asked again until its last two answers agree, at most `rounds` times. A request that fails for good
    ends the run (`LLM.run`).

    Args:
        first: answers without a hint.
    """
    found: list[Answers] = [[answer] for answer in first]
    for _ in range(rounds):
        going = [place for place, answers in enumerate(found) if not _agree(answers)]
        requests = []
        for place in going:
            hints = [answer for answer in found[place] if answer is not None]
            text, digest = render(PROMPTS / "hint.jinja", question=questions[place], hints=hints, kind=kind)
            requests.append(
                Request(
                    model=model, messages=(Message(role="user", content=text),), n=_asked_before(found[place]) + 1,
                    temperature=temperature, max_tokens=512, prompt_hash=digest,
                    tags={"stage": "hint", "item": str(place)},
                )
            )  # fmt: skip
        for place, replies in zip(going, llm.run(requests, all_needed=True), strict=True):
            found[place].append(extract(replies[-1].text, kind))
    return found


def chosen(answers: Answers) -> str | None:
    """The last answer that was given: the one that two agree on, where two did."""
    return next((answer for answer in reversed(answers) if answer is not None), None)


def _agree(answers: Answers) -> bool:
    return len(answers) > 1 and answers[-1] is not None and answers[-1] == answers[-2]


def _asked_before(answers: Answers) -> int:
    """How often the same prompt was asked already: replies without an answer add no hint, the next sample is wanted."""
    again = 0
    for answer in reversed(answers[1:]):
        if answer is not None:
            break
        again += 1
    return again
