import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import tenacity

from . import warm

# Triton reads this when it is first imported, which other libraries do too: kernels run on the CPU, interpreted
os.environ.setdefault("TRITON_INTERPRET", "1")
# two test processes on two cores: a thread each, or the threads of one wait for the other's
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# a test that waits for a busy machine is not a failing one
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")
REPOSITORY = Path(__file__).parent.parent
LAYERS = ("flows", "tasks", "components", "kernels")


# `ray stop --force` of one test ends the Ray of any other
RAY_TESTS = {"test_ray.py", "test_workers.py", "test_rectify_router.py"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ray's first, then end-to-end tests: the short ones after them keep both processes busy to the end."""
    items.sort(key=lambda item: (item.path.name not in RAY_TESTS, "e2e" not in item.path.parts))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Under pytest-xdist a file's tests stay together, in one process that has its fixtures, and all of Ray's too.

    Marks of groups would say the same, but pytest-xdist 3.8 writes them where pytest 9.2 no longer looks.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", 1)[0]
            return "ray" if Path(file).name in RAY_TESTS else file

    config.option.loadscopereorder = False  # else files of many tests go first, whatever they take
    return ByFile(config, log)


@dataclass
class Project:
    """A copy of the repository whose code runs from the copy; every command is a process of its own."""

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
        return warm.run(list(arguments), root=self.root, environment={**self.environment, **more}, timeout=timeout)

    def make_laptop_small(self, **changes: Any) -> None:
        """params.yaml with the values of the smoke profile, one seed and `changes` of claif: a reproducible run is fast."""
        import yaml

        def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
            both = {
                k: merge(base[k], v) if isinstance(v, dict) and isinstance(base.get(k), dict) else v
                for k, v in over.items()
            }
            return {**base, **both}

        values = yaml.safe_load((self.root / "params.yaml").read_text())
        smoke = yaml.safe_load((self.root / "params" / "smoke.yaml").read_text())
        values["claif"] = merge(merge(values["claif"], smoke["claif"]), {"seeds": [0], **changes})
        (self.root / "params.yaml").write_text(yaml.safe_dump(values))

    def dvc(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dvc", *arguments]
        return subprocess.run(command, cwd=self.root, env=self.environment, text=True, capture_output=True)

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.root / path
        text = file.read_text(encoding="utf-8")
        assert old in text, f"{path} no longer holds {old!r}"
        file.write_text(text.replace(old, new), encoding="utf-8")


def own_environment() -> dict[str, str]:
    """Without the settings of another project, which code that ran in this process may have left."""
    others = ("PREFECT_", "MLFLOW_", "DVC_", "PAPERFLOWS_")
    return {name: value for name, value in os.environ.items() if not name.startswith(others)}


@cache
def empty_mlflow() -> Path:
    """An MLflow database without a run: making its tables takes seconds, which each project would spend."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    folder = Path(tempfile.mkdtemp(prefix="mlflow"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    SqlAlchemyStore(f"sqlite:///{folder / 'mlflow.db'}", str(folder))
    return folder / "mlflow.db"


def copy_project(root: Path) -> Project:
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, names):
        source, target = REPOSITORY / name, root / name
        if source.is_file() and not name.startswith(("runs/", "reports/", "docs/results/", "dvc.lock")):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    shutil.copyfile(empty_mlflow(), root / "mlflow.db")
    package = root / ".site" / "paperflows"
    package.mkdir(parents=True)
    for file in (root / "paperflows").iterdir():
        (package / file.name).symlink_to(file)
    for layer in LAYERS:
        (package / layer).symlink_to(root / layer)
    environment = own_environment() | {
        "PYTHONPATH": str(root / ".site"),
        "PYTHONSAFEPATH": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
        "HOME": str(root),
    }
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "copy"],
    ):
        subprocess.run(["git", *command], cwd=root, check=True, env=environment)
    return Project(root, environment)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return copy_project(tmp_path / "project")


@dataclass
class Served:
    """`paperflows serve` in a project of its own: the one Prefect and the one MLflow server of a test run."""

    project: Project
    urls: dict[str, str]
    process: subprocess.Popen[str]

    def prefect(self, path: str, body: dict[str, Any] | None = None) -> Any:
        return self._json(f"{self.urls['prefect']}/api/{path}", body)

    def mlflow(self, path: str, body: dict[str, Any] | None = None) -> Any:
        return self._json(f"{self.urls['mlflow']}/api/2.0/mlflow/{path}", body)

    # Prefect answers 503 where its database is locked for a while; its own client asks again
    @staticmethod
    @tenacity.retry(
        retry=tenacity.retry_if_exception(lambda error: getattr(error, "code", None) == 503),
        stop=tenacity.stop_after_delay(60), wait=tenacity.wait_fixed(1), reraise=True,
    )  # fmt: skip
    def _json(url: str, body: dict[str, Any] | None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.load(reply)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    from paperflows.components.ports import free_port

    project = copy_project(tmp_path_factory.mktemp("served") / "project")
    process = project.start("serve", "--port", str(free_port(row=3)))
    announced = project.root / ".state" / "served.json"
    wait_until(lambda: announced.exists() or process.poll() is not None, 180)
    if process.poll() is not None:
        raise AssertionError(f"serve ended: {process.communicate()}")
    yield Served(project, json.loads(announced.read_text()), process)
    if process.poll() is None:
        os.kill(process.pid, signal.SIGINT)
        process.wait(60)


def wait_until(true: Callable[[], Any], seconds: float) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := true():
            return value
        time.sleep(0.1)
    raise AssertionError(f"did not happen within {seconds} s")


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Prefect server and nothing else: all that `paperflows serve` starts takes four times as long."""
    from paperflows.processes import temporary_prefect, wait_for
    from paperflows.tasks.environment import settings

    root = tmp_path_factory.mktemp("prefect")
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in settings(root).items():
                patch.setenv(name, value)
            url, process = stack.enter_context(temporary_prefect(root))
        wait_for(f"{url}/health", process)
        yield url


@pytest.fixture
def connected(project: Project, prefect_api: str) -> Project:
    """A project of its own whose runs are recorded by the test run's Prefect server (starting one takes ten seconds)."""
    project.environment["PREFECT_API_URL"] = prefect_api
    return project


@pytest.fixture
def in_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty project folder for code that runs in this process."""
    (tmp_path / "params.yaml").write_text("{}\n", encoding="utf-8")
    monkeypatch.setenv("PAPERFLOWS_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
