"""Artifacts: folders named by the hash of their content, written once, verified before use."""

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

from paperflows.components.errors import InputError, ServiceError
from paperflows.tasks.environment import state_folder

# what a claim reads of an artifact, by dataset; here, so that no training hangs on how verdicts are decided
OUTPUTS = "outputs.safetensors"
GOLD = "gold.safetensors"
GROUPS = "groups.safetensors"


class Artifact(TypedDict):
    """A stored folder; small enough to be a task's result. Two artifacts are equal when their sha256 are."""

    path: str
    sha256: str


def folder_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of all files below `folder`."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                content.update(block)
        digest.update(f"{path.relative_to(folder).as_posix()}\0{content.hexdigest()}\n".encode())
    return digest.hexdigest()


@contextmanager
def new_artifact() -> Iterator[tuple[Path, Artifact]]:
    """Yield a folder to fill and the artifact it becomes; nothing is stored when the body fails.

    Raises:
        ServiceError: the disk is full or not writable (the folder is named; nothing half-written stays).
    """
    store = state_folder() / "store"
    building = state_folder() / "build" / uuid.uuid4().hex
    artifact = Artifact(path="", sha256="")
    try:
        building.mkdir(parents=True)
        yield building, artifact
        sha256 = folder_digest(building)
        final = store / sha256[:2] / sha256
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists() and folder_digest(final) != sha256:
            shutil.rmtree(final)
        if not final.exists():
            _sync(building)
            building.rename(final)
        artifact["path"], artifact["sha256"] = str(final), sha256
    except OSError as error:
        raise ServiceError(f"cannot write below {state_folder()}: {error.strerror} ({error.filename})") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def open_artifact(artifact: Artifact) -> Path:
    """The folder of an artifact, its content verified.

    Raises:
        InputError: it is gone or its content changed (delete .state/results to compute it again).
    """
    folder = Path(artifact["path"])
    if not intact(artifact):
        raise InputError(f"artifact {folder} is gone or damaged; start the flow again to compute it anew")
    return folder


def intact(artifact: Artifact) -> bool:
    """Whether the stored content still matches its hash."""
    folder = Path(artifact["path"])
    return folder.is_dir() and folder_digest(folder) == artifact["sha256"]


def artifacts_in(value: Any) -> list[Artifact]:
    """All artifacts inside a JSON value."""
    if isinstance(value, dict):
        if {"path", "sha256"} <= value.keys():
            return [Artifact(path=value["path"], sha256=value["sha256"])]
        return [a for item in value.values() for a in artifacts_in(item)]
    if isinstance(value, list | tuple):
        return [a for item in value for a in artifacts_in(item)]
    return []


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
