"""How every task of this project behaves: remembered by its inputs and by the code it can reach, results as JSON."""

import hashlib
import json
import logging
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import CacheKeyFnPolicy
from prefect.context import TaskRunContext
from prefect.settings import get_current_settings
from pydantic import BaseModel

from paperflows.tasks.closure import closure_digest
from paperflows.tasks.store import artifacts_in, intact

log = logging.getLogger(__name__)


def cached_task(
    *, retries: int = 0, retry_on: tuple[type[Exception], ...] = (), **options: Any
) -> Callable[[Any], Any]:
    """A Prefect task whose JSON result is kept across runs and processes.

    The key is the task's name, its inputs (artifacts by content hash, wherever they lie; folders of models by their
    files' names, sizes and times) and the code of its module's import closure.

    Args:
        retries: how often to try again after an exception of `retry_on`, unless it says that it does not pass, with
            exponential delay.
    """

    def wrap(function: Any) -> Any:
        @wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            try:
                json.dumps(result, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise TypeError(f"task {options['name']}: its result cannot be kept as JSON: {error}") from error
            return result

        keep: Any = checked
        return task(
            keep,
            cache_policy=CacheKeyFnPolicy(cache_key_fn=cache_key),
            persist_result=True,
            result_serializer="json",
            retries=retries,
            retry_delay_seconds=[2.0**n for n in range(1, retries + 1)] or None,
            retry_condition_fn=(lambda _task, _run, state: _is(state, retry_on)) if retries else None,
            **options,
        )

    return wrap


def cache_key(context: TaskRunContext, parameters: dict[str, Any]) -> str:
    """Key of a task call; a remembered result whose artifacts are gone or damaged is forgotten first."""
    function = context.task.fn
    inputs = json.dumps(_stable(parameters, context.task.name), sort_keys=True, ensure_ascii=False)
    digest = hashlib.sha256(f"{closure_digest(function.__module__)}\n{inputs}".encode()).hexdigest()
    key = f"{context.task.name}-{digest[:32]}"
    _forget_if_damaged(get_current_settings().results.local_storage_path / key)
    return key


def current_key() -> str:
    """Key of the task that is running: the name of its checkpoints' folder."""
    context = TaskRunContext.get()
    if context is None:
        raise RuntimeError("current_key() outside a task")
    return cache_key(context, context.parameters)


def _stable(value: Any, task_name: str) -> Any:
    """`value` as plain JSON; artifacts by hash alone."""
    if isinstance(value, BaseModel):
        return _stable(value.model_dump(mode="json"), task_name)
    if isinstance(value, dict):
        keep = value.keys() - {"path"} if "sha256" in value else value.keys()
        return {str(k): _stable(value[k], task_name) for k in sorted(keep)}
    if isinstance(value, list | tuple):
        return [_stable(item, task_name) for item in value]
    if isinstance(value, str) and (folder := _model_folder(value)):
        return [value, state_of(folder)]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"task {task_name}: a {type(value).__name__} cannot be an input (pass JSON values and artifacts)")


def state_of(folder: Path) -> str:
    """Names, sizes and times of all files below a folder: when they are as before, its content is taken to be."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return " ".join(f"{p.relative_to(folder).as_posix()}:{p.stat().st_size}:{p.stat().st_mtime_ns}" for p in files)


def _model_folder(text: str) -> Path | None:
    """The folder of a user's model that `text` names; a name without a separator is the hub's or our own."""
    named = "/" in text or text.startswith(".")
    # a long text with a slash is an input like any other: this asks of it without an error, `Path.is_file` with one
    return Path(text) if named and os.path.isfile(os.path.join(text, "config.json")) else None  # noqa: PTH113, PTH118


def _forget_if_damaged(record: Path) -> None:
    if not record.is_file():
        return
    try:
        result = json.loads(json.loads(record.read_text(encoding="utf-8"))["result"])
        if all(intact(a) for a in artifacts_in(result)):
            return
        log.warning("result %s: its artifact is gone or damaged; computing it again", record.name)
    except (ValueError, KeyError, TypeError) as error:
        log.warning("result %s is unreadable (%s); computing it again", record.name, error)
    record.unlink(missing_ok=True)


def _is(state: Any, kinds: tuple[type[Exception], ...]) -> bool:
    try:
        state.result()
    except kinds as error:
        return bool(getattr(error, "passing", True))
    except Exception:
        return False
    return False
