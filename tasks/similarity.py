"""Score sentence encoders: cosines of similarity pairs, correctness on transfer tasks."""

from typing import Any

from paperflows.components.errors import InputError
from paperflows.tasks.data import DatasetArtifact, read_dataset
from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import GOLD, OUTPUTS, Artifact, new_artifact, open_artifact

Rows = list[dict[str, Any]]


class ScoresArtifact(Artifact):
    """Outputs by dataset in the store, and the metric of each dataset."""

    metrics: dict[str, float]


@cached_task(name="gold_similarity")
def gold_similarity(datasets: list[DatasetArtifact]) -> Artifact:
    """Human similarity of every evaluation pair, in the order that `score_similarity` uses."""
    import numpy as np
    from safetensors.numpy import save_file

    from paperflows.components.evaluation.sts import sts_all

    gold = {d["name"]: np.array([r["score"] for r in sts_all(read_dataset(d))], dtype=np.float64) for d in datasets}
    with new_artifact() as (folder, artifact):
        save_file(gold, folder / GOLD)
    return artifact


@cached_task(name="score_similarity", task_run_name="score_similarity-{label}")
def score_similarity(
    encoder: Artifact, datasets: list[DatasetArtifact], pooling: str, max_length: int, label: str, device: str
) -> ScoresArtifact:
    """Cosines of all evaluation pairs, and Spearman's rho of each dataset in the "all" setting."""
    import numpy as np
    from safetensors.numpy import save_file

    from paperflows.components.evaluation.statistics import spearman
    from paperflows.components.evaluation.sts import cosine_scores, sts_all
    from paperflows.components.models.encoder import load_encoder

    model = load_encoder(str(open_artifact(encoder)), device=device, pooling=pooling, max_length=max_length)  # type: ignore[arg-type]
    outputs, metrics = {}, {}
    for data in datasets:
        rows = sts_all(read_dataset(data))
        outputs[data["name"]] = cosine_scores(model.embed, rows)
        gold = np.array([row["score"] for row in rows], dtype=np.float64)
        metrics[data["name"]] = float(spearman(gold, outputs[data["name"]]))
    with new_artifact() as (folder, artifact):
        save_file(outputs, folder / OUTPUTS)
    return ScoresArtifact(**artifact, metrics=metrics)


@cached_task(name="score_transfer", task_run_name="score_transfer-{label}")
def score_transfer(
    encoder: Artifact,
    datasets: list[DatasetArtifact],
    pooling: str,
    max_length: int,
    label: str,
    device: str,
    limit: int,
) -> ScoresArtifact:
    """Correctness of a logistic regression on frozen embeddings, for each classification dataset.

    Args:
        limit: training examples used of each dataset, the same first ones for every encoder.
    """
    from safetensors.numpy import save_file

    from paperflows.components.evaluation.sts import transfer_correct
    from paperflows.components.models.encoder import load_encoder

    model = load_encoder(str(open_artifact(encoder)), device=device, pooling=pooling, max_length=max_length)  # type: ignore[arg-type]
    outputs: dict[str, Any] = {}
    for data in datasets:
        splits = read_dataset(data)
        outputs[data["name"]] = transfer_correct(model.embed, *_transfer_splits(data["name"], splits, limit))
    with new_artifact() as (folder, artifact):
        save_file(outputs, folder / OUTPUTS)
    return ScoresArtifact(**artifact, metrics={name: float(values.mean()) for name, values in outputs.items()})


def _transfer_splits(name: str, splits: dict[str, Rows], limit: int) -> tuple[Rows, Rows, Rows]:
    """Training, validation and test rows: without a test split (GLUE's are unlabelled) validation is the test, and
    without validation rows left the last tenth of the training rows stands in for them.
    """
    train, validation, test = (splits.get(split, []) for split in ("train", "validation", "test"))
    if not test:
        test, validation = validation, []
    if not train or not test:
        raise InputError(f"dataset {name!r}: a transfer task needs labelled train and test splits, it has {[*splits]}")
    train = train[:limit]
    if not validation:
        cut = max(1, len(train) // 10)
        train, validation = train[:-cut], train[-cut:]
    if len({str(row["label"]) for row in train}) < 2:
        raise InputError(f"dataset {name!r}: its first {len(train)} training rows have one label; shuffle them")
    return train, validation[:limit], test
