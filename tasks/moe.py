"""Train mixture-of-experts language models on Ray workers, and time their steps side by side."""

import shutil
from pathlib import Path
from typing import Any, TypedDict

from pydantic import BaseModel, ConfigDict, Field

from paperflows.tasks.environment import state_folder
from paperflows.tasks.passages import PassagesArtifact
from paperflows.tasks.policy import cached_task, current_key
from paperflows.tasks.progress import progress
from paperflows.tasks.store import OUTPUTS, Artifact, new_artifact, open_artifact
from paperflows.tasks.tracking import child
from paperflows.tasks.workers import run_on_workers


class Variant(BaseModel):
    """One way of routing; `experts` 0 is the dense model of the same active width."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    experts: int = Field(ge=0, description="Experts of a layer on all workers together")
    k: int = Field(1, ge=1, description="Experts that a token chooses")
    capacity_factor: float | None = Field(1.0, gt=0, description="Slots over an even share; none: dropless")
    keep: str = Field("score", pattern="^(score|position)$", description="Who keeps the slots of a full expert")
    combine: str = Field("score", pattern="^(score|normalised|straight_through)$", description="Weights of experts")
    rectify: tuple[str, ...] = Field((), description="Any of fill, intra, random")


class MoEArtifact(Artifact):
    """A trained model, one shard a worker, and `outputs.safetensors`: corpus -> bits per byte of each test passage.

    `test_shares` is what the routing of the test passages wasted (see `Plan.shares`), nothing for a dense model.
    """

    name: str
    validation: float
    bits: dict[str, float]
    test_shares: dict[str, float]
    history: list[dict[str, float]]


class Times(TypedDict):
    """Of each variant: in `of` an artifact whose `outputs.safetensors` holds the seconds of each repeat, and the median
    seconds and the floating-point operations of a training step, of all workers together.
    """

    of: dict[str, Artifact]
    seconds: dict[str, float]
    flops: dict[str, float]


@cached_task(name="train_moe", task_run_name="{name}-seed{seed}")
def train_moe(
    name: str,
    variant: Variant,
    passages: PassagesArtifact,
    start: dict[str, Any],
    workers: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    balance: float,
    z: float,
    checkpoint_every: int,
    restarts: int,
    seed: int,
    device: str,
) -> MoEArtifact:
    """Train one variant with its experts spread over `workers` Ray workers; bits per byte of the held-out passages.

    Args:
        start: "tiny" and its sizes, or a pretrained decoder whose feed-forward layers become the experts.
        batch_size: passages a step, of all workers together.
        balance, z: weights of the load-balance and router z losses.
        checkpoint_every: steps between two checkpoints, from which all workers resume when one dies.
        restarts: how often.
    """
    import numpy as np
    from safetensors.numpy import save_file

    from paperflows.components.moe.worker import train_worker

    settings = {"method": name, "steps": steps, "learning_rate": learning_rate, "seed": seed, **variant.model_dump()}
    checkpoints = state_folder() / "checkpoints" / current_key()
    with new_artifact() as (folder, artifact):
        arguments = {
            "passages": open_artifact(passages), "start": start, "variant": variant.model_dump(), "steps": steps,
            "batch_size": batch_size, "learning_rate": learning_rate, "balance": balance, "z": z, "seed": seed,
            "checkpoints": checkpoints, "checkpoint_every": checkpoint_every, "output": folder,
        }  # fmt: skip
        with progress(f"{name} seed {seed}") as report, child(f"{name}-seed{seed}", settings) as recorder:

            def on_progress(step: int, total: int, metrics: dict[str, float]) -> None:
                report(step, total)
                recorder.metrics(step, metrics)

            parts = run_on_workers(
                train_worker, arguments, workers=workers, restarts=restarts, device=device, on_progress=on_progress
            )
        shutil.rmtree(checkpoints, ignore_errors=True)
        held_out = _in_order([part["test"]["bits"] for part in parts])
        save_file(held_out, folder / OUTPUTS)
    validation = np.concatenate(list(_in_order([part["validation"]["bits"] for part in parts]).values()))
    shares = [part["test"]["shares"] for part in parts]
    return MoEArtifact(
        **artifact,
        name=name,
        validation=float(validation.mean()),
        bits={corpus: float(b.mean()) for corpus, b in held_out.items()},
        test_shares={name: float(np.mean([part[name] for part in shares])) for name in shares[0]},
        history=parts[0]["history"],
    )


def _in_order(parts: list[dict[str, dict[int, float]]]) -> dict[str, Any]:
    """Corpus -> figures of its passages in their order, from those of each worker by the passage's number."""
    import numpy as np

    found = {}
    for corpus in parts[0]:
        together = {number: value for part in parts for number, value in part[corpus].items()}
        found[corpus] = np.array([together[number] for number in range(len(together))])
    return found


@cached_task(name="time_moe")
def time_moe(
    variants: dict[str, Variant], trained: dict[str, Artifact], passages: PassagesArtifact, start: dict[str, Any],
    workers: int, batch_size: int, repeats: int, seed: int, device: str,
) -> Times:  # fmt: skip
    """Seconds of a training step of each trained variant, all in turns on the same workers."""
    import numpy as np
    from safetensors.numpy import save_file

    from paperflows.components.moe.worker import time_worker

    arguments = {
        "passages": open_artifact(passages), "start": start, "batch_size": batch_size, "repeats": repeats,
        "variants": {name: variant.model_dump() for name, variant in variants.items()},
        "trained": {name: Path(open_artifact(model)) for name, model in trained.items()}, "seed": seed,
    }  # fmt: skip
    with progress("time the variants") as report:
        parts = run_on_workers(
            time_worker, arguments, workers=workers, restarts=0, device=device,
            on_progress=lambda step, total, _: report(step, total),
        )  # fmt: skip
    seconds = {name: np.max([part["seconds"][name] for part in parts], axis=0) for name in variants}
    of = {}
    for name, repeated in seconds.items():
        with new_artifact() as (folder, artifact):
            save_file({"seconds": repeated}, folder / OUTPUTS)
        of[name] = artifact
    medians = {name: float(np.median(repeated)) for name, repeated in seconds.items()}
    flops = {name: sum(part["flops"][name] for part in parts) for name in variants}
    return Times(of=of, seconds=medians, flops=flops)
