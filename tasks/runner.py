"""Where mapped tasks run: one after another in this process, or on a Ray cluster."""

import contextlib
import os
from typing import Any

from paperflows.tasks.environment import project_root, settings, state_folder


def runner(address: str | None = None) -> Any:
    """Prefect's task runner for a Ray address; without one (argument or $RAY_ADDRESS) tasks take turns in one thread.

    Torch already uses all cores inside a task; two trainings at once would share its random state and its threads.

    Raises:
        InputError: an address is given and prefect-ray is not installed.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    if not address:
        from prefect.task_runners import ThreadPoolTaskRunner

        return ThreadPoolTaskRunner(max_workers=1)
    try:
        from prefect_ray import RayTaskRunner
    except ImportError as error:
        from paperflows.components.errors import InputError

        raise InputError("ray.address needs prefect-ray: pip install 'paperflows[cluster]'") from error
    import ray

    if not ray.is_initialized():
        here = {name: os.environ[name] for name in settings(project_root()) if name in os.environ}
        api = {name: os.environ[name] for name in ("PREFECT_API_URL", "PYTHONPATH") if name in os.environ}
        # Ray puts the folder it is called from on its workers' import path; ours would make `kernels` a package
        with contextlib.chdir(state_folder()):
            ray.init(address=address, log_to_driver=False, runtime_env={"env_vars": {**here, **api}})
    return RayTaskRunner()
