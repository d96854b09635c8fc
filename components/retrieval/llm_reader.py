"""A language model that selects, verifies, asks for what is missing and answers with citations, by JSON replies."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from paperflows.components.llm.client import LLM
from paperflows.components.llm.prompts import render
from paperflows.components.llm.request import Message, Request
from paperflows.components.llm.structured import ask
from paperflows.components.retrieval.citations import Statement
from paperflows.components.retrieval.verified import Ask

PROMPTS = Path(__file__).parent / "llm_reader"
T = TypeVar("T", bound=BaseModel)


class Picked(BaseModel):
    """Numbers of passages as shown."""

    passages: list[int]


class Verdict(BaseModel):
    """Whether passages suffice."""

    sufficient: bool


class Missing(BaseModel):
    """What to search for."""

    questions: list[str]


class Cited(BaseModel):
    """One statement and the passages it rests on, as shown."""

    text: str
    citations: list[int]


class Answer(BaseModel):
    """An answer in statements."""

    statements: list[Cited]


class LLMReader:
    """The judge of `verified.retrieve_verified`, and the writer of answers.

    A reply that cannot be read changes nothing: the chosen passages stay, the verdict is no, nothing more is asked.

    Args:
        questions: their texts.
        passages: texts of all passages as they are shown.
        most: missing-information questions a round.
    """

    def __init__(
        self, llm: LLM, *, model: str, questions: Sequence[str], passages: Sequence[str], most: int = 4
    ) -> None:
        self._llm, self._model, self._questions, self._passages, self._most = llm, model, questions, passages, most

    def select(self, asks: Sequence[Ask], keep: int) -> list[list[int]]:
        """As in `Judge`."""
        shown = [[*a.chosen, *a.window] for a in asks]
        values = [{"keep": keep, "queries": [q for q in a.queries if q != self._questions[a.question]]} for a in asks]
        replies = self._ask("select", [(a.question, s) for a, s in zip(asks, shown, strict=True)], values, Picked)
        return [
            [s[n - 1] for n in reply.passages if 1 <= n <= len(s)] if reply else list(a.chosen or a.window[:keep])
            for a, s, reply in zip(asks, shown, replies, strict=True)
        ]

    def verify(self, asks: Sequence[Ask]) -> list[bool]:
        """As in `Judge`."""
        replies = self._ask("verify", [(a.question, a.chosen) for a in asks], [{}] * len(asks), Verdict)
        return [bool(reply and reply.sufficient) for reply in replies]

    def missing(self, asks: Sequence[Ask]) -> list[list[str]]:
        """As in `Judge`."""
        values = [{"queries": list(a.queries), "most": self._most} for a in asks]
        replies = self._ask("missing", [(a.question, a.chosen) for a in asks], values, Missing)
        return [
            [q.strip() for q in reply.questions if q.strip() and q.strip() not in a.queries][: self._most]
            if reply
            else []
            for a, reply in zip(asks, replies, strict=True)
        ]

    def answer(self, sets: Sequence[tuple[int, Sequence[int]]]) -> list[list[Statement]]:
        """Statements with citations for each (question, passages)."""
        replies = self._ask("answer", sets, [{}] * len(sets), Answer)
        return [
            [
                Statement(s.text, tuple(dict.fromkeys(chosen[n - 1] for n in s.citations if 1 <= n <= len(chosen))))
                for s in (reply.statements if reply else ())
            ]
            for (_, chosen), reply in zip(sets, replies, strict=True)
        ]

    def _ask(
        self, name: str, sets: Sequence[tuple[int, Sequence[int]]], values: Sequence[dict[str, Any]], form: type[T]
    ) -> list[T | None]:
        requests = []
        for (number, places), more in zip(sets, values, strict=True):
            text, digest = render(
                PROMPTS / f"{name}.jinja", question=self._questions[number],
                passages=[self._passages[place] for place in places], **more,
            )  # fmt: skip
            requests.append(
                Request(
                    model=self._model, messages=(Message(role="user", content=text),), temperature=0.0, max_tokens=600,
                    prompt_hash=digest, tags={"stage": name, "item": str(number)},
                )
            )  # fmt: skip
        return ask(self._llm, requests, form)
