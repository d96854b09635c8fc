"""Completions on disk: SQLite in WAL mode, JSON values, and a lock a key that dies with its process."""

import fcntl
import json
import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from paperflows.components.errors import ServiceError
from paperflows.components.llm.request import Completion

_lock_files: dict[Path, int] = {}
_guard = threading.Lock()


class CompletionCache:
    """Completions by key, shared by processes; each is on disk when `put` returns.

    Raises:
        ServiceError: the file cannot be opened or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=60, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("CREATE TABLE IF NOT EXISTS completions (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
            self._db.execute("CREATE TABLE IF NOT EXISTS probes (key TEXT PRIMARY KEY, value TEXT NOT NULL, at REAL)")
        except (sqlite3.Error, OSError) as error:
            raise ServiceError(f"completion cache {self.path}: {error}") from error
        self._claims = _lock_file(self.path.with_suffix(".claims"))

    def get(self, keys: Sequence[str]) -> dict[str, Completion]:
        """The completions that are there, marked `cached`. A row that cannot be read counts as missing."""
        found: dict[str, Completion] = {}
        for start in range(0, len(keys), 500):
            part = keys[start : start + 500]
            marks = ",".join("?" * len(part))
            with self._lock:
                rows = self._db.execute(f"SELECT key, value FROM completions WHERE key IN ({marks})", part).fetchall()
            for key, value in rows:
                try:
                    found[key] = Completion.model_validate_json(value).model_copy(update={"cached": True})
                except ValidationError:
                    continue
        return found

    def put(self, key: str, completion: Completion) -> None:
        """Store one completion; the first one stored under a key stays."""
        with self._lock:
            try:
                self._db.execute("INSERT OR IGNORE INTO completions VALUES (?, ?)", (key, completion.model_dump_json()))
            except sqlite3.Error as error:
                raise ServiceError(f"completion cache {self.path}: {error}") from error

    def claim(self, key: str) -> bool:
        """Take the right to ask for `key`; False while another process has it. Freed by `release` or its death."""
        try:
            fcntl.lockf(self._claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(key[:15], 16))
        except OSError:
            return False
        return True

    def release(self, key: str) -> None:
        """Give a claim back."""
        fcntl.lockf(self._claims, fcntl.LOCK_UN, 1, int(key[:15], 16))

    def probe(self, key: str, *, max_age: float = 86400.0) -> bool | None:
        """A remembered capability, None when there is none younger than `max_age` seconds."""
        with self._lock:
            row = self._db.execute("SELECT value, at FROM probes WHERE key = ?", (key,)).fetchone()
        return bool(json.loads(row[0])) if row and time.time() - row[1] < max_age else None

    def remember_probe(self, key: str, value: bool) -> None:
        """Store a capability with the time of day."""
        with self._lock:
            self._db.execute("REPLACE INTO probes VALUES (?, ?, ?)", (key, json.dumps(value), time.time()))

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()


def _lock_file(path: Path) -> int:
    """One descriptor a process and file: closing any other would drop all of the process's locks on it."""
    with _guard:
        resolved = path.resolve()
        if resolved not in _lock_files:
            _lock_files[resolved] = os.open(resolved, os.O_RDWR | os.O_CREAT, 0o600)
        return _lock_files[resolved]
