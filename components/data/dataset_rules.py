"""The rules for a dataset as a whole: one type a split, unique ids, one type of labels, references that exist."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, KeysView
from pathlib import Path
from typing import Any

from paperflows.components.data.problems import Problem, shorten
from paperflows.components.data.task_types import ROW_TYPES, SIDE_SPLITS, RowType, detect, row_faults

Row = dict[str, Any]


class DatasetRules:
    """Checks the splits of one dataset, one row at a time; side splits (entities, passages) must be given first.

    Args:
        name: of the dataset, for messages.
        folder: where image and sound files lie; None when the rows do not come from a folder.
        report: receives each problem; it may raise to stop.
    """

    def __init__(self, name: str, folder: Path | None, report: Callable[[Problem], None]) -> None:
        self.name = name
        self.folder = None if folder is None else folder.resolve()
        self.report = report
        self.tasks: dict[str, str] = {}
        self.labels: Counter[str | int] = Counter()
        self.rows: dict[str, int] = {}
        self.extra_fields: set[str] = set()
        self.text_hashes: dict[str, set[int]] = {}
        self.splits_of_class: dict[str, set[str | int]] = {}
        self._side_ids: dict[str, set[str | int]] = {}
        self._digests: dict[str, Any] = {}

    @property
    def sha256(self) -> str:
        """Of the content of all splits seen, whatever their compression, line ends, key order or spelling in JSON."""
        total = hashlib.sha256()
        for split in sorted(self._digests):
            total.update(f"{split}\n{self._digests[split].hexdigest()}\n".encode())
        return total.hexdigest()

    def split(self, split: str, path: str, rows: Iterable[tuple[int, Row]]) -> Iterator[Row]:
        """Yield the good rows of one split; report what is wrong with the others."""
        kind: RowType | None = SIDE_SPLITS.get(split)
        digest = self._digests[split] = hashlib.sha256()
        texts = self.text_hashes[split] = set()
        label_lines: dict[type, list[int]] = {}
        seen: dict[Any, int] = {}
        twice: list[tuple[int, Any, int]] = []
        count = first_line = 0
        first_fields: KeysView[str] = {}.keys()
        for line, row in rows:
            count += 1
            if kind is None:
                kind = self._kind(split, path, line, row)
                if kind is None:
                    self.rows[split] = count
                    return
                first_line, first_fields = line, row.keys()
            elif row.keys() != first_fields and (lost := _lost_by_first(row, first_fields, kind)):
                message = f"expected, but missing in the split's first row; line {line} has it"
                self.report(Problem(path, first_line, lost, message))
                break
            faults = row_faults(row, kind) or list(self._faults_across(row, kind))
            for field, message in faults:
                self.report(Problem(path, line, field, message))
            if faults:
                continue
            key = _key(row, kind)
            if key is not None and key in seen:
                twice.append((line, row["id"], seen[key]))
            elif key is not None:
                seen[key] = line
            digest.update(_canonical(row))
            self._digest_file(row, kind, digest)
            texts.add(_text_hash(row))
            self.extra_fields |= row.keys() - kind.known
            if isinstance(label := row.get("label"), str | int):
                self.labels[label] += 1
                label_lines.setdefault(type(label), []).append(line)
                self.splits_of_class.setdefault(split, set()).add(label)
            yield row
        self.rows[split] = count
        if twice:
            listed = "; ".join(f"{shorten(value)} in lines {first} and {line}" for line, value, first in twice[:5])
            message = f"expected ids that occur once in the split, got {len(twice)} repeated: {listed}"
            self.report(Problem(path, twice[0][0], "id", message))
        self._check_label_types(path, label_lines)
        if split in SIDE_SPLITS:
            self._side_ids[split] = set(seen)
        if not count:
            self.report(Problem(path, None, None, "empty split; expected at least one row"))

    def _check_label_types(self, path: str, lines: dict[type, list[int]]) -> None:
        """The rarer type is the wrong one; in a later split, the one that the splits before do not have."""
        types = Counter(type(label).__name__ for label in self.labels.elements())
        if len(types) < 2 or not lines:
            return
        expected = types.most_common(1)[0][0]
        for found, where in lines.items():
            if found.__name__ != expected:
                for line in where[:5]:
                    message = f"expected {expected} as in the other rows of the dataset, got {found.__name__}"
                    self.report(Problem(path, line, "label", message))

    def _kind(self, split: str, path: str, line: int, row: Row) -> RowType | None:
        kind = detect(row.keys())
        if isinstance(kind, str):
            field, _, message = kind.removeprefix("field '").partition("': ")
            self.report(Problem(path, line, field, message))
            return None
        others = {task for task in self.tasks.values() if task != kind.task}
        if others:
            message = f"expected rows of task type {min(others)} as in the other splits, got {kind.task}"
            self.report(Problem(path, line, None, message))
            return None
        self.tasks[split] = kind.task
        for _, side in kind.refers:
            if side not in self._side_ids and side == "entities":
                message = f"{kind.task} needs a split 'entities' (entities.jsonl with id and name)"
                self.report(Problem(path, None, None, message))
                return None
        return kind

    def _faults_across(self, row: Row, kind: RowType) -> Iterator[tuple[str, str]]:
        """What is wrong with a row only in the light of the rest of the dataset."""
        for field, side in kind.refers:
            known = self._side_ids.get(side)
            if known is None and field in row and row[field] is not None:
                yield field, f"expected a split '{side}' that holds these ids, but there is none"
            unknown = [] if known is None else [one for one in _ids(row, field) if one not in known]
            if unknown:
                yield field.split(".")[0], f"expected an id of split '{side}', got {shorten(unknown[0])}"
        if kind.file is not None and self.folder is not None:
            yield from self._file_faults(row[kind.file], kind.file)

    def _file_faults(self, value: str, field: str) -> Iterator[tuple[str, str]]:
        assert self.folder is not None
        try:
            target = (self.folder / value).resolve()
            is_file = target.is_file()
        except (OSError, RuntimeError) as error:  # a name too long; links in a circle
            yield field, f"expected a file of the dataset's folder, got {shorten(value)}: {str(error)[:40]}"
            return
        if not target.is_relative_to(self.folder):
            yield field, f"expected a path inside the dataset's folder, got {shorten(value)}"
        elif not is_file:
            yield field, f"expected a file of the dataset's folder, got {shorten(value)}, which does not exist"

    def _digest_file(self, row: Row, kind: RowType, digest: Any) -> None:
        if kind.file is not None and self.folder is not None:
            digest.update(hashlib.sha256((self.folder / row[kind.file]).read_bytes()).digest())


def _lost_by_first(row: Row, first_fields: KeysView[str], kind: RowType) -> str | None:
    """The field for whose lack the first row made the split a split of another, less specific type."""
    better = detect(row.keys())
    if isinstance(better, str) or better in (kind, *SIDE_SPLITS.values()) or kind in SIDE_SPLITS.values():
        return None
    missing = sorted(better.required - first_fields)
    return missing[0] if missing and ROW_TYPES.index(better) < ROW_TYPES.index(kind) else None


def _key(row: Row, kind: RowType) -> Any:
    """What must be unique: the id; with what tells rows of one id apart where a type's rows share it."""
    if row.get("id") is None:
        return None
    if len(kind.key) > 1:
        return tuple(row[field] for field in kind.key)
    # a classification by topic numbers its rows within a topic, and again within each part it was drawn from
    return (row["id"], row["topic"], row["text"]) if "topic" in row and "label" in row else row["id"]


def _ids(row: Row, field: str) -> Iterator[Any]:
    first, _, then = field.partition(".")
    value = row.get(first)
    if value is None:
        return
    for item in value if isinstance(value, list) else [value]:
        yield item[int(then)] if then.isdigit() else item[then] if then else item


def _text_hash(row: Row) -> int:
    """Equal for rows with the same input text but for case and space; only compared within one process."""
    for file in ("audio", "image"):
        if file in row:
            return hash(str(row[file]))
    return hash(tuple(" ".join(str(row[field]).casefold().split()) for field in _INPUT_FIELDS if field in row))


_INPUT_FIELDS = (
    *("text", "text_pair", "aspect", "candidate", "reference", "captions", "tokens", "prompt", "abc"),
    *("question", "instruction", "input", "head", "relation", "tail"),
)


def _canonical(row: Row) -> bytes:
    return (json.dumps(row, ensure_ascii=False, sort_keys=True, separators=(",", ":")) + "\n").encode("utf-8")
