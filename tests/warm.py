"""Commands in processes forked from one that has imported the large libraries: half of a smoke run is imports.

Each is a process of its own with its own environment, folder and output, as if started by a shell. What needs a real
start (signals, servers, `paperflows --help`) uses `Project.start`.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from multiprocessing import forkserver
from pathlib import Path
from runpy import run_path
from unittest.mock import patch

# what nearly every run imports
LIBRARIES = [
    "prefect",
    "prefect.task_engine",
    "prefect.flow_engine",
    "prefect.futures",
    "mlflow.store.tracking.sqlalchemy_store",
    "torch",
    "torch._dynamo",
    "transformers.models.bert.modeling_bert",
    "transformers.generation.utils",
    "sklearn.linear_model",
    "scipy.stats",
    "matplotlib.pyplot",
    "tokenizers",
]


def run(
    arguments: list[str], *, root: Path, environment: dict[str, str], timeout: float, program: str = ""
) -> subprocess.CompletedProcess[str]:
    """`paperflows` with `arguments` in the project at `root`.

    Args:
        program: a file of Python that runs instead.

    Raises:
        subprocess.TimeoutExpired: it was ended after `timeout` seconds.
    """
    from paperflows.tasks.environment import settings  # not above: the new process imports the package of its project

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    with patch.dict(os.environ, settings(root) | environment):  # libraries read their settings once
        forkserver.ensure_running()
    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder) / name) for name in ("out", "error")]
        given = {"command": (arguments, str(root), environment, *files, program)}
        process = context.Process(target=run_path, args=(__file__, given, "__main__"))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(arguments, timeout)
        out, error = (Path(file).read_text(encoding="utf-8") for file in files)
        return subprocess.CompletedProcess(arguments, process.exitcode, out, error)


def _command(arguments: list[str], root: str, environment: dict[str, str], out: str, error: str, program: str) -> None:
    assert "paperflows" not in sys.modules, "the package must come from the project's copy"
    for number, file in ((1, out), (2, error)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, encoding="utf-8", closefd=False) for number in (1, 2))
    os.setsid()
    os.chdir(root)
    os.environ.clear()
    os.environ.update(environment)
    repository = str(Path(__file__).parent.parent)
    own = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [*filter(None, own), *(path for path in sys.path if path not in ("", repository))]
    sys.argv = ["paperflows", *arguments]

    from paperflows.tasks.environment import prepare

    prepare()
    from prefect.context import refresh_global_settings_context

    refresh_global_settings_context()
    if program:
        run_path(program, run_name="__main__")
        return
    from paperflows.cli import main

    main()


if __name__ == "__main__":  # in the new process, which knows no package `tests`
    _command(*globals()["command"])
