"""The task types: which fields tell one from another, its row model, and what else its rows must satisfy."""

import difflib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ValidationError

from paperflows.components.data import constraints, schemas
from paperflows.components.data.problems import shorten

Row = dict[str, Any]


@dataclass(frozen=True)
class RowType:
    """One form that the rows of a split may have.

    Attributes:
        name: as users read it.
        task: the task type of a dataset whose splits have this form.
        model: types of the fields.
        key: fields that no two rows of a split may share together (only `id` where rows have one).
        check: what fields must satisfy together.
        file: the field that names a file inside the dataset's folder.
        refers: (path to ids in the row, side split that must hold them).
    """

    name: str
    task: str
    model: type[BaseModel]
    key: tuple[str, ...] = ("id",)
    check: Callable[[Row], Iterator[tuple[str, str]]] = constraints.no_fault
    file: str | None = None
    refers: tuple[tuple[str, str], ...] = ()

    @cached_property
    def known(self) -> frozenset[str]:
        """Names of all its fields, as they stand in a file."""
        return frozenset(field.alias or name for name, field in self.model.model_fields.items())

    @cached_property
    def required(self) -> frozenset[str]:
        """Names of the fields a row must have."""
        fields = self.model.model_fields.items()
        return frozenset(field.alias or name for name, field in fields if field.is_required())


def _row_type(task: str, model: type[BaseModel], **more: Any) -> RowType:
    return RowType(more.pop("name", task), task, model, **more)


# In this order: the first whose required fields a row has all of. `text` asks for least, so it comes last.
ROW_TYPES: tuple[RowType, ...] = (
    _row_type(
        "aspect sentiment", schemas.AspectSentiment, key=("id", "from", "to"), check=constraints.aspect_is_in_text
    ),
    _row_type("relation classification", schemas.RelationClassification, check=constraints.mentions_are_in_tokens),
    _row_type("relations", schemas.Relations, check=constraints.spans_are_in_tokens),
    _row_type("tagging", schemas.Tagging, check=constraints.tags_fit_tokens),
    _row_type("reasoning chains", schemas.ReasoningChains),
    _row_type("reasoning", schemas.Reasoning),
    _row_type("question answering", schemas.QuestionAnswering, refers=(("passages", "passages"),)),
    _row_type("multiple choice", schemas.MultipleChoice, check=constraints.answer_is_a_choice),
    _row_type(
        "text graph",
        schemas.TextGraph,
        check=constraints.mentions_are_in_text,
        refers=(("mentions.entity", "entities"), ("triples.0", "entities"), ("triples.2", "entities")),
    ),
    _row_type("knowledge triples", schemas.KnowledgeTriple, refers=(("head", "entities"), ("tail", "entities"))),
    _row_type("minimal pairs", schemas.MinimalPair),
    _row_type("paraphrase sets", schemas.ParaphraseSet),
    _row_type("image", schemas.Image, file="image"),
    _row_type("speech", schemas.Speech, file="audio"),
    _row_type("music", schemas.Music),
    _row_type("prompts", schemas.Prompt),
    _row_type("instructions", schemas.Instruction),
    _row_type("pair regression", schemas.PairRegression),
    _row_type("classification", schemas.Correctness, name="correctness"),
    _row_type("classification", schemas.Classification),
    _row_type("text", schemas.PlainText),
)

# Splits that other splits refer to, by their name; they have no task of their own.
SIDE_SPLITS: dict[str, RowType] = {
    "entities": RowType("entities", "", schemas.Entity),
    "passages": RowType("passages", "", schemas.Passage),
}


def detect(fields: Collection[str]) -> RowType | str:
    """The row type that these field names tell, or a sentence on why none does, with the nearest and what it lacks.

    A name that misses a more specific type by one likely typing error (`labl`) is reported, not taken as plain text.
    """
    given = frozenset(fields)
    found = next((kind for kind in ROW_TYPES if kind.required <= given), None)
    for kind in ROW_TYPES[: ROW_TYPES.index(found)] if found else ROW_TYPES:
        missing = sorted(kind.required - given)
        if len(missing) == 1 and (near := _nearest(missing[0], given - kind.known)):
            return f"field '{missing[0]}': expected for task type {kind.name}, got '{near}'"
    if found:
        return found
    nearest = max(ROW_TYPES, key=lambda kind: (len(kind.required & given) / len(kind.required), -len(kind.required)))
    if not nearest.required & given:
        return (
            f"field 'text': expected, but missing; no task type has the fields {sorted(given)}. Such as: text and "
            "label; text, text_pair and score; tokens and tags; or text alone"
        )
    missing = sorted(nearest.required - given)
    return (
        f"field '{missing[0]}': expected, but missing; no task type has the fields {sorted(given)}. "
        f"Nearest: {nearest.name}, which lacks {missing}"
    )


def row_faults(row: Row, kind: RowType) -> list[tuple[str, str]]:
    """(field, message) of everything wrong within one row; empty when it is good."""
    try:
        kind.model.__pydantic_validator__.validate_python(row)
    except ValidationError as error:
        return _explain(error, row, kind)
    for name in row.keys() - kind.known:
        if near := _nearest(name, kind.known - row.keys()):
            return [(name, f"unknown field; expected '{near}'?")]
    return list(kind.check(row))


def _explain(error: ValidationError, row: Row, kind: RowType) -> list[tuple[str, str]]:
    faults: dict[str, str] = {}
    for item in error.errors(include_url=False, include_context=False):
        steps = [step for step in item["loc"] if isinstance(step, int) or step in _names(kind)]
        field = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")
        field = "from" if field == "start" and "from" in kind.known else field
        if item["type"] == "missing":
            near = _nearest(field, row.keys() - kind.known)
            faults[field] = f"expected, but missing{f' (got {near!r})' if near else ''}"
        else:
            wanted = _WANTED.get(item["type"]) or item["msg"].lower()
            wanted = wanted.removeprefix("input should be ")
            before = faults.get(field)
            wanted = f"{before.split(', got ')[0].removeprefix('expected ')} or {wanted}" if before else wanted
            faults[field] = f"expected {wanted}, got {shorten(item['input'])}"
    # of a union's branches, the one that got deepest into the value says most
    return [(field, said) for field, said in faults.items() if not any(_inside(other, field) for other in faults)]


def _inside(field: str, outer: str) -> bool:
    return field.startswith((f"{outer}[", f"{outer}."))


_WANTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "string_pattern_mismatch": "text that is not empty",
    "string_too_short": "text that is not empty",
}


def _names(kind: RowType) -> set[str]:
    """Field names of the row and of the objects in it (a union's error also holds names of types)."""
    names = set(kind.known)
    for model in (schemas.TokenSpan, schemas.TypedLink, schemas.LinkedMention, schemas.Chain, schemas.Mention):
        names |= model.model_fields.keys()
    return names


def _nearest(name: str, among: Collection[str]) -> str | None:
    found = difflib.get_close_matches(name, among, n=1, cutoff=0.75)
    return found[0] if found else None
