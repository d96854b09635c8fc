"""Recorded completions, offline: by request (made by a run of ours) or by item (public chains)."""

import hashlib
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from paperflows.components.data.jsonl import read_jsonl
from paperflows.components.errors import InputError
from paperflows.components.llm.request import Completion, Request, canonical_hash
from paperflows.components.llm.usage import estimate_tokens

FILTERS = ("style", "temperature", "model")


class ReplayExhausted(InputError):
    """More completions were asked for than were recorded."""

    def __init__(self, item: str, asked: int, available: int) -> None:
        super().__init__(f"replay: {asked} completions of {item!r} were asked for, {available} are recorded")
        self.item, self.asked, self.available = item, asked, available


class Replay:
    """Serves records of a JSON-lines file (or .gz): sample i of a request is record i, so resuming changes nothing.

    A record is either {"request", "sample", "completion"} as `recording.Recorder` writes it, found by the request; or
    {"item", "text"} with any of style, temperature, model, found by the tag `item` of a request and its tags of these
    names, where no record is of the request itself. Other fields, such as the right answer, are never served. Item
    records hold no token counts: they are estimated (one token per four bytes) and marked so.

    Args:
        seed: permutes each item's records; None keeps the file's order.
    """

    keyed_tags: tuple[str, ...] = ("item", *FILTERS)

    def __init__(self, path: Path, *, seed: int | None = None) -> None:
        with Path(path).open("rb") as file:
            self.name = f"replay {hashlib.file_digest(file, 'sha256').hexdigest()} {seed}"
        self._seed = seed
        self._by_request: dict[str, dict[int, Completion]] = defaultdict(dict)
        self._by_item: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for place, row in read_jsonl(Path(path)):
            try:
                if "completion" in row:
                    key = canonical_hash(_without_seed(row["request"]))
                    self._by_request[key][row["sample"]] = Completion(**row["completion"])
                else:
                    self._by_item[str(row["item"])].append({k: row[k] for k in ("text", *FILTERS) if k in row})
            except (KeyError, ValidationError, TypeError) as error:
                raise InputError(f"{path}:{place}: not a recorded completion ({error!r})") from error

    async def supports(self, field: str, request: Request) -> bool:
        """As in `Backend`: a record has what it was recorded with."""
        return True

    async def close(self) -> None:
        """Nothing is held open."""

    async def send(self, request: Request, first: int = 0) -> list[Completion]:
        """As in `Backend`.

        Raises:
            ReplayExhausted: there are too few records.
        """
        item = request.tags.get("item")
        recorded = self._by_request.get(canonical_hash(_without_seed(request.identity())), {})
        if recorded or item is None or not self._by_item:
            wanted = range(first, first + request.n)
            if any(i not in recorded for i in wanted):
                raise ReplayExhausted(request.text[:60], wanted.stop, len(recorded))
            return [recorded[i] for i in wanted]
        filters = {name: request.tags[name] for name in FILTERS if name in request.tags}
        records = [r for r in self._by_item.get(item, []) if all(str(r.get(k)) == v for k, v in filters.items())]
        if self._seed is not None:
            random.Random(f"{self._seed}\0{item}").shuffle(records)
        if len(records) < first + request.n:
            raise ReplayExhausted(item, first + request.n, len(records))
        return [
            Completion(
                text=record["text"],
                finish_reason="stop",
                prompt_tokens=estimate_tokens(request.text),
                completion_tokens=estimate_tokens(record["text"]),
                estimated=True,
                model=str(record.get("model", "")),
            )
            for record in records[first : first + request.n]
        ]


def _without_seed(request: dict[str, Any]) -> dict[str, Any]:
    """The request without its seed, which moves with the sample."""
    return {key: value for key, value in request.items() if key != "seed"}
