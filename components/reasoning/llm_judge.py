"""A language model as sampler and as AoR's judge, by rubric, with JSON replies (sections 3.1 to 3.3)."""

from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, Field

from paperflows.components.llm.client import LLM
from paperflows.components.llm.prompts import render
from paperflows.components.llm.request import Message, Request
from paperflows.components.llm.structured import ask
from paperflows.components.reasoning.aggregation import Chain, Compare, Local, Sample, Scores
from paperflows.components.reasoning.answers import AnswerKind, extract

PROMPTS = Path(__file__).parent / "llm_judge"


class Points(BaseModel):
    """One chain's points."""

    chain: int = Field(ge=1, description="number of the chain as shown")
    reasoning: str = Field(description="one sentence on what is right or wrong in it")
    validity: int = Field(ge=0, le=3)
    consistency: int = Field(ge=0, le=3)
    completeness: int = Field(ge=0, le=2)
    knowledge: int = Field(ge=0, le=2)


class Reply(BaseModel):
    """The judge's reply."""

    scores: list[Points]


class LLMJudge:
    """Scores chains of an answer (`local`) and chains of different answers (`compare`), 0 to 10.

    A chain that the reply leaves out or names twice has no score; nothing is guessed. A request that fails for good
    ends the run (`LLM.run`).
    """

    def __init__(self, llm: LLM, *, model: str, questions: Sequence[str]) -> None:
        self._llm, self._model, self._questions = llm, model, questions

    def local(self, asks: Sequence[Local]) -> list[Scores]:
        """Points of each chain of each ask, None where the reply could not be read."""
        shown = [{"anchors": [(c.text, points) for c, points in a.anchors]} for a in asks]
        return self._score("local.jinja", asks, shown)

    def compare(self, asks: Sequence[Compare]) -> list[Scores]:
        """As `local`; every chain stands for another answer, which is shown."""
        return self._score("compare.jinja", asks, [{"answers": [c.answer for c in a.chains]} for a in asks])

    def _score(self, name: str, asks: Sequence[Local | Compare], more: Sequence[dict]) -> list[Scores]:
        requests = []
        for one, values in zip(asks, more, strict=True):
            text, digest = render(
                PROMPTS / name,
                question=self._questions[one.question],
                chains=[chain.text for chain in one.chains],
                **values,
            )
            requests.append(
                Request(
                    model=self._model, messages=(Message(role="user", content=text),), temperature=0.0,
                    max_tokens=max(1200, 200 + 100 * len(one.chains)), prompt_hash=digest,
                    tags={"stage": name, "item": str(one.question)},
                )
            )  # fmt: skip
        replies = ask(self._llm, requests, Reply, again=4, all_needed=True)
        return [_read(reply, len(one.chains)) for reply, one in zip(replies, asks, strict=True)]


def llm_sampler(
    llm: LLM, *, model: str, questions: Sequence[str], kind: AnswerKind, temperature: float
) -> Callable[[Sequence[Sample]], list[list[Chain]]]:
    """`sample` for `aggregation.run_all`: samples are remembered by number, so that more asks only for what is new.

    A request that fails for good ends the run (`LLM.run`): an empty chain would be an answer.
    """

    def sample(asks: Sequence[Sample]) -> list[list[Chain]]:
        requests = []
        for one in asks:
            text, digest = render(PROMPTS / "sample.jinja", question=questions[one.question], kind=kind)
            requests.append(
                Request(
                    model=model, messages=(Message(role="user", content=text),), n=one.first + one.count,
                    temperature=temperature, max_tokens=512, prompt_hash=digest,
                    tags={"stage": "sample", "item": str(one.question)},
                )
            )  # fmt: skip
        return [
            [Chain(i, reply.text, extract(reply.text, kind)) for i, reply in enumerate(replies)][one.first :]
            for one, replies in zip(asks, llm.run(requests, all_needed=True), strict=True)
        ]

    return sample


def _read(reply: Reply | None, chains: int) -> Scores:
    found: Scores = [None] * chains
    for points in reply.scores if reply else ():
        place = points.chain - 1
        if place < chains:
            total = points.validity + points.consistency + points.completeness + points.knowledge
            twice = sum(other.chain == points.chain for other in reply.scores) > 1 if reply else False
            found[place] = None if twice else float(total)
    return found
