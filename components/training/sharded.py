"""Checkpoints of a training spread over workers: each writes its own shard, all resume from the same step."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from paperflows.components.training.checkpoint import Checkpoints


class ShardedCheckpoints:
    """The shard of this worker, below `folder`, with the interface of `Checkpoints`.

    A worker that died may lack the newest checkpoint that another has. Workers save at the same steps and none begins a
    step before all ended the one before, so the step before is there on all: two are kept.

    Args:
        folder: seen by all workers.
        group: their torch.distributed process group.
    """

    def __init__(self, folder: Path, *, group: Any) -> None:
        self.group = group
        self.own = Checkpoints(Path(folder) / f"worker-{dist.get_rank(group):03d}")

    def pause(self, took: float = 0.0) -> float:
        """As `Checkpoints.pause`."""
        return self.own.pause(took)

    def save(self, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> Path:
        """As `Checkpoints.save`, for this worker's shard."""
        return self.own.save(step, tensors, state)

    def latest(self) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
        """This worker's shard of the newest step that every worker has intact. All workers must call it.

        What a worker has beyond that step is deleted: the step is made anew, on a GPU not to the bit, and a later
        resumption must not take one worker's old shard for it.
        """
        mine = torch.full((2,), -1, dtype=torch.int64)
        steps = self.own.steps()[:2]
        mine[: len(steps)] = torch.tensor(steps, dtype=torch.int64)
        every = [torch.empty_like(mine) for _ in range(dist.get_world_size(self.group))]
        dist.all_gather(every, mine, group=self.group)
        common = set.intersection(*(set(steps.tolist()) for steps in every)) - {-1}
        agreed = max(common, default=-1)
        for path in self.own.folder.glob("step-*.safetensors"):
            if int(path.name.split("-")[1]) > agreed:
                path.unlink()
        return self.own.latest({agreed}) if common else None

    def clear(self) -> None:
        """As `Checkpoints.clear`, for this worker's shard."""
        self.own.clear()
