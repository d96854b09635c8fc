"""One way to a dataset by its name, from the source that the caller names: builtin, hub or a folder."""

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Never

from paperflows.components.data.check import find_datasets, side_splits_first, split_files, warnings_of
from paperflows.components.data.dataset_rules import DatasetRules
from paperflows.components.data.hub import load_hub
from paperflows.components.data.jsonl import read_jsonl
from paperflows.components.data.problems import DataError, Problem
from paperflows.components.data.registry import HUB, HubDataset
from paperflows.components.data.task_types import SIDE_SPLITS
from paperflows.components.errors import InputError

Row = dict[str, Any]


@dataclass(frozen=True)
class Dataset:
    """A dataset that was checked while it was read.

    Attributes:
        source: "builtin", "hub:<id>" or the folder it came from.
        task: its task type, such as "pair regression".
        splits: rows by split; entities and passages are splits too.
        sha256: of the content of these splits, whatever form it was stored in.
        warnings: what may be meant so, such as texts that occur in train and in test.
        folder: where files named by rows (images, sounds) lie; None unless it came from a folder.
    """

    name: str
    source: str
    task: str
    splits: Mapping[str, list[Row]]
    sha256: str
    warnings: tuple[str, ...] = ()
    folder: Path | None = None


def load(
    source: str | Path,
    name: str,
    *,
    splits: Collection[str] | None = None,
    hub_cache: Path | None = None,
    hub_registry: Mapping[str, HubDataset] = HUB,
) -> Dataset:
    """Load and check one dataset. No source stands in for another.

    Args:
        source: "builtin", "hub", or a folder of datasets (or of one).
        name: of the dataset in that source.
        splits: only these; None is all. Entities and passages that they refer to always come along.
        hub_cache: where the hub's downloads lie; None is the library's own place.
        hub_registry: what the hub's names stand for.

    Raises:
        InputError: unknown name or split (with near ones), a name that leaves the folder, or data that breaks a rule.
        ServiceError: the hub cannot be reached and the dataset is not in its cache.
    """
    _refuse_paths(name)
    if source == "builtin":
        from paperflows.components.data.world import WORLD, build

        if name not in WORLD:
            _unknown("dataset", name, WORLD, "builtin")
        return _checked(name, "builtin", _numbered(build(name), "builtin", name), splits)
    if source == "hub":
        if name not in hub_registry:
            _unknown("dataset", name, hub_registry, "hub")
        entry = hub_registry[name]
        rows = load_hub(name, entry, cache=hub_cache)
        return _checked(name, f"hub:{entry.id}", _numbered(rows, f"hub:{entry.id}", name), splits)
    found = find_datasets(Path(source))
    folder = Path(source) / name
    if name not in found and not folder.is_dir():
        _unknown("dataset", name, found, str(source))
    files = split_files(found.get(name, folder))
    readable = {split: (str(file), read_jsonl(file)) for split, file in files.items()}
    return _checked(name, str(found[name]), readable, splits, folder=found[name])


def _checked(
    name: str,
    source: str,
    available: Mapping[str, tuple[str, Iterable[tuple[int, Row]]]],
    wanted: Collection[str] | None,
    *,
    folder: Path | None = None,
) -> Dataset:
    for split in wanted or ():
        if split not in available:
            _unknown("split", split, available, f"dataset '{name}' of {source}")

    def stop(problem: Problem) -> Never:
        raise DataError(problem)

    rules = DatasetRules(name, folder, stop)
    kept: dict[str, list[Row]] = {}
    for split in side_splits_first(available):
        if wanted is None or split in wanted or split in SIDE_SPLITS:
            path, rows = available[split]
            kept[split] = list(rules.split(split, path, rows))
    return Dataset(
        name=name,
        source=source,
        task=next(iter(rules.tasks.values()), ""),
        splits={split: kept[split] for split in sorted(kept)},
        sha256=rules.sha256,
        warnings=tuple(warnings_of(rules)),
        folder=folder,
    )


def _numbered(
    splits: Mapping[str, list[Row]], source: str, name: str
) -> dict[str, tuple[str, Iterable[tuple[int, Row]]]]:
    return {split: (f"{source}:{name}/{split}", enumerate(rows, start=1)) for split, rows in splits.items()}


def _refuse_paths(name: str) -> None:
    if not name or name in {".", ".."} or any(mark in name for mark in "/\\\0") or not name.isprintable():
        raise InputError(f"dataset name {name!r}: expected a plain name without separators, not a path")


def _unknown(what: str, name: str, among: Collection[str], where: str) -> Never:
    near = difflib.get_close_matches(name, among, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
    raise InputError(f"{what} {name!r} is not in {where}{hint} There are: {', '.join(sorted(among)) or 'none'}")
