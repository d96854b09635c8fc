"""Run one function on several Ray workers that talk through torch.distributed, and start again when one dies.

Plain actors rather than Ray Train: a collective operation cannot survive the loss of a member, so all members are
replaced together and agree among themselves on the checkpoint to resume from; nothing of the run but its function
crosses Ray.
"""

import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

from paperflows.components.errors import InputError, ServiceError
from paperflows.tasks.environment import project_root, settings, state_folder

log = logging.getLogger(__name__)
START_SECONDS = 120.0  # a worker imports torch and reports its address
Progress = Callable[[int, int, dict[str, float]], None]


class _Member:
    """One worker: a process with its rank, told to join the others and then to run the function."""

    def address(self) -> str:
        """Where the others find this worker."""
        import socket

        import ray

        with socket.socket() as probe:
            probe.bind(("", 0))
            return f"tcp://{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"

    def pid(self) -> int:
        """Process number, for whoever wants to see it die."""
        import os

        return os.getpid()

    def run(self, function: Callable[..., Any], arguments: dict[str, Any], rank: int, workers: int, url: str) -> Any:
        """Join the others at `url` and call `function(group=…, on_step=…, **arguments)`."""
        import torch
        import torch.distributed as dist

        self._last: tuple[int, int, dict[str, float]] | None = None
        cuda = torch.cuda.is_available()
        if not cuda:
            torch.set_num_threads(max(1, _cores() // workers))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo", init_method=url, rank=rank, world_size=workers
        )

        def on_step(step: int, total: int, metrics: dict[str, float]) -> None:
            self._last = (step, total, metrics)

        try:
            return function(group=dist.group.WORLD, on_step=on_step, device="cuda" if cuda else "cpu", **arguments)
        finally:
            dist.destroy_process_group()

    def progress(self) -> tuple[int, int, dict[str, float]] | None:
        """The last reported step, while `run` goes on in another thread."""
        return getattr(self, "_last", None)


def run_on_workers(
    function: Callable[..., Any],
    arguments: dict[str, Any],
    *,
    workers: int,
    restarts: int,
    on_progress: Progress | None = None,
    on_start: Callable[[list[int]], None] | None = None,
) -> list[Any]:
    """Results of `function` on each of `workers` Ray actors, by rank; one GPU each where the cluster has them.

    Args:
        function: importable; called with `group`, `on_step`, `device` and `arguments`, the same on every worker.
        restarts: how often all workers are started again after one died.
        on_progress: called with what worker 0 reported, about once a second.
        on_start: called with the workers' process numbers.

    Raises:
        ServiceError: the cluster has fewer cores than workers, a worker does not start, or one died too often.
        Exception: what `function` raised.
    """
    import ray

    _connect(workers)
    have = ray.cluster_resources()
    if have.get("CPU", 0) < workers:
        raise ServiceError(f"workers: {workers} need a core each, the Ray cluster has {have.get('CPU', 0):g}")
    gpus = 1 if have.get("GPU", 0) >= workers else 0
    for attempt in range(restarts + 1):
        members = _start(workers, gpus)
        try:
            if on_start:
                on_start(ray.get([m.pid.remote() for m in members]))
            return _run(members, function, arguments, on_progress)
        except ray.exceptions.RayActorError as error:
            log.warning("a worker died (%s); start %d of %d", str(error).splitlines()[0], attempt + 1, restarts + 1)
        finally:
            for member in members:
                ray.kill(member)
    raise ServiceError(f"a worker of {function.__name__} died in each of {restarts + 1} starts")


def _connect(workers: int) -> None:
    import ray

    if ray.is_initialized():
        return
    here = {name: value for name, value in settings(project_root()).items()}
    with contextlib.chdir(state_folder()):  # Ray puts the folder it is called from on its workers' import path
        ray.init(
            num_cpus=max(workers, _cores()), include_dashboard=False, log_to_driver=False, configure_logging=False,
            object_store_memory=100_000_000, _node_ip_address="127.0.0.1", runtime_env={"env_vars": here},
        )  # fmt: skip


def _start(workers: int, gpus: int) -> list[Any]:
    import ray

    kind = ray.remote(num_cpus=1, num_gpus=gpus, max_concurrency=2, max_restarts=0)(_Member)
    members = [kind.remote() for _ in range(workers)]
    try:
        ray.get([m.pid.remote() for m in members], timeout=START_SECONDS)
    except ray.exceptions.GetTimeoutError as error:
        for member in members:
            ray.kill(member)
        raise ServiceError(f"{workers} Ray workers did not start within {START_SECONDS:g} s") from error
    return members


def _run(members: list[Any], function: Any, arguments: dict[str, Any], on_progress: Progress | None) -> list[Any]:
    import ray

    url = ray.get(members[0].address.remote())
    refs = [m.run.remote(function, arguments, rank, len(members), url) for rank, m in enumerate(members)]
    seen, failed = None, []
    while not failed:
        ready, waiting = ray.wait(refs, num_returns=len(refs), timeout=0.5)
        failed = [error for ref in ready if (error := _error(ref))]
        if not failed and not waiting:
            return ray.get(refs)
        if on_progress and not failed:
            last = ray.get(members[0].progress.remote())
            if last and last != seen:
                seen = last
                on_progress(*last)
    # the others fail too, because one of them is gone: what counts is who died, or who raised first
    end = time.monotonic() + 10
    while (waiting := ray.wait(refs, num_returns=len(refs), timeout=0.5)[1]) and time.monotonic() < end:
        if any(isinstance(error, ray.exceptions.RayActorError) for error in failed):
            break
        failed = [error for ref in refs if ref not in waiting and (error := _error(ref))]
    failed += [error for ref in refs if ref not in waiting and (error := _error(ref))]
    for kind in (ray.exceptions.RayActorError, InputError):
        for error in failed:
            if isinstance(error, kind):
                raise error
    raise failed[0]


def _error(ref: Any) -> Exception | None:
    import ray

    try:
        ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        return error.cause if isinstance(error.cause, Exception) else error
    except ray.exceptions.RayActorError as error:
        return error
    return None


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0))
