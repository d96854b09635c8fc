"""UAR's decision as a service: POST /decide {"text": …} says whether to retrieve, and why."""

from typing import Annotated

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import JSONResponse
from pydantic import BaseModel, StringConstraints

from paperflows.components.retrieval.criteria import Decision, RetrievalDecider

LONGEST = 100_000  # characters of a request; the encoder reads its first tokens


class Asked(BaseModel):
    """A request to the assistant, as its user wrote it."""

    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST)]


def decision_service(decider: RetrievalDecider) -> FastAPI:
    """An application for any ASGI server, or to mount in one's own; it answers no host but this machine's loopback.

    Requests are decided one after the other: each takes milliseconds of all cores.
    """
    service = FastAPI(title="When to retrieve", docs_url=None, redoc_url=None)  # their pages load scripts from afar
    service.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])

    @service.post("/decide")
    async def decide(asked: Asked) -> Decision:
        return decider.decide(asked.text)

    @service.exception_handler(RequestValidationError)
    async def refuse(_: Request, error: RequestValidationError) -> JSONResponse:
        """What is wrong and where; FastAPI's own reply repeats the body, and fails where that is no text."""
        return JSONResponse({"detail": [{"loc": e["loc"], "msg": e["msg"]} for e in error.errors()]}, 422)

    return service
