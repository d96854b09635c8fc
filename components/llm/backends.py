"""From settings to a client: which backend, which cache, which limits."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from paperflows.components.errors import InputError
from paperflows.components.llm.backend import Backend
from paperflows.components.llm.cache import CompletionCache
from paperflows.components.llm.client import LLM
from paperflows.components.llm.usage import Usage


class LLMSettings(BaseModel):
    """What `open_llm` needs; the API key is not part of it.

    Args:
        kind: endpoint (OpenAI-compatible), local (transformers, by id or folder), tiny (a folder trained in a flow),
            replay (recorded completions).
        base_url: of the endpoint; None is OpenAI's own.
        replay_path: recorded completions.
        prices: model -> (USD per million prompt tokens, per million completion tokens).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["endpoint", "local", "tiny", "replay"]
    model: str
    cache_path: Path
    base_url: str | None = None
    replay_path: str | None = None
    concurrency: int = 8
    requests_per_minute: int | None = None
    max_requests: int | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    prices: dict[str, tuple[float, float]] = {}
    timeout_seconds: float = 120.0
    device: str = "auto"


def open_llm(settings: LLMSettings, *, api_key: str | None = None, **client: Any) -> LLM:
    """A client for the settings.

    Args:
        client: further arguments of `LLM`.

    Raises:
        InputError: no model is named, or no file to replay.
    """
    if not settings.model and settings.kind != "replay":
        raise InputError(f"LLM backend {settings.kind}: no model is named (set its `model`)")
    limits = settings.model_dump(include={"prices", "max_requests", "max_tokens", "max_cost"})
    return LLM(
        _backend(settings, api_key),
        cache=CompletionCache(settings.cache_path),
        usage=Usage(**limits),
        concurrency=settings.concurrency,
        requests_per_minute=settings.requests_per_minute,
        **client,
    )


def _backend(settings: LLMSettings, api_key: str | None) -> Backend:
    if settings.kind == "endpoint":
        from paperflows.components.llm.endpoint import Endpoint

        return Endpoint(base_url=settings.base_url, api_key=api_key, timeout=settings.timeout_seconds)
    if settings.kind == "replay":
        from paperflows.components.llm.replay import Replay

        if not settings.replay_path:
            raise InputError("LLM backend replay: replay_path is not set")
        if not Path(settings.replay_path).is_file():
            raise InputError(f"LLM backend replay: {settings.replay_path} is not a file")
        return Replay(Path(settings.replay_path))
    from paperflows.components.llm.local import LocalModel

    return LocalModel(settings.model, device=settings.device)
