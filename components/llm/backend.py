"""What every backend offers the client, and the errors by which it says what went wrong."""

from collections.abc import Mapping
from typing import Protocol

from paperflows.components.errors import ServiceError
from paperflows.components.llm.request import Completion, Request


class TransientError(Exception):
    """Worth another try: 408, 409, 429, 5xx, a timeout, a broken connection, half a reply.

    Args:
        reason: short name, such as "429" or "timeout".
        retry_after: seconds the server asks to wait, None where it does not say.
        unreachable: no connection could be made at all.
    """

    def __init__(self, reason: str, *, retry_after: float | None = None, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.retry_after, self.unreachable = reason, retry_after, unreachable


class RequestError(Exception):
    """This request cannot succeed, others may: 400, 422, a prompt that is too long ("context_length_exceeded")."""


class EndpointError(ServiceError):
    """No request can succeed: wrong key (401, 403), unknown model or address (404), nobody listening."""


class Backend(Protocol):
    """A source of completions.

    Attributes:
        name: kind and place, part of the cache's key.
        keyed_tags: tags of a request that decide its completions, part of that key too.
    """

    name: str
    keyed_tags: tuple[str, ...]

    async def supports(self, field: str, request: Request) -> bool:
        """Whether a field is really honoured: n, seed, top_k, repetition_penalty, logprobs, json_schema."""
        ...

    async def send(self, request: Request, first: int = 0) -> list[Completion]:
        """`request.n` samples, numbered from `first` on.

        Raises:
            TransientError, RequestError, EndpointError: as their names say.
        """
        ...

    async def close(self) -> None:
        """Free connections and models."""
        ...


def derived(request: Request, sample: int) -> Request:
    """The request of one sample: n = 1, and the seed, if any, moved on by the sample's index."""
    changes: Mapping[str, object] = {"n": 1, "seed": None if request.seed is None else request.seed + sample}
    return request.model_copy(update=changes)
