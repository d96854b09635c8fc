"""Forms in which a target is written and read: a Python function, UIE's brackets, JSON lines (CodeIE, section 3).

A form writes the prompt of a sentence and the target of its records, and reads what a model wrote as raw records with
counts of what was wrong. Texts are written by `json.dumps`, so that quotes and backslashes survive both ways. Nothing
that is read is ever executed.
"""

import ast
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Protocol

from paperflows.components.extraction.records import ENTITY_KEYS, RELATION_KEYS, Record, Schema

END = "# END"
LONGEST = 5000  # characters of a line that is read
HEADS = ("def named_entity_recognition(", "def relation_extraction(")  # a prompt that a model repeats


@dataclass
class Read:
    """Raw records, none checked against a schema yet, and what could not be read.

    `counts`: ill_formed (lines, or what is left of brackets, that are no record), truncated (a last line that is cut),
    extra_keys, untyped_tail (a relation whose tail has no bracket of its own), beside (comments, `return` and `print`
    around code, words behind brackets: no harm is done to a record). An answer with neither of the first two holds a
    target that some records have.
    """

    records: list[Record] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


class Form(Protocol):
    """One way of writing."""

    name: str

    def prompt(self, sentence: str, schema: Schema) -> str:
        """What the model is given; it ends where the target begins."""

    def target(self, records: Sequence[Record], schema: Schema) -> str:
        """What the model should write."""

    def read(self, text: str, schema: Schema) -> Read:
        """What a model wrote."""


class Code:
    """A function whose body appends records to a list ("pl-func")."""

    name = "code"

    def prompt(self, sentence: str, schema: Schema) -> str:
        """Head, docstring, the sentence, an empty list and a comment."""
        if schema.relations:
            head, what, target = "relation_extraction", "the relations of named entities", "entity_relation_list"
            comment = "extracted relations"
        else:
            head, what, target = "named_entity_recognition", "named entities", "entity_list"
            comment = "extracted named entities"
        return (
            f'def {head}(input_text):\n\t""" extract {what} from the input_text . """\n'
            f"\tinput_text = {json.dumps(sentence, ensure_ascii=False)}\n\t{target} = []\n\t# {comment}\n"
        )

    def target(self, records: Sequence[Record], schema: Schema) -> str:
        """One `append` a record."""
        name = "entity_relation_list" if schema.relations else "entity_list"
        return "".join(f"\t{name}.append({json.dumps(record, ensure_ascii=False)})\n" for record in records)

    def read(self, text: str, schema: Schema) -> Read:
        """Every line that is a call of `append` with a dictionary of texts, however it is indented or quoted."""
        found = Read()
        lines = _answer_lines(text)
        for place, line in enumerate(lines):
            stripped = line.strip()
            if not stripped:
                continue
            if stripped.startswith(("#", "```", '"""', "return", "print")):
                found.counts["beside"] += 1
                continue
            record, extra = _appended(stripped, _keys(schema))
            if record is not None:
                found.records.append(record)
                found.counts["extra_keys"] += extra
            elif place == len(lines) - 1 and "append" in stripped and not text.endswith("\n"):
                found.counts["truncated"] += 1
            else:
                found.counts["ill_formed"] += 1
        if text.strip() and not found.records and not found.counts["ill_formed"] + found.counts["truncated"]:
            found.counts["ill_formed"] += 1  # words without a record; the answer "no record" is empty
        return found


class Brackets:
    """UIE's structured extraction language with its short marks ("nl-sel")."""

    name = "sel"

    def prompt(self, sentence: str, schema: Schema) -> str:
        """The text and a cue."""
        cue = (
            "The relations of named entities in the text: " if schema.relations else "The named entities in the text: "
        )
        return f'The text is : "{sentence}". {cue}'

    def target(self, records: Sequence[Record], schema: Schema) -> str:
        """`<0> type <5> span <1>` an entity, in it `<0> relation <5> span <1>` for each relation that it heads.

        Only entities of relations are written where these are asked for, as in code; the type of a tail stands in the
        tail's own bracket.
        """
        blocks = [(record["type"], record["text"], "") for record in records] if not schema.relations else []
        if schema.relations:
            tails: dict[tuple[str, str], str] = {}
            for r in records:
                head, tail = (r["ent1_type"], r["ent1_text"]), (r["ent2_type"], r["ent2_text"])
                tails[head] = f"{tails.get(head, '')}<0> {r['rel_type']} <5> {tail[1]} <1> "
                tails.setdefault(tail, "")
            blocks = [(kind, text, inside) for (kind, text), inside in tails.items()]
        parts = [f"<0> {kind} <5> {text} {inside}<1>" for kind, text, inside in blocks]
        return f"<0> {' '.join(parts)} <1>\n" if parts else "<0> <1>\n"

    def read(self, text: str, schema: Schema) -> Read:
        """Every innermost bracket (entities), or bracket with the brackets in it (relations), of the first line and of
        those after it that begin with one; ill-formed is each bracket that is left over, and words between them.
        """
        found = Read()
        first, *others = _cut(text).strip().split("\n")
        more = list(takewhile(lambda other: other.lstrip().startswith("<"), others))
        line = " ".join([first, *more])[:LONGEST]
        body = r"(?!\s)((?:(?!<[015]>).)+?)(?<!\s)"  # without spaces at its ends, which would be tried at every length
        inner = rf"<0>\s*{body}\s*<5>\s*{body}\s*<1>"
        several = r"((?:<0>(?:(?!<[01]>).)*<1>\s*)+)(?:<1>)?"
        outer = rf"<0>\s*{body}\s*<5>\s*{body}\s*(?:{several}|<1>)" if schema.relations else inner
        blocks = list(re.finditer(outer, line))
        types = {match[2].strip(): match[1].strip() for match in reversed(blocks)}
        for match in blocks:
            kind, span = match[1].strip(), match[2].strip()
            if not schema.relations:
                _keep(found, (span, kind), ENTITY_KEYS)
                continue
            inside = match[3] or ""
            tails = re.findall(inner, inside)
            found.counts["ill_formed"] += int(len(tails) < inside.count("<0>"))
            for relation, tail in tails:
                if tail.strip() in types:
                    _keep(found, (relation, kind, span, types[tail.strip()], tail), RELATION_KEYS)
                else:
                    found.counts["untyped_tail"] += 1
        left = "".join(re.sub(outer, "", line).split())
        whole, behind = left.startswith("<0><1>"), left.removeprefix("<0><1>")
        if whole and "<" not in behind and (found.records or not behind):
            found.counts["beside"] += bool(behind) or any(map(str.strip, others[len(more) :]))
        else:
            found.counts["ill_formed"] += max(1, left.count("<0>") - 1)
        return found


class JSONLines:
    """A JSON object a line."""

    name = "json"

    def prompt(self, sentence: str, schema: Schema) -> str:
        """The text and a cue."""
        return f"text: {json.dumps(sentence, ensure_ascii=False)}\n"

    def target(self, records: Sequence[Record], schema: Schema) -> str:
        """The records."""
        return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)

    def read(self, text: str, schema: Schema) -> Read:
        """Every line that is an object of texts."""
        found = Read()
        lines = [line for line in _cut(text).split("\n") if line.strip()]
        for place, line in enumerate(lines):
            try:
                value = json.loads(line[:LONGEST])
            except (ValueError, RecursionError):
                cut = place == len(lines) - 1 and not text.endswith("\n")
                found.counts["truncated" if cut else "ill_formed"] += 1
                continue
            record, extra = _texts(value, _keys(schema)) if isinstance(value, dict) else (None, 0)
            if record is None:
                found.counts["ill_formed"] += 1
            else:
                found.records.append(record)
                found.counts["extra_keys"] += extra
        return found


FORMS: dict[str, Form] = {form.name: form for form in (Code(), Brackets(), JSONLines())}


def _keep(found: Read, values: Sequence[str], keys: Sequence[str]) -> None:
    """A record of these texts, unless one is empty."""
    stripped = [value.strip() for value in values]
    if all(stripped):
        found.records.append(dict(zip(keys, stripped, strict=True)))
    else:
        found.counts["ill_formed"] += 1


def _keys(schema: Schema) -> tuple[str, ...]:
    return RELATION_KEYS if schema.relations else ENTITY_KEYS


def _cut(text: str) -> str:
    """The answer alone: up to the end mark, a fence that closes it, or a new function."""
    text = text.split(END)[0]
    if "```" in text:
        parts = text.split("```")
        fenced = parts[1].removeprefix("python").removeprefix("json").lstrip("\n") if len(parts) > 1 else ""
        text = fenced if fenced.strip() else parts[0]
    if text.lstrip().startswith(HEADS):
        return text
    return re.split(r"(?m)^\s*(?:async\s+)?def\s|^\s*class\s", text)[0]


def _answer_lines(text: str) -> list[str]:
    """Lines of the answer; a repeated prompt before it (head, sentence, empty list) is passed over."""
    lines = _cut(text).split("\n")
    if lines and lines[0].lstrip().startswith(HEADS):
        start = next((i for i, line in enumerate(lines) if re.search(r"=\s*\[\s*\]", line)), len(lines) - 1)
        lines = lines[start + 1 :]
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def _appended(line: str, keys: Sequence[str]) -> tuple[Record | None, int]:
    """The dictionary that a line appends, and how many keys it has too many; None when it is no such line."""
    if len(line) > LONGEST:
        return None, 0
    try:
        tree = ast.parse(line, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None, 0
    if not (isinstance(tree, ast.Call) and isinstance(tree.func, ast.Attribute) and tree.func.attr == "append"):
        return None, 0
    if len(tree.args) != 1 or tree.keywords:
        return None, 0
    value = tree.args[0]
    pairs: dict[Any, Any] = {}
    if isinstance(value, ast.Dict):
        pairs = {_constant(k): _constant(v) for k, v in zip(value.keys, value.values, strict=True)}
    elif (
        isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "dict" and not value.args
    ):
        pairs = {keyword.arg: _constant(keyword.value) for keyword in value.keywords}
    return _texts(pairs, keys)


def _texts(value: dict[Any, Any], keys: Sequence[str]) -> tuple[Record | None, int]:
    if not all(isinstance(value.get(key), str) for key in keys):
        return None, 0
    return {key: value[key] for key in keys}, len(value) - len(keys)


def _constant(node: ast.expr | None) -> Any:
    return node.value if isinstance(node, ast.Constant) else None
