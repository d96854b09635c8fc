"""An OpenAI-compatible server, by the official client. What it honours is found by asking, not by its status codes."""

from typing import Any

from paperflows.components.llm.backend import EndpointError, RequestError, TransientError
from paperflows.components.llm.request import Completion, FinishReason, Message, Request
from paperflows.components.llm.usage import estimate_tokens

RETRIED = {408, 409, 429}
FATAL = {401, 403, 404}
PROBE = "Write ten unrelated words, as rare as you can."  # much is likely: two draws hardly ever agree
REASONS: dict[str | None, FinishReason] = {"stop": "stop", "length": "length", "content_filter": "content_filter"}


class Endpoint:
    """Chat and text completions of one server.

    Args:
        base_url: such as http://127.0.0.1:8000/v1; None is OpenAI's own.
        api_key: sent in the header only; never part of a message, a key or a record.
        timeout: seconds for one request.
    """

    keyed_tags: tuple[str, ...] = ()

    def __init__(self, *, base_url: str | None, api_key: str | None, timeout: float = 120.0) -> None:
        from openai import AsyncOpenAI

        self._key = api_key or ""
        self._client = AsyncOpenAI(base_url=base_url, api_key=api_key or "none", max_retries=0, timeout=timeout)
        self.name = f"endpoint {str(self._client.base_url).rstrip('/')}"

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def send(self, request: Request, first: int = 0) -> list[Completion]:
        """As in `Backend`."""
        import openai

        try:
            return self._read(await self._post(request), request)
        except openai.APITimeoutError as error:
            raise TransientError("timeout") from error
        except openai.APIConnectionError as error:
            text = self._hide(f"{error} ({error.__cause__})")
            raise TransientError(text, unreachable=type(error.__cause__).__name__ == "ConnectError") from error
        except openai.APIStatusError as error:
            raise self._of_status(error) from error
        except (openai.APIError, ValueError) as error:
            raise TransientError(f"unreadable reply: {self._hide(str(error))[:200]}") from error

    async def supports(self, field: str, request: Request) -> bool:
        """As in `Backend`, by a small request whose reply shows whether the field was honoured."""
        base = Request(model=request.model, messages=(Message(role="user", content=PROBE),), max_tokens=16)
        changed = base.model_copy
        if field == "n":
            return len(await self._probe(changed(update={"n": 2}))) == 2
        if field == "logprobs":
            replies = await self._probe(changed(update={"logprobs": 0}))
            return bool(replies) and replies[0].logprobs is not None
        if field == "json_schema":
            schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
            replies = await self._probe(changed(update={"response_schema": schema}))
            return bool(replies) and replies[0].text.lstrip().startswith("{")
        if field == "top_k":
            greedy, first, free = [
                _texts(await self._probe(changed(update=how))) for how in ({"temperature": 0.0}, {"top_k": 1}, {})
            ]
            return bool(greedy) and greedy == first != free
        if field == "seed":
            first, again, other = [_texts(await self._probe(changed(update={"seed": seed}))) for seed in (7, 7, 8)]
            return bool(first) and first == again != other
        penalised = await self._probe(changed(update={"temperature": 0.0, "repetition_penalty": 50.0}))
        return bool(penalised) and _texts(penalised) != _texts(await self._probe(changed(update={"temperature": 0.0})))

    async def _probe(self, request: Request) -> list[Completion]:
        """The choices of a probe; none where the server refuses the field."""
        try:
            return await self.send(request)
        except RequestError:
            return []

    async def _post(self, request: Request) -> Any:
        body = {
            "model": request.model,
            "n": request.n,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "max_tokens": request.max_tokens,
            "stop": list(request.stop) or None,
            "seed": request.seed,
        }
        extra = {"top_k": request.top_k, "repetition_penalty": request.repetition_penalty, **request.extra}
        more = {"extra_body": {k: v for k, v in extra.items() if v is not None} or None}
        given = {k: v for k, v in body.items() if v is not None}
        if request.n == 1:
            del given["n"]
        if request.messages is None:
            logprobs = {} if request.logprobs is None else {"logprobs": request.logprobs}
            return await self._client.completions.create(prompt=request.prompt, **given, **logprobs, **more)  # type: ignore[call-overload]
        if request.logprobs is not None:
            given |= {"logprobs": True} | ({"top_logprobs": request.logprobs} if request.logprobs else {})
        if request.response_schema is not None:
            schema = {"name": "reply", "schema": request.response_schema, "strict": True}
            given["response_format"] = {"type": "json_schema", "json_schema": schema}
        messages = [message.model_dump() for message in request.messages]
        return await self._client.chat.completions.create(messages=messages, **given, **more)  # type: ignore[call-overload]

    def _read(self, reply: Any, request: Request) -> list[Completion]:
        choices = getattr(reply, "choices", None)
        if not choices:
            raise TransientError("a reply without choices" if hasattr(reply, "choices") else "a reply that is not JSON")
        usage = getattr(reply, "usage", None)
        found = []
        spent_in, spent_out = (getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens"))
        chat = request.messages is not None
        for choice in choices:
            if chat and getattr(choice, "message", None) is None:
                raise TransientError("a choice without a message")
            text = _whole((choice.message.content if chat else choice.text) or "")
            tokens, logprobs = _logprobs(choice, chat)
            found.append(
                Completion(
                    text=text,
                    finish_reason=REASONS.get(choice.finish_reason, "stop"),
                    prompt_tokens=estimate_tokens(request.text) if spent_in is None else spent_in,
                    completion_tokens=estimate_tokens(text) if spent_out is None else round(spent_out / len(choices)),
                    estimated=spent_in is None or spent_out is None,
                    tokens=tokens,
                    logprobs=logprobs,
                    model=getattr(reply, "model", "") or "",
                )
            )
        return found

    def _of_status(self, error: Any) -> Exception:
        status, body = error.status_code, error.body if isinstance(error.body, dict) else {}
        message = self._hide(str(body.get("message") or error.message))[:300]
        if body.get("code") == "context_length_exceeded":
            return RequestError("context_length_exceeded")
        if status in RETRIED or status >= 500:
            return TransientError(f"HTTP {status}: {message}", retry_after=_retry_after(error.response.headers))
        if status in FATAL:
            hint = " (is the key's environment variable set?)" if status == 401 else ""
            return EndpointError(f"{self.name}: HTTP {status}: {message}{hint}")
        return RequestError(f"HTTP {status}: {message}")

    def _hide(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def _retry_after(headers: Any) -> float | None:
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * unit)
        except (KeyError, ValueError):
            continue
    return None


def _whole(text: str) -> str:
    """The text with half characters, which no encoding holds, replaced as a decoder would."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _logprobs(choice: Any, chat: bool) -> tuple[tuple[str, ...] | None, tuple[float, ...] | None]:
    found = getattr(choice, "logprobs", None)
    if not found:
        return None, None
    if chat:
        content = found.content or []
        return tuple(_whole(t.token) for t in content), tuple(t.logprob for t in content)
    return tuple(map(_whole, found.tokens or ())), tuple(found.token_logprobs or ())


def _texts(completions: list[Completion]) -> list[str]:
    return [completion.text for completion in completions]
