"""DVC and git as seen by a run: which version this is, and how its outputs enter the DVC cache."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from paperflows.components.errors import ServiceError

LOCKED = ("Unable to acquire lock", "is busy, it is being blocked", "Failed to acquire")


def dvc(root: Path, *arguments: str, attempts: int = 8) -> str:
    """Run `dvc ARGUMENTS` at `root` and return its output, trying again while another DVC process holds the lock.

    Raises:
        ServiceError: DVC failed; the message is DVC's own.
    """
    environment = {k: v for k, v in os.environ.items() if k not in ("DVC_STAGE", "DVC_ROOT")}
    for attempt in range(attempts):
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *arguments], cwd=root, env=environment, capture_output=True, text=True
        )
        if done.returncode == 0:
            return done.stdout
        if not any(text in done.stderr for text in LOCKED):
            break
        time.sleep(0.5 * 2**attempt)
    lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
    raise ServiceError(f"dvc {' '.join(arguments)}: {lines[0]}")


def is_dvc_repository(root: Path) -> bool:
    """Whether `root` was initialised for DVC."""
    return (root / ".dvc").is_dir()


def is_ignored(root: Path, path: str) -> bool:
    """Whether git ignores a path below `root`; False outside git."""
    if shutil.which("git") is None:
        return False
    return subprocess.run(["git", "check-ignore", "-q", path], cwd=root, capture_output=True).returncode == 0


def git_revision(root: Path) -> str:
    """Short commit hash, with `+` when tracked files differ from it; "none" outside git."""
    if shutil.which("git") is None:
        return "none"
    head = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=root, capture_output=True, text=True)
    if head.returncode != 0:
        return "none"
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--"], cwd=root, capture_output=True)
    return head.stdout.strip() + ("+" if changed.returncode else "")


def commit_stage(root: Path, slug: str) -> None:
    """Record the stage's outputs in dvc.lock and the cache, so that `dvc repro SLUG` is a no-op."""
    dvc(root, "commit", "-f", slug)


def add_folder(root: Path, folder: Path) -> None:
    """Version a folder outside the pipeline (`FOLDER.dvc`, same cache)."""
    dvc(root, "add", str(folder.relative_to(root)))


def dvc_md5(folder: Path) -> str:
    """The hash by which DVC names a folder (the md5 of its listing, ending in `.dir`), computed as DVC does."""
    import hashlib
    import json

    listing = []
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                md5 = hashlib.file_digest(file, "md5").hexdigest()
            listing.append({"md5": md5, "relpath": path.relative_to(folder).as_posix()})
    listing.sort(key=lambda entry: entry["relpath"])
    return hashlib.md5(json.dumps(listing).encode()).hexdigest() + ".dir"
