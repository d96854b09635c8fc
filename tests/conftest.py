import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
LAYERS = ("flows", "tasks", "components", "kernels")


@dataclass
class Project:
    """A copy of the repository whose code runs from the copy; every command starts a real process."""

    root: Path
    environment: dict[str, str]

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "paperflows.cli", *arguments]
        return subprocess.Popen(
            command,
            cwd=self.root,
            env={**self.environment, **more},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def run(self, *arguments: str, timeout: float = 280, **more: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **more)
        out, error = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(process.args, process.returncode, out, error)

    def dvc(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dvc", *arguments]
        return subprocess.run(command, cwd=self.root, env=self.environment, text=True, capture_output=True)

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.root / path
        text = file.read_text(encoding="utf-8")
        assert old in text, f"{path} no longer holds {old!r}"
        file.write_text(text.replace(old, new), encoding="utf-8")


def copy_project(root: Path) -> Project:
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, names):
        source, target = REPOSITORY / name, root / name
        if source.is_file() and not name.startswith(("runs/", "reports/", "docs/results/", "dvc.lock")):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    package = root / ".site" / "paperflows"
    package.mkdir(parents=True)
    for file in (root / "paperflows").iterdir():
        (package / file.name).symlink_to(file)
    for layer in LAYERS:
        (package / layer).symlink_to(root / layer)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "DVC_", "PAPERFLOWS_"))}
    environment |= {
        "PYTHONPATH": str(root / ".site"),
        "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
        "HF_HUB_OFFLINE": "1",
        "HOME": str(root),
    }
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "copy"]):
        subprocess.run(["git", *command], cwd=root, check=True, env=environment)
    return Project(root, environment)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return copy_project(tmp_path / "project")


@pytest.fixture(scope="session")
def shared_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One copy for all tests that only add runs to it."""
    return copy_project(tmp_path_factory.mktemp("shared") / "project")


@pytest.fixture
def in_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty project folder for code that runs in this process."""
    (tmp_path / "params.yaml").write_text("{}\n", encoding="utf-8")
    monkeypatch.setenv("PAPERFLOWS_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
