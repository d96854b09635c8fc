"""Check a folder of the user's: what it holds, and where its first problems are."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from paperflows.components.data.dataset_rules import DatasetRules
from paperflows.components.data.jsonl import SUFFIXES, read_jsonl
from paperflows.components.data.problems import DataError, Problem
from paperflows.components.data.task_types import SIDE_SPLITS
from paperflows.components.errors import InputError

OTHER_FORMS = (".csv", ".tsv", ".json", ".txt", ".parquet", ".xlsx", ".arrow")
# what others call these splits
ALIASES = {"dev": "validation", "valid": "validation", "val": "validation", "training": "train", "testing": "test"}


@dataclass(frozen=True)
class DatasetCheck:
    """What a dataset holds.

    Attributes:
        task: the task type, "" when no split told one.
        splits: rows a split.
        labels: how often each label occurs, over all splits.
        sha256: of the content; the same dataset gives the same, compressed or not.
        problems: the first ones found; a dataset without any can be used.
        warnings: what may be meant so, such as texts that occur in train and in test.
    """

    name: str
    task: str
    splits: Mapping[str, int]
    labels: Mapping[str | int, int]
    sha256: str
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """No problem was found."""
        return not self.problems


class _Enough(Exception):
    """As many problems as were asked for."""


def check_folder(path: Path, *, max_errors: int = 5) -> DatasetCheck:
    """Read every row of the dataset in `path` and say what is wrong, up to `max_errors` problems.

    Raises:
        InputError: no such folder, or it has no split file.
    """
    path = Path(path)
    problems: list[Problem] = []

    def report(problem: Problem) -> None:
        problems.append(problem)
        if len(problems) >= max_errors:
            raise _Enough

    rules = DatasetRules(path.name, path, report)
    try:
        files = split_files(path)
        for split in side_splits_first(files):
            try:
                rows = read_jsonl(files[split], on_error=lambda error: report(error.problem))
                for _ in rules.split(split, str(files[split]), rows):
                    pass
            except DataError as error:
                report(error.problem)
    except DataError as error:
        problems.append(error.problem)
    except _Enough:
        pass
    return DatasetCheck(
        name=path.name,
        task=next(iter(rules.tasks.values()), ""),
        splits={split: rules.rows[split] for split in sorted(rules.rows)},
        labels=dict(rules.labels),
        sha256=rules.sha256,
        problems=tuple(problems),
        warnings=tuple(warnings_of(rules)),
    )


def split_files(folder: Path) -> dict[str, Path]:
    """The split files of one dataset's folder by split name, sorted.

    Raises:
        InputError: no such folder, or no split file in it.
        DataError: a split given twice (plain and compressed), or a link out of the folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder with <split>.jsonl or <split>.jsonl.gz files, but there is none")
    files: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if not file.name.endswith(SUFFIXES) or file.name.startswith("."):
            continue
        split = re.sub(r"\.jsonl(\.gz)?$", "", file.name)
        if not file.resolve().is_relative_to(folder.resolve()):
            raise DataError(Problem(str(file), None, None, "a link out of the dataset's folder"))
        if split in files:
            raise DataError(Problem(str(file), None, None, f"split '{split}' is also given by {files[split].name}"))
        files[split] = file
    if not files:
        others = other_forms(folder)
        but = f" but {', '.join(others[:3])}: make JSON lines of it, a row a line" if others else ""
        raise InputError(f"{folder}: expected <split>.jsonl or <split>.jsonl.gz files, found none{but}")
    return files


def other_forms(folder: Path) -> list[str]:
    """Names of the files in a folder that look like data, in a form that is not read."""
    return sorted(file.name for file in folder.iterdir() if file.suffix.lower() in OTHER_FORMS)


def passed_over(root: Path) -> dict[str, list[str]]:
    """Folders in `root` that are no datasets, by name, though they hold data in forms that are not read."""
    folders = {child.name: child for child in sorted(root.iterdir()) if child.is_dir() and not _holds_splits(child)}
    return {name: others for name, folder in folders.items() if (others := other_forms(folder))}


def find_datasets(root: Path) -> dict[str, Path]:
    """Folders of datasets by name: `root` itself when it holds split files, else its children that do.

    Raises:
        InputError: no such folder, a child is a link out of it, or it is a dataset and holds some.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: expected a folder of datasets, but there is none")
    own = _holds_splits(root)
    found: dict[str, Path] = {}
    for child in sorted(root.iterdir()):
        if child.name.startswith(".") or not child.is_dir() or not _holds_splits(child):
            continue
        if not child.resolve().is_relative_to(root.resolve()):
            raise InputError(f"{child}: a link out of {root}")
        found[child.name] = child
    if own and found:
        raise InputError(
            f"{root} holds split files ({own}) and datasets ({', '.join(list(found)[:3])}): give the files a folder of "
            "their own"
        )
    return {root.resolve().name: root} if own else found


def side_splits_first(splits: Mapping[str, object]) -> list[str]:
    """Names of splits in the order in which they can be checked."""
    return sorted(splits, key=lambda split: (split not in SIDE_SPLITS, split))


def warnings_of(rules: DatasetRules) -> list[str]:
    """What may be meant so, but should be known."""
    found = []
    for train in filter(_is_train, rules.text_hashes):
        for test in rules.text_hashes:
            shared = len(rules.text_hashes[train] & rules.text_hashes[test]) if _is_held_out_of(train, test) else 0
            if shared:
                found.append(f"{shared} different texts of {test} also occur in {train}")
    scored = {*rules.tasks.values()} - {"text"}  # plain texts are read, not scored
    if scored and rules.rows.keys() & {"train", "validation"} and not any("test" in s.split("_") for s in rules.rows):
        found.append("no split named test: what scores this dataset refuses it, or takes validation for it")
    for split in rules.rows:
        meant = ALIASES.get(split.casefold(), split.casefold())
        if split != meant and meant in ("train", "validation", "test") and meant not in rules.rows:
            found.append(f"split {split}: flows read a split named {meant}")
    if rules.extra_fields:
        found.append(f"fields that no task reads: {', '.join(sorted(rules.extra_fields))}")
    for split, labels in rules.splits_of_class.items():
        if _is_train(split):
            if len(labels) == 1:
                found.append(f"{split} has only one label: {next(iter(labels))!r}")
            if unseen := sorted(map(str, rules.labels.keys() - labels)):
                found.append(f"labels that {split} does not have: {', '.join(unseen[:10])}")
    return found


def _is_train(split: str) -> bool:
    return "train" in split.split("_")


def _is_held_out_of(train: str, split: str) -> bool:
    """`model_test` and `model_test_hard` belong to `model_train`; `validation`, `test` to `train` and `train_few`."""
    return split.startswith(tuple(train.split("train")[0] + name for name in ("test", "validation")))


def _holds_splits(folder: Path) -> str:
    """Name of the first split file in a folder; "" where there is none."""
    names = (file.name for file in folder.iterdir())
    return min((name for name in names if name.endswith(SUFFIXES) and not name.startswith(".")), default="")
