"""What real models do to a target in code form: twelve kinds of damage, to measure what a parser recovers.

Each kind takes the lines of a target, one record each, and the numbers of the lines to damage; it gives the text and
the numbers of records that are still written in it (`kept`): a parser should find exactly these.
"""

import json
import re
from collections.abc import Callable, Sequence
from random import Random

Damage = Callable[[list[str], set[int]], tuple[str, set[int]]]


def _each(change: Callable[[str], str], *, keeps: bool) -> Damage:
    def damage(lines: list[str], hit: set[int]) -> tuple[str, set[int]]:
        text = "".join(change(line) if i in hit else line for i, line in enumerate(lines))
        return text, set(range(len(lines))) if keeps else set(range(len(lines))) - hit

    return damage


def _record(line: str) -> dict[str, str]:
    return json.loads(line[line.index("(") + 1 : line.rindex(")")])


def _rewrite(line: str, argument: str) -> str:
    return f"{line[: line.index('(')]}({argument})\n"


def _whole(before: str, after: str) -> Damage:
    return lambda lines, hit: (before + "".join(lines) + after, set(range(len(lines))))


def _cut_last(lines: list[str], hit: set[int]) -> tuple[str, set[int]]:
    if not lines:
        return "", set()
    last = lines[-1].rstrip("\n")
    return "".join(lines[:-1]) + last[: max(1, len(last) * 2 // 3)], set(range(len(lines) - 1))


KINDS: dict[str, Damage] = {
    "no_indent": _each(lambda line: line.lstrip("\t"), keeps=True),
    "spaces": _each(lambda line: line.replace("\t", "    "), keeps=True),
    "dict_call": _each(
        lambda line: _rewrite(line, "dict(" + ", ".join(f"{k}={v!r}" for k, v in _record(line).items()) + ")"),
        keeps=True,
    ),
    "single_quotes": _each(lambda line: _rewrite(line, repr(_record(line))), keeps=True),
    "swapped_keys": _each(
        lambda line: _rewrite(line, json.dumps(dict(reversed(_record(line).items())), ensure_ascii=False)), keeps=True
    ),
    "extra_key": _each(
        lambda line: _rewrite(line, json.dumps({**_record(line), "confidence": "high"}, ensure_ascii=False)), keeps=True
    ),
    "trailing_comment": _each(lambda line: line.rstrip("\n") + "  # an entity\n", keeps=True),
    "fence": _whole("```python\n", "```\nThese are all."),
    "new_function": _whole("", '\ndef another(input_text):\n\tentity_list.append({"text": "x", "type": "y"})\n'),
    "set": _each(lambda line: _rewrite(line, "{" + ", ".join(map(repr, _record(line).values())) + "}"), keeps=False),
    "bullet": _each(lambda line: "- " + " (".join(_record(line).values()) + ")\n", keeps=False),
    "cut": _cut_last,
}


def corrupt(target: str, kind: str, rate: float, random: Random) -> tuple[str, set[int]]:
    """Damage `rate` of the records of a target in code form; the text and the numbers of the records left in it."""
    lines = target.splitlines(keepends=True)
    hit = {i for i in range(len(lines)) if random.random() < rate}
    return KINDS[kind](lines, hit)


def official_records(text: str, keys: Sequence[str]) -> list[dict[str, str]]:
    """What the official regular expressions find: double quotes, keys in their order, a line end behind the call."""
    body = r",\s*".join(rf'"{key}":\s*"(.*?)"' for key in keys)
    found = re.findall(rf"\.append\(\{{{body}\}}\)(?=\n)", text)
    return [dict(zip(keys, one if isinstance(one, tuple) else (one,), strict=True)) for one in found]
