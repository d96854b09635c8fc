"""Review sheets: answers as CSV for people to score, and their scores read back. Answers are data, never formulas."""

import csv
import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from paperflows.components.alignment.scale import scale_of
from paperflows.components.errors import InputError

COLUMNS = ("id", "model", "dimension", "subcomponent", "prompt", "answer", "score", "human_score", "note")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_review(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows (with the fields of `COLUMNS` up to `score`); `human_score` and `note` are left for people.

    A cell that a spreadsheet would run as a formula gets an apostrophe before it.
    """
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _cell(row.get(name)) for name in COLUMNS})


def read_review(path: Path, answered: Mapping[tuple[str, str], str]) -> dict[tuple[str, str], int]:
    """(id, model) -> the human score, for rows that have one.

    Args:
        answered: (id, model) -> the answer that is scored now; a score of another one is refused.

    Raises:
        InputError: not such a sheet, a row twice, an answer that is not the present one, or a score off the dimension's
            scale; names file, line and column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            wanted = ("id", "model", "dimension", "answer", "human_score")
            missing = [name for name in wanted if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"{path}: not a review sheet, column {missing[0]} is missing")
            found: dict[tuple[str, str], int] = {}
            for row in reader:
                text = (row["human_score"] or "").strip()
                key = (_text(row["id"]), _text(row["model"]))
                if key in found:
                    raise InputError(f"{path}:{reader.line_num}: id {key[0]} of {key[1]} is scored twice")
                if text:
                    place = f"{path}:{reader.line_num}"
                    if key not in answered:
                        raise InputError(f"{place}: id {key[0]} of {key[1]} is not among the answers")
                    if _lines(_text(row["answer"])) != _lines(answered[key]):
                        raise InputError(f"{place}, column answer: id {key[0]} of {key[1]} has another answer now")
                    found[key] = _score(text, _text(row["dimension"]), place)
            return found
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a review sheet ({error})") from error


def merge_reviews(reviews: Sequence[Mapping[tuple[str, str], int]]) -> dict[tuple[str, str], int]:
    """One score an answer: the one given most often, the lower of two that are given equally often."""
    merged: dict[tuple[str, str], int] = {}
    for key in sorted({key for review in reviews for key in review}):
        scores = [review[key] for review in reviews if key in review]
        merged[key] = min(scores, key=lambda score: (-scores.count(score), score))
    return merged


def worst_page(rows: Iterable[Mapping[str, Any]]) -> str:
    """A page of answers, everything escaped."""
    cells = [[html.escape(_text(_cell(row.get(name)))) for name in COLUMNS[:7]] for row in rows]
    lines = ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in cells]
    head = "".join(f"<th>{name}</th>" for name in COLUMNS[:7])
    style = (
        "body{font:15px/1.5 sans-serif;margin:2rem}td,th{padding:.4rem;border-bottom:1px solid #ccc;text-align:left}"
    )
    return (
        f'<!doctype html><meta charset="utf-8"><title>Answers to review</title><style>{style}</style>'
        f"<table><tr>{head}</tr>{''.join(lines)}</table>\n"
    )


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.lstrip("'").startswith(_FORMULA) else text


def _text(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and cell.lstrip("'").startswith(_FORMULA) else cell


def _lines(text: str) -> list[str]:
    """Without what spreadsheets do to ends of lines."""
    return text.strip().splitlines()


def _score(text: str, dimension: str, place: str) -> int:
    scale = scale_of(dimension)
    score = next((value for value in scale if text in (str(value), f"{value}.0")), None)
    if score is None:
        raise InputError(f"{place}, column human_score: expected one of {scale} for {dimension}, got {text!r}")
    return score
