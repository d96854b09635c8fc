"""Progress of a long step: a bar in the terminal, a progress artifact in the Prefect UI, at most once a second."""

import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext

from paperflows.tasks.runner import is_ending

log = logging.getLogger(__name__)


@contextmanager
def progress(label: str, *, every: float = 1.0) -> Iterator[Callable[[int, int], None]]:
    """Yield `report(done, total)`; cheap to call often. It ends a task whose flow was interrupted.

    Args:
        label: shown beside the bar; also the artifact's key (lower case, dashes).
        every: least seconds between two updates of the artifact.
    """
    key = re.sub(r"[^a-z0-9]+", "-", f"progress {label}".lower()).strip("-")
    in_task = TaskRunContext.get() is not None
    artifact: UUID | None = None
    last, started = 0.0, time.monotonic()
    terminal = sys.stderr.isatty()

    def report(done: int, total: int) -> None:
        nonlocal artifact, last
        if is_ending():
            raise KeyboardInterrupt
        now = time.monotonic()
        if now - last < every and done < total:
            return
        last = now
        share = 100.0 * done / max(1, total)
        if terminal:
            left = (now - started) * (total - done) / max(1, done)
            bar = "█" * int(share / 5) + "·" * (20 - int(share / 5))
            sys.stderr.write(f"\r\033[K{label[:48]:<48} {bar} {share:3.0f} %  {left:4.0f} s left")
            sys.stderr.flush()
        if in_task and now - started >= every:
            if artifact is None:
                options: dict[str, Any] = {"key": key, "description": label, "_sync": True}
                artifact = create_progress_artifact(progress=share, **options)  # type: ignore[assignment]
            else:
                update_progress_artifact(artifact, progress=share, _sync=True)  # type: ignore[call-arg]

    try:
        yield report
    finally:
        if terminal:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
        log.info("%s: %.1f s", label, time.monotonic() - started)
