"""Expert-parallel training on real Ray workers: it survives a killed one, and says what it cannot do."""

import os
import signal
import time

import numpy as np
import pytest
import torch.distributed as dist
from safetensors.numpy import load_file, save_file

from paperflows.components.cores import cpu_cores
from paperflows.components.errors import InputError, ServiceError
from paperflows.components.moe.worker import train_worker
from paperflows.tasks import workers
from paperflows.tasks.workers import run_on_workers

pytestmark = pytest.mark.slow
START = {"model": "tiny", "vocabulary": 256, "width": 16, "layers": 2, "heads": 2, "hidden": 16, "positions": 32}
SPLITS = ("validation", "test")
VARIANT = {"experts": 4, "k": 1, "capacity_factor": 1.0, "keep": "score", "combine": "score"}


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("passages")
    random = np.random.default_rng(0)
    held_out = {f"{split}.{corpus}": random.integers(97, 123, (8, 33)) for split in SPLITS for corpus in "ab"}
    texts = {"train": random.integers(97, 123, (64, 33)), **held_out}
    sizes = {f"bytes.{name}": np.full(8, 32) for name in held_out}
    save_file({k: v.astype(np.int32) for k, v in texts.items()} | sizes, folder / "passages.safetensors")
    return {
        "passages": folder, "start": START, "variant": {**VARIANT, "rectify": ["fill", "intra"]}, "steps": 150,
        "batch_size": 8, "learning_rate": 1e-2, "balance": 0.01, "z": 0.001, "seed": 0, "checkpoint_every": 10,
    }  # fmt: skip


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    import ray

    root = tmp_path_factory.mktemp("project")
    (root / "params.yaml").write_text("{}\n")
    (root / ".state").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAPERFLOWS_ROOT", str(root))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        yield
    ray.shutdown()


def run(arguments, folder, **options):
    (folder / "output").mkdir(parents=True)
    places = {"checkpoints": folder / "checkpoints", "output": folder / "output"}
    return run_on_workers(train_worker, {**arguments, **places}, workers=2, **options)


def shards(folder):
    return [load_file(folder / "output" / f"worker-{rank:03d}.safetensors") for rank in range(2)]


def test_killed_worker_changes_nothing(started, arguments, tmp_path):
    undisturbed = run(arguments, tmp_path / "undisturbed", restarts=0)
    pids: list[list[int]] = []
    killed_at = []

    def kill_one(step, total, metrics):
        if step >= 25 and not killed_at:
            killed_at.append(step)
            os.kill(pids[-1][1], signal.SIGKILL)

    survived = run(arguments, tmp_path / "killed", restarts=1, on_progress=kill_one, on_start=pids.append)
    assert killed_at and len(pids) == 2, "one worker was killed and all were started again"
    assert set(pids[0]).isdisjoint(pids[1])
    # when a step is reported, all workers have saved what was due before it: they go on from there or from later
    saved = (killed_at[0] - 1) // arguments["checkpoint_every"] * arguments["checkpoint_every"]
    (resumed,) = {part["resumed_from"] for part in survived}
    assert 20 <= saved <= resumed < arguments["steps"] and resumed % arguments["checkpoint_every"] == 0
    assert [part["resumed_from"] for part in undisturbed] == [0, 0]
    assert survived[0]["history"] == undisturbed[0]["history"]
    for split in SPLITS:
        assert [part[split] for part in survived] == [part[split] for part in undisturbed]
        numbers = [{corpus: set(bits) for corpus, bits in part[split]["bits"].items()} for part in survived]
        assert all(numbers[0][corpus] | numbers[1][corpus] == set(range(8)) for corpus in "ab"), "a text without score"
    for ours, theirs in zip(shards(tmp_path / "killed"), shards(tmp_path / "undisturbed"), strict=True):
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    assert not list((tmp_path / "killed").rglob("step-*")), "checkpoints of a finished training are left"


def test_worker_that_always_dies_ends_in_an_error(started, arguments, tmp_path):
    pids: list[list[int]] = []

    def kill(step, total, metrics):
        os.kill(pids[-1][0], signal.SIGKILL)

    with pytest.raises(ServiceError, match="a worker of train_worker died in each of 1 starts"):
        run(arguments, tmp_path, restarts=0, on_progress=kill, on_start=pids.append)


def test_divergence_is_raised_as_itself(started, arguments, tmp_path):
    with pytest.raises(InputError, match=r"loss is nan at step \d+ of 150"):
        run({**arguments, "learning_rate": 1e30}, tmp_path, restarts=3)


def available():
    import ray

    return ray.available_resources().get("CPU", 0)


def until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.2)
    return condition()


def test_fewer_workers_after_more(started, monkeypatch):
    """The cores of those that are kept for the next call are free for one alone."""

    def rank_of(*, group, on_step, device):  # in here, so that it travels to workers that cannot import this file
        return dist.get_rank(group), dist.get_world_size(group)

    monkeypatch.setattr(workers, "WAIT_SECONDS", 120.0)
    count = cpu_cores()
    assert run_on_workers(rank_of, {}, workers=count, restarts=0) == [(n, count) for n in range(count)]
    assert run_on_workers(rank_of, {}, workers=1, restarts=0) == [(0, 1)]
    assert list(workers._POOL) == [(1, 0)]


def test_worker_that_exits_while_starting_is_one_error_and_leaves_nothing(started, monkeypatch):
    class Exits(workers._Member):
        def __init__(self):
            os._exit(3)

    monkeypatch.setattr(workers, "_Member", Exits)
    workers._connect()
    while workers._POOL:  # those that are kept would be used instead
        workers._end(*workers._POOL.popitem()[1])
    assert until(lambda: available() == cpu_cores())
    with pytest.raises(ServiceError, match=r"one of 1 Ray workers did not start, after \d+ s: "):
        run_on_workers(train_worker, {}, workers=1, restarts=2)
    assert until(lambda: available() == cpu_cores()), "the place of the dead worker is still taken"


def test_more_workers_than_cores_are_refused(started, arguments, tmp_path):
    with pytest.raises(ServiceError, match="workers: 64 need a core each, the Ray cluster has"):
        run_on_workers(train_worker, arguments, workers=64, restarts=0)
