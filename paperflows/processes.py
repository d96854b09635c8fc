"""Server processes of this machine: started, awaited, stopped; and Prefect's own, for the length of one run."""

import http.client
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from paperflows.components.errors import ServiceError
from paperflows.components.ports import free_port

HOST = "127.0.0.1"
PATIENCE = 120.0  # seconds until a server must be healthy
GRACE = 10.0  # seconds between asking a process to stop and killing it


def wait_for(url: str, process: subprocess.Popen[bytes], stop: threading.Event | None = None) -> None:
    """Return when `url` answers, or `stop` is set.

    Raises:
        ServiceError: the process ended, or two minutes went by.
    """
    end, stop = time.monotonic() + PATIENCE, stop or threading.Event()
    while not stop.is_set():
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (OSError, http.client.HTTPException) as error:
            if process.poll() is not None or time.monotonic() > end:
                raise ServiceError(f"{url} does not answer ({error}); the logs are in .state/logs") from error
        stop.wait(0.1)


def stop_group(process: subprocess.Popen[bytes]) -> None:
    """Ask a process that leads its group, and the group, to end; then make them."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            continue


def log_file(root: Path, name: str) -> Path:
    """Where a server of the project writes what it has to say."""
    path = root / ".state" / "logs" / f"{name}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def temporary_prefect(root: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A Prefect server that is stopped at the end: its API's address, at once, and the process that will answer there.

    Prefect would start one too, but only when the flow begins, and import the whole server here to do so; this one
    starts while the caller imports what the flow needs, and ends however the caller ends: by its closed input and not
    by a Ctrl-C, which a terminal sends to the whole group, since the caller still has to report to it then.
    """
    port = free_port(HOST)
    command = [sys.executable, "-m", "paperflows.processes", str(port)]
    with log_file(root, "temporary-prefect").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=root, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield f"http://{HOST}:{port}/api", process
    finally:
        process.terminate()
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()


def _serve_prefect(port: int) -> None:
    """Prefect's server in this process, until its standard input is closed: by whoever started it, or by their end."""
    import runpy

    def watch() -> None:
        sys.stdin.buffer.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
    sys.argv = ["prefect", "server", "start", "--host", HOST, "--port", str(port), "--no-services", "--no-ui"]
    runpy.run_module("prefect", run_name="__main__")


if __name__ == "__main__":
    _serve_prefect(int(sys.argv[1]))
