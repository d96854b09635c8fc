"""Judges of a wanted quality, simulated from the answer key: for the analysis of AoR, never for its results."""

from collections.abc import Sequence

from paperflows.tasks.chains import SCORES, Pool, ScoresArtifact
from paperflows.tasks.data import DatasetArtifact, read_split
from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import new_artifact


@cached_task(name="simulate_judge", task_run_name="simulate_judge-{quality}-seed{seed}")
def simulate_judge(dataset: DatasetArtifact, pool: Pool, quality: float, seed: int) -> ScoresArtifact:
    """Points of a judge that sees the right answers through noise; of the arrays only points, so that no vote uses it.

    Args:
        quality: AUC over chains that the noise is for; `auc` says what it came to.
    """
    from safetensors.numpy import save_file

    from paperflows.components.reasoning import simulated, verifier
    from paperflows.components.reasoning.recorded import read_questions

    questions = read_questions(read_split(dataset, "test"), **pool.filters)
    right = verifier.correct(questions, pool.answer)
    points = verifier.to_points(simulated.noisy_scores(right, quality=quality, seed=seed))
    with new_artifact() as (folder, artifact):
        save_file({"points": points}, folder / SCORES)
    return ScoresArtifact(**artifact, auc=verifier.auc(points, right), how="simulated")


def find_break_even(points: Sequence[tuple[float, float]]) -> float | None:
    """The x from which on y is not below zero, between two of the (x, y) points by a straight line.

    None where y is below zero at the last point, or at none: the line does not cross.
    """
    ordered = sorted(points)
    below = [place for place, (_, y) in enumerate(ordered) if y < 0]
    if not below or below[-1] == len(ordered) - 1:
        return None
    (x0, y0), (x1, y1) = ordered[below[-1] : below[-1] + 2]
    return x0 + (x1 - x0) * -y0 / (y1 - y0)
