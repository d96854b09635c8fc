"""Where the project is, where it keeps its state, and the settings of the tools it stands on.

`prepare` must run before prefect, mlflow, transformers or ray are imported: they read their settings at import.
"""

import os
from pathlib import Path

from paperflows.components.errors import InputError

MARKER = "params.yaml"


def project_root() -> Path:
    """The folder of `params.yaml`: $PAPERFLOWS_ROOT, or the working directory or its nearest parent that has one.

    Raises:
        InputError: there is none.
    """
    given = os.environ.get("PAPERFLOWS_ROOT")
    candidates = [Path(given)] if given else [Path.cwd(), *Path.cwd().parents]
    for folder in candidates:
        if (folder / MARKER).is_file():
            return folder.resolve()
    raise InputError(f"no {MARKER} in {candidates[0]} or above it: run inside the project, or set PAPERFLOWS_ROOT")


def state_folder() -> Path:
    """Working state that may be deleted at any time: task results, checkpoints, caches, Prefect's home."""
    return project_root() / ".state"


def settings(root: Path) -> dict[str, str]:
    """The settings of Prefect, MLflow, Ray, DVC and transformers for a project at `root`."""
    state = root / ".state"
    return {
        "PAPERFLOWS_ROOT": str(root),
        # with `python -m` the project's folders would become top-level packages; transformers would import `kernels`
        "PYTHONSAFEPATH": "1",
        "PREFECT_HOME": str(state / "prefect"),
        "PREFECT_LOCAL_STORAGE_PATH": str(state / "results"),
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # 20 are too few on a busy machine
        "PREFECT_LOGGING_EXTRA_LOGGERS": "paperflows",
        "PREFECT_CLI_PROMPT": "false",
        "DO_NOT_TRACK": "1",
        "MLFLOW_TRACKING_URI": f"sqlite:///{root / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven processes for MLflow's own evaluation jobs
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray gives its workers the lowest priority by default; a training should not wait for every other program
        "RAY_worker_niceness": "0",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(state / "dvc"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "true",
        "MPLBACKEND": "Agg",
    }


def prepare(*, quiet: bool = True) -> Path:
    """Set what is not set yet and return the project's root; `quiet` keeps Prefect's log to warnings."""
    root = project_root()
    (root / ".state" / "prefect").mkdir(parents=True, exist_ok=True)
    values = settings(root)
    if quiet:
        values["PREFECT_LOGGING_LEVEL"] = "WARNING"
    for name, value in values.items():
        os.environ.setdefault(name, value)
    return root
