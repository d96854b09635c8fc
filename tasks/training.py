"""A training inside a task: its checkpoints, its progress, its MLflow child run."""

from collections.abc import Callable
from typing import Any

from paperflows.tasks.environment import state_folder
from paperflows.tasks.policy import current_key
from paperflows.tasks.progress import progress
from paperflows.tasks.store import Artifact
from paperflows.tasks.tracking import child

CHECKPOINT_SECONDS = 10.0  # between two checkpoints of a training, at least
CHECKPOINT_SHARE = 0.05  # of the time, at most, that goes into saving them


class ModelArtifact(Artifact):
    """A stored model, its best validation score and the history of its training."""

    name: str
    score: float | None
    history: list[dict[str, float]]


def fit(
    name: str,
    settings: dict[str, Any],
    model: Any,
    batch_at: Callable[[int], Any],
    loss_fn: Callable[[Any, Any], Any],
    steps: int,
    learning_rate: float,
    seed: int,
    device: str,
    **evaluation: Any,
) -> Any:
    """`components.training.loop.train` with this task's checkpoints, progress and MLflow child run."""
    from paperflows.components.training.checkpoint import Checkpoints
    from paperflows.components.training.loop import train

    folder = state_folder() / "checkpoints" / current_key()
    checkpoints = Checkpoints(folder, every_seconds=CHECKPOINT_SECONDS, share=CHECKPOINT_SHARE)
    with progress(name) as report, child(name, settings) as recorder:

        def on_step(step: int, total: int, metrics: dict[str, float]) -> None:
            report(step, total)
            recorder.metrics(step, metrics)

        done = train(
            model=model, batch_at=batch_at, loss_fn=loss_fn, steps=steps, learning_rate=learning_rate, seed=seed,
            device=device, checkpoints=checkpoints, on_step=on_step, **evaluation,
        )  # fmt: skip
    checkpoints.clear()
    return done
