"""What is asked of a language model and what comes back; both are plain JSON values."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from paperflows.components.errors import InputError, ServiceError

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "content_filter", "error"]
OPTIONAL_FIELDS = ("seed", "top_k", "repetition_penalty", "logprobs")


class UnsupportedField(InputError):
    """A request uses a field that the backend does not honour and that cannot be emulated."""


class BudgetExceeded(ServiceError):
    """A limit on requests, tokens or cost was reached; what was done so far is in the cache."""

    passing = False


class Message(BaseModel):
    """One turn of a chat."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Role
    content: str


class Request(BaseModel):
    """One prompt with its sampling settings. Exactly one of `messages` and `prompt` is given.

    Args:
        n: samples wanted.
        max_tokens: of each completion.
        stop: texts before which a completion ends.
        response_schema: JSON schema of the reply.
        logprobs: alternatives per token whose log-probabilities are wanted; 0 gives those of the sampled tokens.
        extra: further fields of the server's body.
        prompt_hash: hash of the prompt file that made the text (`components.llm.prompts`).
        tags: what the request is for (item id, stage, ...); not part of the cache's key.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    messages: tuple[Message, ...] | None = None
    prompt: str | None = None
    n: int = Field(1, ge=1)
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int | None = Field(None, ge=1)
    repetition_penalty: float | None = Field(None, gt=0)
    max_tokens: int = Field(256, ge=1)
    stop: tuple[str, ...] = ()
    seed: int | None = None
    response_schema: dict[str, Any] | None = None
    logprobs: int | None = Field(None, ge=0)
    extra: dict[str, Any] = {}
    prompt_hash: str = ""
    tags: dict[str, str] = {}

    @model_validator(mode="after")
    def _one_input(self) -> Self:
        if (self.messages is None) == (self.prompt is None):
            raise ValueError("give exactly one of messages and prompt")
        return self

    @property
    def text(self) -> str:
        """All input text, for estimates."""
        return self.prompt if self.prompt is not None else "\n".join(m.content for m in self.messages or ())

    def identity(self) -> dict[str, Any]:
        """What determines a completion, apart from the backend: every field but `n` and `tags`."""
        return self.model_dump(mode="json", exclude={"n", "tags"})

    def key(self, backend: str, sample: int, *, tags: Sequence[str] = ()) -> str:
        """SHA-256 of the canonical JSON of backend, request, sample index and the `tags` that the backend reads."""
        read = {"tags": {name: self.tags[name] for name in tags if name in self.tags}} if tags else {}
        return canonical_hash({"backend": backend, "request": self.identity(), "sample": sample, **read})


class Completion(BaseModel):
    """One sample. A request that failed for good is one with finish_reason "error" and the error's name.

    Args:
        tokens, logprobs: of the sampled tokens (nats), where asked for.
        estimated: the token counts were not reported but estimated.
        seconds: from sending to receiving.
        model: as the server reports it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str
    finish_reason: FinishReason
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False
    tokens: tuple[str, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    sample: int = 0
    seconds: float = 0.0
    cached: bool = False
    backend: str = ""
    model: str = ""
    error: str | None = None


def canonical_hash(value: Mapping[str, Any]) -> str:
    """SHA-256 of sorted, compact JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
