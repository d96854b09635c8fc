"""Where mapped tasks run: one after another in this process, or on a Ray cluster."""

import contextlib
import os
import socket
import threading
from typing import Any
from urllib.parse import urlsplit

from prefect.task_runners import ThreadPoolTaskRunner

from paperflows.components.errors import InputError, ServiceError
from paperflows.tasks.environment import project_root, settings, state_folder

_ENDING = threading.Event()


class Turns(ThreadPoolTaskRunner):
    """Tasks in threads, of which the one that runs is told when the flow ends without it: Prefect waits for it."""

    def cancel_all(self) -> None:
        """End what waits, and what runs when it next asks `is_ending`; return when it has ended."""
        _ENDING.set()
        try:
            super().cancel_all()
        finally:
            _ENDING.clear()


def is_ending() -> bool:
    """Whether the flow of this process was interrupted or failed, so that nobody waits for the task that runs."""
    return _ENDING.is_set()


def runner(address: str | None = None) -> Any:
    """Prefect's task runner for a Ray address; without one (argument or $RAY_ADDRESS) tasks take turns in one thread.

    Torch already uses all cores inside a task; two trainings at once would share its random state and its threads.

    Raises:
        InputError: the address is none, or prefect-ray is not installed.
        ServiceError: there is no Ray cluster at the address, or it does not let us in.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    if not address:
        return Turns(max_workers=1)
    try:
        from prefect_ray import RayTaskRunner
    except ImportError as error:
        raise InputError("ray.address needs prefect-ray: pip install 'paperflows[cluster]'") from error
    import ray

    if not ray.is_initialized():
        _knock(address)
        here = {name: os.environ[name] for name in settings(project_root()) if name in os.environ}
        api = {name: os.environ[name] for name in ("PREFECT_API_URL", "PYTHONPATH") if name in os.environ}
        # Ray puts the folder it is called from on its workers' import path; ours would make `kernels` a package
        try:
            with contextlib.chdir(state_folder()):
                ray.init(address=address, log_to_driver=False, runtime_env={"env_vars": {**here, **api}})
        except (ConnectionError, ray.exceptions.AuthenticationError) as error:
            if "oken" in f"{error} {error.__cause__}":  # Ray takes one to an address it was given only when told to
                raise ServiceError(f"Ray at {address} wants its token: set RAY_AUTH_MODE=token") from error
            raise ServiceError(f"Ray at {address} cannot be reached: {str(error).splitlines()[0]}") from error
    return RayTaskRunner()


def _knock(address: str) -> None:
    """Ray itself waits for ever at an address where nobody answers."""
    if address == "auto":
        return
    try:
        parts = urlsplit(address if "//" in address else f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise InputError(f"ray.address: {address!r} is not HOST:PORT")
    try:
        socket.create_connection((host, port), timeout=10).close()
    except OSError as error:
        raise ServiceError(f"Ray at {address} cannot be reached: {error}") from error
