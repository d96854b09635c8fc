"""`paperflows serve`: Prefect server, one worker, MLflow and the report page on loopback, until Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import typer

from paperflows.components.errors import ServiceError
from paperflows.components.ports import require_free
from paperflows.launch import SERVED
from paperflows.ledger import build_ledger
from paperflows.processes import HOST, PATIENCE, log_file, stop_group, wait_for
from paperflows.sync import POOL
from paperflows.tasks.environment import prepare, settings


def serve_all(*, port: int) -> None:
    """Start everything, say the addresses, wait for Ctrl-C or for a part to fail, and stop everything.

    Args:
        port: of the report page; Prefect takes the next, MLflow the one after.

    Raises:
        ServiceError: a port is taken, or a part does not start or stops (its log is named).
    """
    root = prepare()
    for taken in range(port, port + 3):
        require_free(taken, "choose three free ones with --port")
    urls = {
        "report": f"http://{HOST}:{port}",
        "prefect": f"http://{HOST}:{port + 1}",
        "mlflow": f"http://{HOST}:{port + 2}",
    }
    environment = {
        **os.environ,
        **settings(root),
        "MLFLOW_TRACKING_URI": os.environ["MLFLOW_TRACKING_URI"],
        "PREFECT_API_URL": f"{urls['prefect']}/api",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_LOGGING_LEVEL": "INFO",
    }
    python, store = sys.executable, os.environ["MLFLOW_TRACKING_URI"]
    commands = {
        "prefect": [python, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port + 1)],
        "mlflow": [python, "-m", "mlflow", "server", "--host", HOST, "--port", str(port + 2), "--workers", "1",
                   "--backend-store-uri", store, "--artifacts-destination", str(root / "mlartifacts")],
    }  # fmt: skip
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with _processes(root, environment) as start:
        servers = {name: start(name, command) for name, command in commands.items()}
        wait_for(f"{urls['prefect']}/api/health", servers["prefect"], stop)
        for step in _deployment_steps(python):
            if stop.is_set():
                return
            _once(root, environment, step)
        worker = start("worker", [python, "-m", "prefect", "worker", "start", "--pool", POOL, "--name", "local"])
        wait_for(f"{urls['mlflow']}/health", servers["mlflow"], stop)
        _wait_for_worker(urls["prefect"], worker, stop)
        with _report_page(root, port, urls), _announced(root, urls):
            if not stop.is_set():
                typer.echo(
                    f"report page  {urls['report']}\nPrefect      {urls['prefect']}\nMLflow       {urls['mlflow']}"
                )
                typer.echo("start or schedule a flow under Deployments in Prefect; Ctrl-C stops everything")
            while not stop.wait(1.0):
                for name, process in {**servers, "worker": worker}.items():
                    if process.poll() is not None:
                        raise ServiceError(f"{name} stopped with code {process.returncode}: see {log_file(root, name)}")
        typer.echo("stopping")


def _deployment_steps(python: str) -> Iterator[list[str]]:
    yield [python, "-m", "prefect", "work-pool", "create", POOL, "--type", "process", "--overwrite"]
    yield [python, "-m", "prefect", "deploy", "--all"]
    yield [python, "-m", "paperflows.automations"]


@contextmanager
def _processes(root: Path, environment: dict[str, str]) -> Iterator[Any]:
    """Yield `start(name, command)`; all that were started are stopped at the end, with what they started."""
    running: dict[str, subprocess.Popen[bytes]] = {}

    def start(name: str, command: list[str]) -> subprocess.Popen[bytes]:
        with log_file(root, name).open("wb") as log:
            running[name] = subprocess.Popen(
                command,
                cwd=root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return running[name]

    try:
        yield start
    finally:
        for process in reversed(running.values()):
            stop_group(process)


def _once(root: Path, environment: dict[str, str], command: list[str]) -> None:
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise ServiceError(f"{' '.join(command[2:])}: {lines[-1] if lines else done.returncode}")


def _wait_for_worker(prefect: str, process: subprocess.Popen[bytes], stop: threading.Event) -> None:
    end = time.monotonic() + PATIENCE
    request = urllib.request.Request(
        f"{prefect}/api/work_pools/{POOL}/workers/filter", data=b"{}", headers={"Content-Type": "application/json"}
    )
    while not stop.is_set():
        with urllib.request.urlopen(request, timeout=10) as reply:
            if any(worker["status"] == "ONLINE" for worker in json.load(reply)):
                return
        if process.poll() is not None or time.monotonic() > end:
            raise ServiceError("the worker does not start: see .state/logs/worker.log")
        stop.wait(0.3)


@contextmanager
def _report_page(root: Path, port: int, urls: dict[str, str]) -> Iterator[None]:
    """Serve the ledger, built anew for every visit; nothing else of the disk."""
    allowed = {f"{HOST}:{port}", f"localhost:{port}"}

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Host") not in allowed or self.path.split("?")[0] not in ("/", "/index.html"):
                self.send_error(404)
                return
            content = build_ledger(root, links=urls).read_bytes()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Visits are not logged."""

    server = ThreadingHTTPServer((HOST, port), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def _announced(root: Path, urls: dict[str, str]) -> Iterator[None]:
    """While the body runs, `paperflows run` finds the servers."""
    (root / SERVED).write_text(json.dumps(urls), encoding="utf-8")
    try:
        yield
    finally:
        (root / SERVED).unlink(missing_ok=True)
