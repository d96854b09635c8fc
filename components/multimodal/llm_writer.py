"""A language model as writer of topics and conversations."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from paperflows.components.llm.client import LLM
from paperflows.components.llm.prompts import render
from paperflows.components.llm.request import Message, Request
from paperflows.components.llm.structured import ask
from paperflows.components.multimodal.conversations import Scenario, grammar

PROMPTS = Path(__file__).parent / "llm_writer"


class Topics(BaseModel):
    """Reply of the first step."""

    topics: list[str] = Field(description="specific topics, a few words each")


class Turn(BaseModel):
    """One exchange."""

    user: str
    assistant: str


class Conversation(BaseModel):
    """Reply of the third step."""

    turns: list[Turn]


def expand(llm: LLM, model: str, count: int, things: Collection[str]) -> list[list[str] | None]:
    """Specific topics of every meta topic, `count` in all; None where no reply could be read.

    Args:
        things: words that pictures and recordings have in common, of which the first forty are shown.
    """
    metas = list(grammar()["topics"])
    each = -(-count // len(metas))
    shown = ", ".join(list(things)[:40])
    requests = [_request(model, "topics.jinja", 1500, meta=meta, count=each, things=shown) for meta in metas]
    return [reply.topics if reply else None for reply in ask(llm, requests, Topics)]


def write(
    llm: LLM, model: str, scenarios: Sequence[Scenario], repertoire: Mapping[str, Sequence[str]]
) -> list[list[dict[str, str]] | None]:
    """Turns of each scenario; None where no reply could be read."""
    shown = {modality: ", ".join(list(said)[:40]) for modality, said in repertoire.items()}
    requests = [_request(model, "conversation.jinja", 1000, scenario=one, repertoire=shown) for one in scenarios]
    return [
        [turn.model_dump() for turn in reply.turns] if reply else None for reply in ask(llm, requests, Conversation)
    ]


def _request(model: str, prompt: str, most: int, **values: Any) -> Request:
    text, digest = render(PROMPTS / prompt, **values)
    return Request(
        model=model, messages=(Message(role="user", content=text),), temperature=1.0, max_tokens=most,
        prompt_hash=digest, tags={"stage": prompt.removesuffix(".jinja")},
    )  # fmt: skip
