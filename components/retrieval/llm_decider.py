"""A language model that is asked whether to retrieve: the baseline by prompt of UAR (Cheng et al., 2024)."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from paperflows.components.llm.client import LLM
from paperflows.components.llm.prompts import render
from paperflows.components.llm.request import Message, Request
from paperflows.components.llm.structured import ask

PROMPT = Path(__file__).parent / "llm_decider" / "decide.jinja"


class Verdict(BaseModel):
    """Whether to retrieve."""

    retrieve: bool


def decide_by_prompt(llm: LLM, *, model: str, texts: Sequence[str]) -> list[bool | None]:
    """Whether the model wants to retrieve for each request; None where its reply could not be read."""
    requests = []
    for number, text in enumerate(texts):
        content, digest = render(PROMPT, request=text)
        requests.append(
            Request(
                model=model, messages=(Message(role="user", content=content),), temperature=0.0, max_tokens=30,
                prompt_hash=digest, tags={"stage": "decide", "item": str(number)},
            )
        )  # fmt: skip
    return [reply.retrieve if reply else None for reply in ask(llm, requests, Verdict)]
