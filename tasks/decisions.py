"""How much the decisions of classifiers depend on what they read."""

from typing import Any

from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import OUTPUTS, Artifact, open_artifact


@cached_task(name="share_changed")
def share_changed(reference: list[dict[str, Any]], others: list[list[dict[str, Any]]]) -> float:
    """Share of decisions that differ from the reference system's, mean over the other systems, seeds and examples.

    Args:
        reference: one artifact a seed with the classes of all examples.
        others: the same for each other system.
    """
    import numpy as np
    from safetensors.numpy import load_file

    def classes(artifact: dict[str, Any]) -> Any:
        found = load_file(open_artifact(Artifact(path=artifact["path"], sha256=artifact["sha256"])) / OUTPUTS)
        return np.concatenate([found[key] for key in sorted(found)])

    known = [classes(artifact) for artifact in reference]
    changed = [
        (classes(artifact) != ours).mean() for system in others for artifact, ours in zip(system, known, strict=True)
    ]
    return float(np.mean(changed))
