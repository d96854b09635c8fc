"""What was spent, and the limits on it."""

from collections import Counter
from collections.abc import Mapping

from paperflows.components.llm.request import BudgetExceeded, Completion, Request


class Usage:
    """Counters of one stage and its budget.

    Args:
        prices: model -> (USD per million prompt tokens, per million completion tokens); a missing one counts as 0
            and `cost_known` is then 0.
        max_requests, max_tokens, max_cost: limits; checked before sending, with prompt estimate plus `max_tokens`.
    """

    def __init__(
        self,
        *,
        prices: Mapping[str, tuple[float, float]] | None = None,
        max_requests: int | None = None,
        max_tokens: int | None = None,
        max_cost: float | None = None,
    ) -> None:
        names = ("requests", "retries", "cached", "errors", "parse_failures", "prompt_tokens", "completion_tokens")
        self.counters: Counter[str] = Counter(dict.fromkeys((*names, "seconds", "cost"), 0))
        self.counters["cost_known"] = 1
        self._prices = dict(prices or {})
        self._limits = {"requests": max_requests, "tokens": max_tokens, "cost": max_cost}
        self._reserved: Counter[str] = Counter()

    def reserve(self, request: Request) -> dict[str, float]:
        """Set aside what sending `request` may cost at most, and return it for `settle`.

        Raises:
            BudgetExceeded: it would pass a limit.
        """
        prompt, reply = estimate_tokens(request.text), request.max_tokens * request.n
        ask = {"requests": 1.0, "tokens": float(prompt + reply), "cost": self._cost(request.model, prompt, reply)}
        spent = self._spent()
        for name, limit in self._limits.items():
            if limit is not None and spent[name] + self._reserved[name] + ask[name] > limit:
                raise BudgetExceeded(f"max_{name} = {limit:g} reached after {self.counters['requests']} requests")
        self._reserved.update(ask)
        return ask

    def settle(self, ask: Mapping[str, float], request: Request, completions: list[Completion]) -> None:
        """Replace a reservation by what was really used."""
        self._reserved.subtract(ask)
        self.counters["requests"] += 1
        prompt = max((c.prompt_tokens for c in completions), default=0)
        reply = sum(c.completion_tokens for c in completions)
        self.counters["prompt_tokens"] += prompt
        self.counters["completion_tokens"] += reply
        self.counters["seconds"] += max((c.seconds for c in completions), default=0)  # type: ignore[assignment]
        self.counters["cost"] += self._cost(request.model, prompt, reply)  # type: ignore[assignment]
        if request.model not in self._prices:
            self.counters["cost_known"] = 0

    def _spent(self) -> dict[str, float]:
        c = self.counters
        return {"requests": c["requests"], "tokens": c["prompt_tokens"] + c["completion_tokens"], "cost": c["cost"]}

    def _cost(self, model: str, prompt: int, reply: int) -> float:
        price_in, price_out = self._prices.get(model, (0.0, 0.0))
        return (prompt * price_in + reply * price_out) / 1e6


def estimate_tokens(text: str) -> int:
    """Tokens of a text before a server counts them: one per four bytes of UTF-8, at least 1."""
    return max(1, len(text.encode()) // 4)
