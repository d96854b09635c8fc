"""Load one dataset of the registry through Hugging Face `datasets`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paperflows.components.data.registry import HubDataset
from paperflows.components.errors import InputError, ServiceError

Row = dict[str, Any]


def load_hub(name: str, entry: HubDataset, *, cache: Path | None = None) -> dict[str, list[Row]]:
    """Rows by split, in our fields. Rows without text (empty lines of wikitext) or without label are left out.

    Args:
        name: ours, for messages.
        entry: where it lies and how its columns are called.
        cache: folder for downloads; None is the library's own.

    Raises:
        ServiceError: the hub cannot be reached and the dataset is not in the cache, or the hub does not have it.
        InputError: the dataset lacks a split or a column that the registry names.
    """
    import datasets
    import httpx

    try:
        found = datasets.load_dataset(
            entry.id,
            entry.config,
            revision=entry.revision,
            data_files=dict(entry.data_files) if entry.data_files else None,
            cache_dir=None if cache is None else str(cache),
        )
    except (OSError, ValueError, httpx.HTTPError, datasets.exceptions.DatasetsError) as error:
        folder = cache or datasets.config.HF_DATASETS_CACHE
        doubt = " The id could not be confirmed when it was entered in the registry." if entry.unverified else ""
        config = f" (config {entry.config})" if entry.config else ""
        raise ServiceError(
            f"dataset '{name}' = {entry.id}{config} is neither in the cache {folder} nor to be had from the hub: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}.{doubt} On a machine with network, "
            f"run `hf download --repo-type dataset {entry.id}` or load it once with this cache folder, then copy it"
        ) from error
    splits: dict[str, list[Row]] = {}
    for ours, theirs in entry.splits.items():
        if theirs not in found:
            raise InputError(f"{entry.id}: expected a split '{theirs}', got {sorted(map(str, found))}")
        missing = sorted(set(entry.columns.values()) - set(found[theirs].column_names))
        if missing:
            raise InputError(f"{entry.id}: expected columns {missing}, got {found[theirs].column_names}")
        rows = (_our_row(row, entry.columns, entry) for row in found[theirs])
        splits[ours] = [row for row in rows if row is not None]
    return entry.gather(splits) if entry.gather else splits


def _our_row(theirs: Row, columns: Mapping[str, str], entry: HubDataset) -> Row | None:
    row = {ours: theirs[column] for ours, column in columns.items()}
    if entry.labels is not None:
        if not 0 <= row["label"] < len(entry.labels):
            return None
        row["label"] = entry.labels[row["label"]]
    if isinstance(row.get("score"), int):
        row["score"] = float(row["score"])
    if isinstance(row.get("text"), str) and not row["text"].strip():
        return None
    return entry.convert(row) if entry.convert else row
