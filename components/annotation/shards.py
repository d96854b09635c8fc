"""Resumable work: finished shards stay on disk, a killed run continues at the first missing one."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

log = logging.getLogger(__name__)
J = TypeVar("J")


class Shards:
    """Work cut into shards of `size` jobs, each shard's rows in one file that is written atomically.

    Args:
        folder: named by what determines the result (inputs and code), so that other work never mixes in.
    """

    def __init__(self, folder: Path, *, size: int) -> None:
        self._folder, self._size = folder, size

    def run(
        self,
        jobs: Sequence[J],
        work: Callable[[int, list[J]], list[dict[str, Any]]],
        *,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[dict[str, Any]]:
        """Rows of all shards in order; `work(number, jobs)` is called for those that are not on disk yet."""
        self._folder.mkdir(parents=True, exist_ok=True)
        rows: list[dict[str, Any]] = []
        if there := len(list(self._folder.glob("shard-*.jsonl"))):
            log.warning(
                "going on with an earlier run's work: %d of %d shards are done", there, -(-len(jobs) // self._size)
            )
        for number, start in enumerate(range(0, len(jobs), self._size)):
            path = self._folder / f"shard-{number:06d}.jsonl"
            part = self._read(path)
            if part is None:
                part = work(number, list(jobs[start : start + self._size]))
                self._write(path, part)
            rows += part
            on_progress(min(start + self._size, len(jobs)), len(jobs))
        return rows

    def clear(self) -> None:
        """Remove the shards, once what was made of them is stored."""
        for path in self._folder.glob("shard-*"):
            path.unlink(missing_ok=True)
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _read(self, path: Path) -> list[dict[str, Any]] | None:
        if not path.is_file():
            return None
        head, _, body = path.read_text(encoding="utf-8", errors="replace").partition("\n")
        if hashlib.sha256(body.encode()).hexdigest() != head:
            log.warning("%s is damaged; doing its work again", path)
            return None
        return [json.loads(line) for line in body.splitlines()]

    @staticmethod
    def _write(path: Path, rows: list[dict[str, Any]]) -> None:
        body = "".join(json.dumps(row, ensure_ascii=True, allow_nan=False) + "\n" for row in rows)
        temporary = path.with_name(f"{path.name}.tmp{os.getpid()}")
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(hashlib.sha256(body.encode()).hexdigest() + "\n" + body)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
