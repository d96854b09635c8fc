"""MLflow: one experiment a paper, a parent run a flow run, a child run a method and seed, all by explicit ids.

The parent is found by the tag `prefect.flow_run_id`, so a task in another process or on a Ray worker finds it too.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paperflows.components.errors import ServiceError

if TYPE_CHECKING:  # it takes seconds to import, which a run with a wrong parameter need not wait for
    from mlflow import MlflowClient
    from mlflow.entities import Metric

log = logging.getLogger(__name__)
FLOW_RUN_TAG = "prefect.flow_run_id"
PARENT_TAG = "mlflow.parentRunId"


@lru_cache(maxsize=1)
def client() -> "MlflowClient":
    """The tracking client of $MLFLOW_TRACKING_URI."""
    from mlflow import MlflowClient

    return MlflowClient(os.environ["MLFLOW_TRACKING_URI"])


def open_parent(slug: str, *, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
    """Start the parent run of a flow run in the paper's experiment and return its id.

    Raises:
        ServiceError: the tracking server or database does not answer.
    """
    from mlflow.exceptions import MlflowException

    try:
        found = client().get_experiment_by_name(slug)
        if found is None:
            root = Path(os.environ["PAPERFLOWS_ROOT"])
            local = os.environ["MLFLOW_TRACKING_URI"].startswith("sqlite")
            experiment = client().create_experiment(slug, (root / "mlartifacts" / slug).as_uri() if local else None)
        else:
            experiment = found.experiment_id
        return _open(experiment, name, params, {**tags, **_process_tags()})
    except MlflowException as error:
        raise ServiceError(f"MLflow at {os.environ['MLFLOW_TRACKING_URI']}: {str(error).splitlines()[0]}") from error


class Recorder:
    """Step metrics of one child run, sent in batches at most every two seconds so that training does not wait."""

    def __init__(self, run_id: str, *, every: float = 2.0) -> None:
        self.run_id, self._every, self._last = run_id, every, time.monotonic()
        self._pending: list[Metric] = []

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record `values` at `step`."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._pending += [Metric(key, float(value), now, step) for key, value in values.items()]
        if time.monotonic() - self._last >= self._every:
            self.flush()

    def flush(self) -> None:
        """Send what is waiting; a server that is gone costs these metrics, is named in a warning, stops nothing."""
        from mlflow.exceptions import MlflowException

        pending, self._pending, self._last = self._pending, [], time.monotonic()
        if not pending:
            return
        try:
            client().log_batch(self.run_id, metrics=pending)
        except MlflowException as error:
            log.warning("MLflow lost %d metrics of run %s: %s", len(pending), self.run_id, str(error).splitlines()[0])


@contextmanager
def child(name: str, params: Mapping[str, Any]) -> Iterator[Recorder]:
    """A child of the current flow run's parent; marked FAILED when the body raises, KILLED when it is interrupted."""
    parent = parent_of_flow_run()
    info = client().get_run(parent).info
    recorder = Recorder(_open(info.experiment_id, name, params, {PARENT_TAG: parent, **_process_tags()}))
    try:
        yield recorder
    except BaseException as error:
        recorder.flush()
        client().set_terminated(recorder.run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    recorder.flush()
    client().set_terminated(recorder.run_id, "FINISHED")


def trace_calls(stage: str, *, most: int = 200) -> Callable[[Any, list[Any]], None]:
    """An observer of language model calls that traces the first `most` of a stage to the paper's experiment.

    Prompts and replies are traced, keys never reach this place. What MLflow does not take is named in a warning.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    experiment = client().get_run(parent_of_flow_run()).info.experiment_id
    traced = 0

    def observe(request: Any, completions: list[Any]) -> None:
        nonlocal traced
        if traced >= most:
            return
        traced += 1
        try:
            span = mlflow.start_span_no_context(
                f"{stage} {request.model}", "LLM", inputs=request.model_dump(mode="json"), experiment_id=experiment
            )
            span.end(outputs=[completion.model_dump(mode="json") for completion in completions])
        except MlflowException as error:
            traced = most
            log.warning("MLflow takes no traces of stage %s: %s", stage, str(error).splitlines()[0])

    return observe


def replay_child(name: str, params: Mapping[str, Any], history: list[dict[str, float]]) -> None:
    """A child run for a result that came from the cache: its recorded history, tagged `cached`."""
    with child(name, params) as recorder:
        client().set_tag(recorder.run_id, "cached", "true")
        for point in history:
            recorder.metrics(int(point["step"]), {k: v for k, v in point.items() if k != "step"})


def children(parent: str) -> set[str]:
    """Names of the child runs that `parent` has."""
    experiment = client().get_run(parent).info.experiment_id
    found = client().search_runs([experiment], f"tags.`{PARENT_TAG}` = '{parent}'", max_results=1000)
    return {run.info.run_name for run in found}


def parent_of_flow_run() -> str:
    """Id of the parent run of the flow run that this code runs in.

    Raises:
        ServiceError: there is none (the flow did not open one, or MLflow lost it).
    """
    from prefect.runtime import flow_run

    return _parent(str(flow_run.id))


@lru_cache(maxsize=64)
def _parent(flow_run_id: str) -> str:
    experiments = [e.experiment_id for e in client().search_experiments()]
    found = client().search_runs(experiments, f"tags.`{FLOW_RUN_TAG}` = '{flow_run_id}'", max_results=1)
    if not found:
        raise ServiceError(f"MLflow at {os.environ['MLFLOW_TRACKING_URI']} has no run of flow run {flow_run_id}")
    return found[0].info.run_id


def close_parent(
    run_id: str, *, metrics: Mapping[str, float], tags: Mapping[str, str], files: Callable[[], list[Path]]
) -> None:
    """Log final metrics, tags and files (each below its folder's name) and finish the run."""
    from mlflow.entities import Metric, RunTag

    now = int(time.time() * 1000)
    items = [Metric(key, float(value), now, 0) for key, value in metrics.items()]
    for start in range(0, len(items), 500):
        client().log_batch(run_id, metrics=items[start : start + 500])
    client().log_batch(run_id, tags=[RunTag(k, v) for k, v in tags.items()])
    for path in files():
        if path.is_dir():
            client().log_artifacts(run_id, str(path), path.name)
        else:
            client().log_artifact(run_id, str(path))
    client().set_terminated(run_id, "FINISHED")


def _open(experiment: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
    from mlflow.entities import Param

    run = client().create_run(experiment, run_name=name, tags=dict(tags))
    flat = [Param(key, str(value)[:5900]) for key, value in _flatten(params)]
    client().log_batch(run.info.run_id, params=flat[:100])
    for start in range(100, len(flat), 100):
        client().log_batch(run.info.run_id, params=flat[start : start + 100])
    return run.info.run_id


def _process_tags() -> dict[str, str]:
    import psutil

    process = psutil.Process()
    return {
        "paperflows.pid": str(process.pid),
        "paperflows.started": str(process.create_time()),
        "paperflows.host": socket.gethostname(),
        "mlflow.source.name": "paperflows",
        "mlflow.user": os.environ.get("USER", "unknown"),
    }


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
