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

from paperflows.components.cores import cpu_cores
from paperflows.components.errors import InputError, ServiceError
from paperflows.components.ports import free_port
from paperflows.tasks.environment import project_root, settings, state_folder

log = logging.getLogger(__name__)
START_SECONDS = 120.0  # a worker imports torch and reports its address
WAIT_SECONDS = 24 * 3600.0  # for a place on a cluster that is busy with others
# members that ended their last function well, by their number and GPUs, with their place: the next function need not
# wait for torch again. Only where this process started Ray, since on a cluster others wait for the place.
_POOL: dict[tuple[int, int], tuple[list[Any], Any]] = {}
_STARTED_HERE: list[bool] = []
Progress = Callable[[int, int, dict[str, float]], None]


class _Member:
    """One worker: a process with its rank, told to join the others and then to run the function."""

    def address(self) -> str:
        """Where the others find this worker."""
        import ray

        return f"tcp://{ray.util.get_node_ip_address()}:{free_port('')}"

    def pid(self) -> int:
        """Process number, for whoever wants to see it die."""
        import os

        return os.getpid()

    def run(
        self, function: Callable[..., Any], arguments: dict[str, Any], rank: int, workers: int, url: str, cuda: bool
    ) -> Any:
        """Join the others at `url` and call `function(group=…, on_step=…, device=…, **arguments)`."""
        import torch
        import torch.distributed as dist

        self._last: tuple[int, int, dict[str, float]] | None = None
        if not cuda:
            torch.set_num_threads(max(1, cpu_cores() // workers))
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
    device: str = "auto",
    on_progress: Progress | None = None,
    on_start: Callable[[list[int]], None] | None = None,
) -> list[Any]:
    """Results of `function` on each of `workers` Ray actors, by rank.

    Args:
        function: importable; called with `group`, `on_step`, `device` and `arguments`, the same on every worker.
        restarts: how often all workers are started again after one died.
        device: "cuda" gives each worker a GPU, "cpu" none, "auto" one where the cluster has as many.
        on_progress: called with what worker 0 reported, about once a second.
        on_start: called with the workers' process numbers.

    Raises:
        ServiceError: the cluster has fewer cores (or, for "cuda", GPUs) than workers, a worker does not start, or one
            died too often.
        Exception: what `function` raised.
    """
    import ray

    alone = _connect()
    have = ray.cluster_resources()
    if have.get("CPU", 0) < workers:
        raise ServiceError(f"workers: {workers} need a core each, the Ray cluster has {have.get('CPU', 0):g}")
    if device == "cuda" and have.get("GPU", 0) < workers:
        raise ServiceError(f"device: {workers} workers need a GPU each, the Ray cluster has {have.get('GPU', 0):g}")
    gpus = 1 if device != "cpu" and have.get("GPU", 0) >= workers else 0
    for attempt in range(restarts + 1):
        key = (workers, gpus)
        members, place = _POOL.pop(key) if key in _POOL else _start(workers, gpus)
        keep = False
        try:
            if on_start:
                on_start(ray.get([m.pid.remote() for m in members]))
            results = _run(members, function, arguments, bool(gpus), on_progress)
            keep = alone
            return results
        except ray.exceptions.RayActorError as error:
            log.warning("a worker died (%s); start %d of %d", str(error).splitlines()[0], attempt + 1, restarts + 1)
        finally:
            if keep:
                _POOL[key] = members, place
            else:
                _end(members, place)
    raise ServiceError(f"a worker of {function.__name__} died in each of {restarts + 1} starts")


def _connect() -> bool:
    """Start Ray where it is not running; whether this process has it to itself."""
    import ray

    if ray.is_initialized():
        return bool(_STARTED_HERE)
    here = {name: value for name, value in settings(project_root()).items()}
    with contextlib.chdir(state_folder()):  # Ray puts the folder it is called from on its workers' import path
        ray.init(
            num_cpus=cpu_cores(), include_dashboard=False, log_to_driver=False, configure_logging=False,
            object_store_memory=100_000_000, _node_ip_address="127.0.0.1", runtime_env={"env_vars": here},
        )  # fmt: skip
    _STARTED_HERE.append(True)
    return True


def _start(workers: int, gpus: int) -> tuple[list[Any], Any]:
    """Members, and the place on the cluster that is reserved for all of them or none.

    Members kept of other sizes are ended first: they hold the cores that these wait for.

    Raises:
        ServiceError: there is no place in time, or a member died or did not answer; what was started is ended.
    """
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    while _POOL:
        _end(*_POOL.popitem()[1])
    began = time.monotonic()
    place = ray.util.placement_group([{"CPU": 1, "GPU": gpus} if gpus else {"CPU": 1}] * workers)
    members: list[Any] = []
    try:
        ray.get(place.ready(), timeout=WAIT_SECONDS)
        for bundle in range(workers):
            there = PlacementGroupSchedulingStrategy(place, placement_group_bundle_index=bundle)
            kind = ray.remote(_Member).options(
                num_cpus=1, num_gpus=gpus, max_concurrency=2, max_restarts=0, scheduling_strategy=there
            )
            members.append(kind.remote())
        ray.get([m.pid.remote() for m in members], timeout=START_SECONDS)
    except BaseException as error:
        _end(members, place)
        if not isinstance(error, ray.exceptions.RayError):
            raise
        waited = f"after {time.monotonic() - began:.0f} s"
        if not isinstance(error, ray.exceptions.GetTimeoutError):
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ServiceError(f"one of {workers} Ray workers did not start, {waited}: {first}") from error
        what = "did not answer" if members else "found no place on the Ray cluster"
        raise ServiceError(f"{workers} Ray workers {what}, {waited}") from error
    return members, place


def _end(members: list[Any], place: Any) -> None:
    """Also of members that wait for one that is gone, which would be for ever."""
    import ray

    for member in members:
        ray.kill(member)
    ray.util.remove_placement_group(place)


def _run(
    members: list[Any], function: Any, arguments: dict[str, Any], cuda: bool, on_progress: Progress | None
) -> list[Any]:
    import ray

    url = ray.get(members[0].address.remote())
    refs = [m.run.remote(function, arguments, rank, len(members), url, cuda) for rank, m in enumerate(members)]
    seen: Any = None
    failed: list[Exception] = []
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
