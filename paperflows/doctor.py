"""`paperflows doctor`: is everything there that the flows need, and did a run die?"""

import importlib.util
import os
import platform
import shutil
import socket
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, NamedTuple

import typer

from paperflows.components.cores import cpu_cores
from paperflows.components.errors import ServiceError
from paperflows.launch import served
from paperflows.tasks.environment import prepare

PINNED = ("prefect", "fastapi", "mlflow", "dvc", "ray", "torch", "transformers", "datasets", "openai")
LEAST_FREE = 5e9  # bytes


class Finding(NamedTuple):
    """One line of the examination."""

    state: Literal["ok", "note", "bad"]
    what: str
    detail: str


def examine(*, fix: bool) -> int:
    """Print what was found; 0 when nothing is bad, else 3.

    Args:
        fix: close MLflow runs whose process is gone.
    """
    root = prepare()
    bad = 0
    checks: tuple[Callable[[Path], Iterator[Finding]], ...] = (
        _versions,
        _devices,
        _models,
        _repository,
        _disk,
        _servers,
    )
    for check in checks:
        for finding in check(root):
            typer.echo(f"{finding.state:<5} {finding.what:<14} {finding.detail}")
            bad += finding.state == "bad"
    for finding in _dead_runs(fix):
        typer.echo(f"{finding.state:<5} {finding.what:<14} {finding.detail}")
    return 3 if bad else 0


def _versions(root: Path) -> Iterator[Finding]:
    yield Finding("ok", "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    pins: dict[str, str] = {}
    if (root / "constraints.txt").is_file():
        lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
        pins = dict(line.split("==", 1) for line in lines if "==" in line and not line.startswith("#"))
    for name in PINNED:
        try:
            found = version(name)
        except PackageNotFoundError:
            yield Finding("bad", name, "not installed")
            continue
        wanted = pins.get(name, found)
        same = found.split("+")[0] == wanted.split("+")[0]
        yield Finding("ok" if same else "note", name, found if same else f"{found}; tested with {wanted}")


def _devices(root: Path) -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        yield Finding("ok", "device", f"{torch.cuda.get_device_name()}, bf16 {torch.cuda.is_bf16_supported()}")
    else:
        yield Finding("note", "device", f"no GPU seen by torch; {cpu_cores()} CPU cores")
    if importlib.util.find_spec("faiss") is None:
        yield Finding("note", "faiss", "not installed: pip install 'paperflows[cpu]' or 'paperflows[gpu]', not both")
    else:
        import faiss

        gpus = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
        yield Finding("ok", "faiss", f"{faiss.__version__}, {gpus} GPUs")
    there = importlib.util.find_spec("triton") is not None
    detail = version("triton") if there else "not installed; torch references are used"
    yield Finding("ok" if there else "note", "triton", detail)


def _models(root: Path) -> Iterator[Finding]:
    from paperflows.components.models.encoder import load_encoder

    try:
        vector = load_encoder("minilm", device="cpu").embed(["hello"])
        yield Finding("ok", "minilm", f"loads, width {vector.shape[1]}")
    except (OSError, ImportError, ValueError) as error:
        yield Finding("bad", "minilm", str(error).splitlines()[0])
    key = "OPENAI_API_KEY"
    yield Finding(
        "ok" if os.environ.get(key) else "note",
        "endpoint key",
        f"{key} is {'set' if os.environ.get(key) else 'not set'}",
    )


def _repository(root: Path) -> Iterator[Finding]:
    for name, folder in (("git", ".git"), ("dvc", ".dvc")):
        there = (root / folder).exists()
        yield Finding(
            "ok" if there else "note", name, "initialised" if there else f"no {folder}: runs are not versioned"
        )


def _disk(root: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(root).free
    yield Finding("ok" if free > LEAST_FREE else "note", "disk", f"{free / 1e9:.0f} GB free at {root}")


def _servers(root: Path) -> Iterator[Finding]:
    found = served(root)
    detail = ", ".join(found.values()) if found else "not running (paperflows serve)"
    yield Finding("ok" if found else "note", "servers", detail)
    if address := os.environ.get("RAY_ADDRESS"):
        yield Finding("note", "ray", f"tasks go to {address}")


def _dead_runs(fix: bool) -> Iterator[Finding]:
    """MLflow runs that are still RUNNING although their process on this machine is gone."""
    from mlflow.entities import ViewType
    from mlflow.exceptions import MlflowException

    from paperflows.tasks.tracking import client

    try:
        experiments = [e.experiment_id for e in client().search_experiments(view_type=ViewType.ACTIVE_ONLY)]
        runs = client().search_runs(experiments, "attributes.status = 'RUNNING'") if experiments else []
    except MlflowException as error:
        raise ServiceError(f"MLflow: {str(error).splitlines()[0]}") from error
    here = [run for run in runs if run.data.tags.get("paperflows.host") == socket.gethostname()]
    for run in here:
        tags = run.data.tags
        if _alive(int(tags["paperflows.pid"]), float(tags["paperflows.started"])):
            continue
        if fix:
            client().set_terminated(run.info.run_id, "KILLED")
        yield Finding(
            "note", "dead run", f"{run.info.run_name}: {'closed' if fix else 'paperflows doctor --fix closes it'}"
        )


def _alive(pid: int, started: float) -> bool:
    import psutil

    try:
        return abs(psutil.Process(pid).create_time() - started) < 1.0
    except psutil.NoSuchProcess:
        return False
