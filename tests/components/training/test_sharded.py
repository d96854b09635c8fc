"""Two workers agree on the checkpoint to go on from when one of them lacks the newest."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from paperflows.components.ports import free_port
from paperflows.components.training.sharded import ShardedCheckpoints

# what befell worker 1 -> the step that both go on from
CASES = {
    "whole": 30,
    "newest missing": 20,
    "newest truncated": 20,
    "newest never begun": 20,
    "both damaged": None,
    "folder gone": None,
}


def damage(case, folder):
    """Do to the checkpoints of worker 1 what `case` says."""
    older, newest = sorted(folder.glob("step-*"))
    if case == "newest missing":
        newest.unlink()
    if case == "newest truncated":
        newest.write_bytes(newest.read_bytes()[:-100])
    if case == "both damaged":
        for path in (older, newest):
            path.write_bytes(path.read_bytes()[:100])
    if case == "folder gone":
        for path in (older, newest):
            path.unlink()
        folder.rmdir()


def work(rank, url, folder):
    dist.init_process_group("gloo", init_method=url, rank=rank, world_size=2)
    found = {}
    for case in CASES:
        shards = ShardedCheckpoints(folder / case, group=dist.group.WORLD)
        for step in (10, 20, 30):
            if rank and step == 30 and case == "newest never begun":
                continue  # it has steps 10 and 20, the other 20 and 30
            shards.save(step, {"w": torch.full((50,), float(step + rank))}, {"step": step})
        dist.barrier()
        if rank and case != "newest never begun":
            damage(case, shards.own.folder)
        latest = shards.latest()
        found[case] = latest and [latest[0], latest[1]["w"][0].item(), latest[2]["step"]]
        if case == "newest never begun":  # worker 0 had a 30 of its own, and now makes another
            shards.save(30, {"w": torch.full((50,), 300.0 + rank)}, {"step": 30})
            dist.barrier()
            found["made anew"] = [*shards.own.steps(), shards.latest()[1]["w"][0].item()]
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    command = [sys.executable, __file__, f"tcp://127.0.0.1:{free_port()}", str(folder)]
    workers = [subprocess.Popen([*command, str(rank)]) for rank in range(2)]
    assert [worker.wait(240) for worker in workers] == [0, 0]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_both_go_on_from_the_newest_step_that_both_have_whole(found, case):
    step = CASES[case]
    assert [part[case] for part in found] == [step and [step, step + rank, step] for rank in range(2)]


def test_a_step_made_anew_is_not_confused_with_its_first_making(found):
    assert [part["made anew"] for part in found] == [[30, 20, 300.0 + rank] for rank in range(2)]


if __name__ == "__main__":
    work(int(sys.argv[3]), sys.argv[1], Path(sys.argv[2]))
