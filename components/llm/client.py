"""The client: cache, single flight, concurrency, retries, budget and counters around any backend."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_before_delay

from paperflows.components.errors import ServiceError
from paperflows.components.llm.backend import Backend, EndpointError, RequestError, TransientError, derived
from paperflows.components.llm.cache import CompletionCache
from paperflows.components.llm.request import OPTIONAL_FIELDS, Completion, Request, UnsupportedField
from paperflows.components.llm.usage import Usage

ATTEMPTS, UNREACHED_ATTEMPTS = 8, 4
DEADLINE = 600.0
LONGEST_WAIT = 60.0
Observer = Callable[[Request, list[Completion]], None]


class LLM:
    """Completions from a backend, each asked for once.

    Args:
        concurrency: requests in flight at once.
        requests_per_minute: sending limit, None for none.
        observers: called with each request and its completions as they come, from the cache or not (progress,
            `recording.Recorder`, traces).
        sleep: waits between attempts and for other processes; tests inject it.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        cache: CompletionCache,
        usage: Usage | None = None,
        concurrency: int = 8,
        requests_per_minute: int | None = None,
        observers: Sequence[Observer] = (),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.backend, self.cache, self.usage = backend, cache, usage or Usage()
        self._slots = asyncio.Semaphore(concurrency)
        self._interval = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._next_start = 0.0
        self._observers, self._sleep = tuple(observers), sleep
        self._flying: dict[str, asyncio.Future[None]] = {}
        self._probing: dict[str, asyncio.Task[bool]] = {}
        self._stopped: ServiceError | None = None
        self._answered = False
        self._runner = asyncio.Runner()

    def run(self, requests: Sequence[Request], *, all_needed: bool = False) -> list[list[Completion]]:
        """`complete` for code that is not asynchronous; always call it from the same thread.

        Raises:
            ServiceError: with `all_needed`, a request failed for good; the others are in the cache.
        """
        found = self._runner.run(self.complete(requests))
        failed = [c.error for completions in found for c in completions if c.finish_reason == "error"]
        if all_needed and failed:
            number = sum(map(len, found))
            raise ServiceError(f"{self.backend.name}: {len(failed)} of {number} completions failed: {failed[0]}")
        return found

    def backend_supports(self, field: str, request: Request) -> bool:
        """`supports` for code that is not asynchronous."""
        return self._runner.run(self.supports(field, request))

    def close(self) -> None:
        """Close connections; the cache stays open for others."""
        self._runner.run(self.backend.close())
        self._runner.close()

    async def complete(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """`request.n` completions of each request, in the order of the requests.

        A request that fails for good gives completions with finish_reason "error"; the others go on.

        Raises:
            UnsupportedField: before anything is sent.
            BudgetExceeded: a limit was reached; what was in flight is finished and in the cache.
            EndpointError: wrong key or model, or nobody listens.
        """
        await self._check_fields(requests)
        self._stopped = None
        name, tags = self.backend.name, self.backend.keyed_tags
        keys = [[request.key(name, i, tags=tags) for i in range(request.n)] for request in requests]
        known = self.cache.get([key for group in keys for key in group])
        self.usage.counters["cached"] += len(known)

        async def answer(index: int) -> list[Completion]:
            found = await self._fill(requests[index], keys[index], known)
            for observe in self._observers:
                observe(requests[index], found)
            return found

        results = await asyncio.gather(*(answer(i) for i in range(len(requests))), return_exceptions=True)
        failures = [r for r in results if isinstance(r, BaseException)]
        if failures:
            raise self._stopped or failures[0]
        return [r for r in results if isinstance(r, list)]

    async def _check_fields(self, requests: Sequence[Request]) -> None:
        checked: set[tuple[str, str]] = set()
        for request in requests:
            for field in OPTIONAL_FIELDS:
                if getattr(request, field) is None or (request.model, field) in checked:
                    continue
                checked.add((request.model, field))
                if not await self.supports(field, request):
                    raise UnsupportedField(f"{self.backend.name} does not honour {field} for model {request.model!r}")

    async def supports(self, field: str, request: Request) -> bool:
        """Whether the backend honours a field, by its own word or one probe that is remembered for a day."""
        key = f"{self.backend.name}\n{request.model}\n{field}"
        known = self.cache.probe(key)
        if known is not None:
            return known
        if (flight := self._probing.get(key)) is None:
            flight = self._probing[key] = asyncio.create_task(self._probe(key, field, request))
            flight.add_done_callback(lambda _: self._probing.pop(key))
        return await flight

    async def _probe(self, key: str, field: str, request: Request) -> bool:
        known = False
        try:
            async for attempt in self._attempts():
                with attempt:
                    known = await self.backend.supports(field, request)
        except TransientError as error:
            raise EndpointError(f"{self.backend.name} cannot be reached: {error.reason}") from error
        self.cache.remember_probe(key, known)
        return known

    async def _fill(self, request: Request, keys: list[str], known: dict[str, Completion]) -> list[Completion]:
        missing = [i for i, key in enumerate(keys) if key not in known]
        found = {i: known[key].model_copy(update={"sample": i}) for i, key in enumerate(keys) if key in known}
        whole = missing == list(range(missing[0], missing[0] + len(missing))) if missing else True
        together = len(missing) <= 1 or (whole and await self.supports("n", request))
        groups = [missing] if together else [[i] for i in missing]
        for part in await asyncio.gather(*(self._once(request, keys, group) for group in groups if group)):
            found |= part
        return [found[i] for i in range(len(keys))]

    async def _once(self, request: Request, keys: list[str], samples: list[int]) -> dict[int, Completion]:
        """The samples, asked for by one caller of one process while the others wait for its answer."""
        first = keys[samples[0]]
        while (flight := self._flying.get(first)) is not None:
            await flight
            if (there := self._from_cache(keys, samples)) is not None:
                return there
        self._flying[first] = asyncio.get_running_loop().create_future()
        try:
            while not self.cache.claim(first):
                await self._sleep(0.05)
                if (there := self._from_cache(keys, samples)) is not None:
                    return there
            try:
                if (there := self._from_cache(keys, samples)) is not None:
                    return there
                return await self._ask(request, keys, samples)
            finally:
                self.cache.release(first)
        finally:
            self._flying.pop(first).set_result(None)

    def _from_cache(self, keys: list[str], samples: list[int]) -> dict[int, Completion] | None:
        there = self.cache.get([keys[i] for i in samples])
        if len(there) < len(samples):
            return None
        self.usage.counters["cached"] += len(samples)
        return {i: there[keys[i]].model_copy(update={"sample": i}) for i in samples}

    async def _ask(self, request: Request, keys: list[str], samples: list[int]) -> dict[int, Completion]:
        asked = derived(request, samples[0]).model_copy(update={"n": len(samples)})
        async with self._slots:
            await self._pace()
            try:
                replies = await self._with_retries(asked, samples[0])
            except (RequestError, TransientError) as error:
                if isinstance(error, TransientError) and error.unreachable:
                    self._stopped = EndpointError(f"{self.backend.name} cannot be reached: {error.reason}")
                    raise self._stopped from error
                self.usage.counters["errors"] += len(samples)
                failed = Completion(text="", finish_reason="error", error=str(error), backend=self.backend.name)
                return {i: failed.model_copy(update={"sample": i}) for i in samples}
            except ServiceError as error:
                self._stopped = self._stopped or error
                raise
        done = {}
        for i, reply in zip(samples, replies, strict=True):
            done[i] = _cut(reply, request.stop).model_copy(update={"sample": i, "backend": self.backend.name})
            self.cache.put(keys[i], done[i])
        return done

    def _attempts(self) -> AsyncRetrying:
        before_deadline = stop_before_delay(DEADLINE)
        return AsyncRetrying(
            retry=retry_if_exception_type(TransientError),
            stop=lambda state: self._enough(state) or before_deadline(state),
            wait=_wait,
            sleep=self._sleep,
            reraise=True,
        )

    def _enough(self, state: RetryCallState) -> bool:
        """Fewer attempts at an address where nobody ever listened: a wrong one should be said soon."""
        error = state.outcome.exception() if state.outcome else None
        unreached = isinstance(error, TransientError) and error.unreachable and not self._answered
        return state.attempt_number >= (UNREACHED_ATTEMPTS if unreached else ATTEMPTS)

    async def _with_retries(self, request: Request, first: int) -> list[Completion]:
        async for attempt in self._attempts():
            with attempt:
                return await self._send(request, first, again=attempt.retry_state.attempt_number > 1)
        raise AssertionError("unreachable: tenacity returns or raises")

    async def _send(self, request: Request, first: int, *, again: bool) -> list[Completion]:
        if self._stopped:
            raise self._stopped
        reservation = self.usage.reserve(request)
        self.usage.counters["retries"] += again
        replies: list[Completion] = []
        started = time.perf_counter()
        try:
            replies = await self.backend.send(request, first)
            seconds = round(time.perf_counter() - started, 4)
            replies = [reply.model_copy(update={"seconds": seconds}) for reply in replies]
            if len(replies) != request.n:
                raise TransientError(f"{len(replies)} choices instead of {request.n}")
        finally:
            self.usage.settle(reservation, request, replies)
        self._answered = True
        return replies

    async def _pace(self) -> None:
        if self._interval:
            now = time.monotonic()
            start = max(now, self._next_start)
            self._next_start = start + self._interval
            await self._sleep(start - now)


def _wait(state: RetryCallState) -> float:
    """Seconds before the next attempt: what the server asks for, else exponential with full jitter, at most 60."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, TransientError) and error.retry_after is not None:
        return error.retry_after
    return random.uniform(0, min(LONGEST_WAIT, 2.0 ** (state.attempt_number - 1)))


def _cut(completion: Completion, stop: tuple[str, ...]) -> Completion:
    """The completion up to the first stop text, for servers that do not cut themselves."""
    ends = [completion.text.find(text) for text in stop if text in completion.text]
    if not ends:
        return completion
    return completion.model_copy(update={"text": completion.text[: min(ends)], "finish_reason": "stop"})
