"""Requests to an assistant, drawn from datasets and labelled for the criteria of retrieval."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from paperflows.components.errors import InputError
from paperflows.tasks.data import DatasetArtifact, read_rows, read_split
from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import Artifact, new_artifact, open_artifact

PARTS = ("train", "validation", "test", "unseen")


class Pool(BaseModel):
    """Texts of one kind from one dataset, and which of its splits serve for what."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str = Field(description="Name of the dataset")
    builtin: bool = Field(False, description="Read from the built-in datasets, whatever the source of the others")
    kind: Literal["facts", "timed", "other"] = Field(
        description="facts: static questions with answers; timed: their answer changes; other: no knowledge needed"
    )
    field: str = Field("question", description="The field that holds the text")
    only: tuple[str, ...] = Field((), description="Only rows whose label or relation is one of these; all when empty")
    splits: dict[Literal["train", "validation", "test", "unseen"], str] = Field(
        {}, description="Part -> split; unseen is a source that no head is trained on"
    )
    divide: str | None = Field(None, description="A split to divide into train, validation and test instead")


class RequestsArtifact(Artifact):
    """`requests.jsonl` with the labels of `components.retrieval.requests.dress`."""

    counts: dict[str, int]


@cached_task(name="build_requests")
def build_requests(
    pools: list[Pool], datasets: list[DatasetArtifact], most: dict[str, int], asking: float, mentioning: float
) -> RequestsArtifact:
    """Draw texts of every pool, put words around some of them, and label them.

    A text that is evaluated stands in no other part.

    Args:
        datasets: those that the pools name, in the same order.
        most: part -> texts of a pool in it at most.

    Raises:
        InputError: a pool gives nothing, or a row of it lacks its field.
    """
    import random

    from paperflows.components.data.jsonl import write_jsonl
    from paperflows.components.retrieval.requests import Item, dress, undotted

    items: dict[Any, list[Item]] = {part: [] for part in PARTS}
    for pool, data in zip(pools, datasets, strict=True):
        for part, rows in _parts(pool, data).items():
            some = random.Random(f"{pool.dataset} {part}").sample(rows, min(most[part], len(rows)))
            items[part] += [_item(pool, data["name"], row) for row in some]
    evaluated = {undotted(item.text) for part in ("test", "unseen") for item in items[part]}
    for part in ("train", "validation"):
        items[part] = [item for item in items[part] if undotted(item.text) not in evaluated]
    rows = dress(items, asking=asking, mentioning=mentioning, seed=0)
    with new_artifact() as (folder, artifact):
        write_jsonl(folder / "requests.jsonl", rows)
    return RequestsArtifact(**artifact, counts={part: len(some) for part, some in items.items()})


def _parts(pool: Pool, data: DatasetArtifact) -> dict[str, list[dict[str, Any]]]:
    from paperflows.components.data.world.hashing import stable_number
    from paperflows.components.retrieval.requests import is_static

    def wanted(row: dict[str, Any]) -> bool:
        if pool.field not in row:
            raise InputError(f"dataset {data['name']!r}: a row has no field {pool.field!r} ({', '.join(sorted(row))})")
        label = row.get("relation") if "relation" in row else row.get("label")
        fits = not pool.only or label in pool.only
        return fits and (pool.kind != "facts" or (bool(row.get("answers")) and is_static(row[pool.field])))

    found: dict[str, list[dict[str, Any]]] = {
        part: [row for row in read_split(data, split) if wanted(row)] for part, split in pool.splits.items()
    }
    if pool.divide:
        for row in filter(wanted, read_split(data, pool.divide)):
            number = stable_number("requests", row[pool.field]) % 10
            part = "train" if number < 6 else "validation" if number < 7 else "test"
            found.setdefault(part, []).append(row)
    if not any(found.values()):
        raise InputError(f"dataset {data['name']!r} gives no texts for the pool of kind {pool.kind}")
    return found


def _item(pool: Pool, name: str, row: dict[str, Any]) -> Any:
    from paperflows.components.retrieval.requests import Item

    facts = pool.kind == "facts"
    passages = tuple(f"{name}/{place}" for place in row.get("passages") or ()) if facts else ()
    return Item(row[pool.field], pool.kind, name, tuple(row["answers"]) if facts else (), passages)


def read_requests(requests: RequestsArtifact) -> list[dict[str, Any]]:
    """The stored requests, in order."""
    return read_rows(open_artifact(requests) / "requests.jsonl")
