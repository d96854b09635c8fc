"""Prompt files: Jinja, one a role, beside the module that uses them; their hash belongs to the request."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template


def render(path: Path, **values: Any) -> tuple[str, str]:
    """Text of a prompt file with `values` filled in, and the file's hash. Values are data: never rendered themselves.

    Raises:
        jinja2.UndefinedError: the file names a value that is not given.
    """
    template, digest = _load(path)
    return template.render(**values).strip(), digest


@cache
def _load(path: Path) -> tuple[Template, str]:
    source = path.read_text(encoding="utf-8")
    environment = Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False)
    return environment.from_string(source), hashlib.sha256(source.encode()).hexdigest()[:16]
