"""Replies that are JSON of a given form: by the server's schema where it honours one, else by asking again."""

import json
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from paperflows.components.llm.client import LLM
from paperflows.components.llm.request import Completion, Message, Request

T = TypeVar("T", bound=BaseModel)


def ask(
    llm: LLM, requests: Sequence[Request], form: type[T], *, again: int = 2, all_needed: bool = False
) -> list[T | None]:
    """Each request's reply as `form`; None where no reply could be read after `again` further tries.

    A further try shows the model its reply and the error. Failures are counted as `parse_failures`; nothing is guessed.

    Args:
        requests: with messages and n = 1.
        all_needed: a request that fails for good is an error (`LLM.run`), not a None.
    """
    if not requests:
        return []
    schema = form.model_json_schema()
    honoured = llm.backend_supports("json_schema", requests[0])
    todo = {i: r.model_copy(update={"response_schema": schema if honoured else None}) for i, r in enumerate(requests)}
    found: list[T | None] = [None] * len(requests)
    for attempt in range(again + 1):
        replies = llm.run(list(todo.values()), all_needed=all_needed)
        failed: dict[int, Request] = {}
        for (i, request), (reply,) in zip(todo.items(), replies, strict=True):
            value, problem = parse(reply, form)
            found[i] = value
            if value is None and reply.finish_reason != "error":
                failed[i] = _retry(request, reply.text, problem)
        llm.usage.counters["parse_failures"] += len(failed)
        if not failed or attempt == again:
            break
        todo = failed
    return found


def parse(reply: Completion, form: type[T]) -> tuple[T | None, str]:
    """The first JSON object or array of a reply (also inside a fenced block) as `form`, or None and the problem."""
    value = first_json(reply.text)
    if value is None:
        return None, "no JSON object in the reply"
    try:
        return form.model_validate(value), ""
    except ValidationError as error:
        first = error.errors()[0]
        return None, f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def first_json(text: str) -> Any:
    """The first object or array in a text, None when there is none. NaN and infinities are not JSON."""
    decoder = json.JSONDecoder(parse_constant=_refuse)
    for start, character in enumerate(text):
        if character in "{[":
            try:
                return decoder.raw_decode(text, start)[0]
            except ValueError:
                continue
    return None


def _retry(request: Request, reply: str, problem: str) -> Request:
    complaint = f"That could not be read ({problem}). Reply with the JSON object only."
    more = (Message(role="assistant", content=reply), Message(role="user", content=complaint))
    seed = None if request.seed is None else request.seed + 1
    return request.model_copy(update={"messages": (*(request.messages or ()), *more), "seed": seed})


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
