"""Atomic, pickle-free checkpoints: one safetensors file, its content hash in its name."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

log = logging.getLogger(__name__)

_NAME = re.compile(r"step-(\d{9})-([0-9a-f]{16})\.safetensors")


class Checkpoints:
    """The checkpoints of one training in one folder; the newest readable one wins, the one before it is kept.

    Args:
        folder: created on the first save.
        every_seconds: least time between two saves.
        share: of the time, at most, that saving takes: a large model, whose file takes seconds, is saved less often.
    """

    def __init__(self, folder: Path, *, every_seconds: float = 10.0, share: float = 0.05) -> None:
        self.folder = Path(folder)
        self.every_seconds, self.share = every_seconds, share

    def pause(self, took: float = 0.0) -> float:
        """Seconds until the next save, after one that took `took` seconds."""
        return max(self.every_seconds, took / self.share)

    def save(self, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> Path:
        """Write one checkpoint so that a reader sees all of it or none (temporary name, fsync, rename).

        Raises:
            OSError: the disk is full or the folder is not writable; the earlier checkpoints are untouched.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        payload = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, {"state": json.dumps(state)})
        path = self.folder / f"step-{step:09d}-{hashlib.sha256(payload).hexdigest()[:16]}.safetensors"
        temporary = path.with_suffix(f".tmp{os.getpid()}")
        try:
            with temporary.open("wb") as file:
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        for old in self._paths()[2:]:
            old.unlink(missing_ok=True)
        return path

    def latest(self, among: Collection[int] | None = None) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
        """Step, tensors and state of the newest intact checkpoint, or None. A damaged one is named in a warning.

        Args:
            among: steps to choose from; all when None.
        """
        for path in self._paths():
            match = _NAME.fullmatch(path.name)
            assert match is not None
            if among is not None and int(match[1]) not in among:
                continue
            if hashlib.sha256(path.read_bytes()).hexdigest()[:16] != match[2]:
                log.warning(
                    "checkpoint %s is damaged (its content does not match its name); using the one before", path
                )
                continue
            try:
                with safe_open(path, framework="pt") as file:
                    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
                    return int(match[1]), tensors, json.loads(file.metadata()["state"])
            except SafetensorError as error:
                log.warning("checkpoint %s is unreadable (%s); using the one before", path, error)
        return None

    def steps(self) -> list[int]:
        """Steps of the checkpoints whose content matches their name, newest first."""
        found = [(path, _NAME.fullmatch(path.name)) for path in self._paths()]
        return [int(m[1]) for path, m in found if m and hashlib.sha256(path.read_bytes()).hexdigest()[:16] == m[2]]

    def clear(self) -> None:
        """Remove the checkpoints (after success) and left-over temporary files."""
        if self.folder.is_dir():
            for path in [*self._paths(), *self.folder.glob("*.tmp*")]:
                path.unlink(missing_ok=True)
            if not any(self.folder.iterdir()):
                self.folder.rmdir()

    def _paths(self) -> list[Path]:
        return sorted((p for p in self.folder.glob("step-*.safetensors") if _NAME.fullmatch(p.name)), reverse=True)
