"""One split: strict streaming reading of `.jsonl` and `.jsonl.gz`, and atomic writing."""

import gzip
import json
import math
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

from paperflows.components.data.problems import DataError, Problem

SUFFIXES = (".jsonl", ".jsonl.gz")
MAX_LINE_BYTES = 4 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"
_UNWANTED = re.compile("[\x00\ud800-\udfff]")

Row = dict[str, Any]


def read_jsonl(
    path: Path,
    *,
    max_line_bytes: int = MAX_LINE_BYTES,
    on_error: Callable[[DataError], None] | None = None,
) -> Iterator[tuple[int, Row]]:
    """Yield (line number from 1, object) of one split, one line in memory at a time.

    A byte order mark and CRLF line ends are accepted, and blank lines after the last row. Everything else that is not
    one JSON object a line is refused: blank lines between rows, a key given twice, NaN and infinities (also `1e999`),
    NUL characters and lone surrogates.

    Args:
        path: a file whose name ends in .jsonl or .jsonl.gz.
        max_line_bytes: longest accepted line; bounds the memory.
        on_error: given, it receives the error of a bad line and reading goes on with the next line.

    Raises:
        DataError: an unreadable file, damaged gzip or too long line; or (without `on_error`) the first bad line.
    """
    path = Path(path)
    blank = 0
    for number, raw in _lines(path, max_line_bytes):
        if not raw.strip():
            blank = blank or number
            continue
        if blank:
            error = DataError(Problem(str(path), blank, None, "blank line before the last row; expected a JSON object"))
            if on_error is None:
                raise error
            on_error(error)
            blank = 0
        try:
            yield number, parse_line(raw, str(path), number)
        except DataError as error:
            if on_error is None:
                raise
            on_error(error)


def parse_line(raw: bytes, path: str, number: int) -> Row:
    """The JSON object of one line of UTF-8.

    Raises:
        DataError: names `path`, `number` and the column (from 1) or the byte (from 0) in the line.
    """

    def refuse(message: str) -> DataError:
        return DataError(Problem(path, number, None, message))

    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise refuse(f"not UTF-8 (byte {error.start} of the line: 0x{raw[error.start]:02x})") from None
    try:
        row = _DECODER.decode(text.strip(" \t\r\n"))
    except json.JSONDecodeError as error:
        raise refuse(f"not JSON (col {error.pos + 1}): {error.msg}") from None
    except _RefusedValue as error:
        raise refuse(str(error)) from None
    except RecursionError:
        raise refuse("nested too deeply") from None
    except ValueError:
        raise refuse("a number with too many digits") from None
    if not isinstance(row, dict):
        raise refuse(f"expected a JSON object, got {type(row).__name__}")
    if "\\u" in text:
        _refuse_unwanted(row, "", path, number)
    return row


def write_jsonl(path: Path, rows: Iterable[Row]) -> int:
    """Write rows, one JSON object a line with keys in their given order, and return their number.

    A reader sees the old file or the whole new one: temporary name in the same folder, fsync, rename. The same rows
    give the same bytes, also for `.jsonl.gz` (no time stamp, no file name in the header).

    Raises:
        DataError: the name does not end in .jsonl or .jsonl.gz, or a row is not JSON (NaN, lone surrogate, set, ...).
        OSError: the disk is full or the folder not writable; the old file is untouched.
    """
    path = Path(path)
    _refuse_other_names(path)
    temporary = path.with_name(f".{path.name}.tmp{os.getpid()}")
    count = 0
    try:
        with temporary.open("wb") as file:
            if path.name.endswith(".gz"):
                with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as stream:
                    count = _write_rows(stream, rows, path)
            else:
                count = _write_rows(file, rows, path)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _write_rows(stream: Any, rows: Iterable[Row], path: Path) -> int:
    count = 0
    for count, row in enumerate(rows, start=1):
        try:
            stream.write((json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8"))
        except (TypeError, ValueError) as error:
            raise DataError(Problem(str(path), count, None, f"this row cannot be written as JSON: {error}")) from None
    return count


def _lines(path: Path, max_line_bytes: int) -> Iterator[tuple[int, bytes]]:
    _refuse_other_names(path)
    number = 0
    try:
        with _open(path) as file:
            while raw := file.readline(max_line_bytes + 1):
                number += 1
                if len(raw) > max_line_bytes:
                    raise DataError(Problem(str(path), number, None, f"line longer than {max_line_bytes} bytes"))
                yield number, raw.removeprefix(_BOM) if number == 1 else raw
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(Problem(str(path), number + 1, None, f"damaged gzip file: {error}")) from None
    except OSError as error:
        raise DataError(Problem(str(path), None, None, f"cannot be read: {error.strerror or error}")) from None


def _open(path: Path) -> gzip.GzipFile | BufferedReader:
    return gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb")


def _refuse_other_names(path: Path) -> None:
    if not path.name.endswith(SUFFIXES):
        raise DataError(Problem(str(path), None, None, "expected a file name that ends in .jsonl or .jsonl.gz"))


class _RefusedValue(Exception):
    """Valid for Python's json module, not for us."""


def _no_constant(name: str) -> float:
    raise _RefusedValue(f"{name} is not JSON; expected a finite number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _RefusedValue(f"number {text[:30]} is too large; expected a finite number")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _RefusedValue(f"key {twice!r} occurs twice in one object")
    return row


_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_unique_keys)


def _refuse_unwanted(value: Any, where: str, path: str, number: int) -> None:
    """NUL and lone surrogates can only come from an escape, so this walk runs on few lines."""
    if isinstance(value, str):
        if found := _UNWANTED.search(value):
            raise DataError(Problem(path, number, where, f"character U+{ord(found[0]):04X} is not accepted in text"))
    elif isinstance(value, dict):
        for key, item in value.items():
            _refuse_unwanted(key, where or ascii(key)[1:-1], path, number)
            _refuse_unwanted(item, f"{where}.{key}" if where else key, path, number)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_unwanted(item, f"{where}[{index}]", path, number)
