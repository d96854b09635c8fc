"""Load datasets from the named source into the store, and gather unlabelled sentences from them."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paperflows.components.errors import InputError, ServiceError
from paperflows.tasks.policy import cached_task, state_of
from paperflows.tasks.remarks import remark
from paperflows.tasks.store import Artifact, new_artifact, open_artifact


class DatasetArtifact(Artifact):
    """A checked dataset in the store, with what the report says of it."""

    name: str
    source: str
    task: str
    content: str
    rows: dict[str, int]
    warnings: list[str]


class SentenceArtifact(Artifact):
    """Distinct sentences in the store (`sentences.jsonl`)."""

    count: int
    left_out: int


def load_dataset(source: str, name: str, task_types: Sequence[str] = (), splits: Sequence[str] = ()) -> DatasetArtifact:
    """Read, check and store one dataset (the task `load_dataset`); a folder's files are looked at every time.

    What may be meant so but should be known, such as texts that stand in train and in test, is told by the report.

    Args:
        source: "builtin", "hub" or a folder.
        task_types: the task types that the flow can use; empty for any.
        splits: those that it reads in any case.

    Raises:
        InputError: unknown name, bad data (file, line, field), another task type, or a split that is missing.
        ServiceError: the hub cannot be reached.
    """
    loaded: DatasetArtifact = _load_dataset(source, name, list(task_types), _state_of(source, name))
    if missing := [split for split in splits if split not in loaded["rows"]]:
        raise InputError(
            f"dataset {name!r} has no split {' and no split '.join(missing)} (it has {', '.join(loaded['rows'])}); "
            f"this flow reads {', '.join(splits)}"
        )
    for warning in loaded["warnings"]:
        remark(f"{name}: {warning}.")
    return loaded


@cached_task(name="load_dataset", retries=2, retry_on=(ServiceError,), task_run_name="load_dataset-{name}")
def _load_dataset(source: str, name: str, task_types: list[str], state: str) -> DatasetArtifact:
    from paperflows.components.data.jsonl import write_jsonl
    from paperflows.components.data.sources import load

    data = load(source, name)
    if task_types and data.task not in task_types:
        raise InputError(f"dataset {name!r} of {source} is {data.task}; expected {' or '.join(task_types)}")
    with new_artifact() as (folder, artifact):
        for split, rows in data.splits.items():
            write_jsonl(folder / f"{split}.jsonl", rows)
    return DatasetArtifact(
        **artifact,
        name=name,
        source=data.source,
        task=data.task,
        content=data.sha256,
        rows={split: len(rows) for split, rows in data.splits.items()},
        warnings=list(data.warnings),
    )


def keep_first(dataset: DatasetArtifact, rows: int | None) -> DatasetArtifact:
    """The first `rows` rows of every split (the task `keep_first`), or all; the content hash stays the whole's."""
    return dataset if rows is None else _keep_first(dataset, rows)


@cached_task(name="keep_first", task_run_name="keep_first-{rows}")
def _keep_first(dataset: DatasetArtifact, rows: int) -> DatasetArtifact:
    from paperflows.components.data.jsonl import write_jsonl

    kept = {split: some[:rows] for split, some in read_dataset(dataset).items()}
    with new_artifact() as (folder, artifact):
        for split, some in kept.items():
            write_jsonl(folder / f"{split}.jsonl", some)
    sizes = {split: len(some) for split, some in kept.items()}
    return DatasetArtifact(**{**dataset, **artifact, "rows": sizes})


def _state_of(source: str, name: str) -> str:
    """The state of a dataset's folder, media included: when it is as before, the dataset is not read again."""
    from paperflows.components.data.check import find_datasets

    if source in ("builtin", "hub"):
        return ""
    folder = find_datasets(Path(source)).get(name)
    return state_of(folder) if folder else ""


def read_dataset(artifact: DatasetArtifact) -> dict[str, list[dict[str, Any]]]:
    """Rows by split of a stored dataset."""
    return {path.stem: read_rows(path) for path in sorted(open_artifact(artifact).glob("*.jsonl"))}


def read_split(artifact: DatasetArtifact, split: str) -> list[dict[str, Any]]:
    """Rows of one split.

    Raises:
        InputError: the dataset has no such split.
    """
    path = open_artifact(artifact) / f"{split}.jsonl"
    if not path.is_file():
        raise InputError(f"dataset {artifact['name']!r} has no split {split} (it has {', '.join(artifact['rows'])})")
    return read_rows(path)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of one stored file; they were checked when they entered the store."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@cached_task(name="collect_sentences")
def collect_sentences(
    datasets: list[DatasetArtifact],
    held_out: list[DatasetArtifact],
    max_words: int,
    limit: int,
    seed: int,
) -> SentenceArtifact:
    """Distinct sentences of the training splits of `datasets`, labels unread, in an order shuffled by `seed`.

    Leaves out every sentence of any evaluation split (of `datasets` and `held_out` alike, compared without case and
    space) and sentences longer than `max_words`; at most `limit` are kept.
    """
    from paperflows.components.data.jsonl import write_jsonl

    forbidden: set[str] = set()
    found: dict[str, str] = {}
    for data in held_out + datasets:
        for split, rows in read_dataset(data).items():
            if split != "train":
                forbidden.update(_fold(text) for row in rows for text in _texts(row))
    left_out = 0
    for data in datasets:
        for row in read_dataset(data).get("train", []):
            for text in _texts(row):
                if _fold(text) in forbidden or len(text.split()) > max_words:
                    left_out += 1
                else:
                    found.setdefault(_fold(text), text)
    if not found:
        raise InputError(f"no training sentences in {', '.join(d['name'] for d in datasets)}: they need a train split")
    sentences = sorted(found.values())
    random.Random(seed).shuffle(sentences)
    with new_artifact() as (folder, artifact):
        write_jsonl(folder / "sentences.jsonl", [{"text": text} for text in sentences[:limit]])
    return SentenceArtifact(**artifact, count=len(sentences[:limit]), left_out=left_out)


def read_sentences(artifact: Artifact) -> list[str]:
    """The sentences that `collect_sentences` stored, in order."""
    return [row["text"] for row in read_rows(open_artifact(artifact) / "sentences.jsonl")]


def _texts(row: dict[str, Any]) -> list[str]:
    return [row[field] for field in ("text", "text_pair") if row.get(field)]


def _fold(text: str) -> str:
    return " ".join(text.casefold().split())
