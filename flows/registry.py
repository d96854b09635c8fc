"""The flows that exist: one module of this folder each, found by the `PAPER` it defines. Nothing to edit here."""

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from paperflows.components.errors import InputError
from paperflows.flows.params import FlowParameters, near


@dataclass(frozen=True)
class Paper:
    """What a flow module says of itself in its constant `PAPER`.

    Args:
        slug: the module's name; also the section of params.yaml, the DVC stage and the MLflow experiment.
        title: of the paper.
        authors: "Cheng et al., Findings of ACL 2023".
        arxiv: its number there.
        parameters: the flow's one parameter model.
        cron: when the deployment would run, once its schedule is switched on.
    """

    slug: str
    title: str
    authors: str
    arxiv: str
    parameters: type[FlowParameters]
    cron: str = "0 3 * * 1"


def slugs() -> list[str]:
    """Names of all flows, read from the sources without importing them."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if _defines_paper(path))


def load_flow(slug: str) -> tuple[Paper, Any]:
    """The paper and its Prefect flow (the function of the module that bears the slug's name).

    Raises:
        InputError: there is no such flow; near names are given.
    """
    known = slugs()
    if slug not in known:
        raise InputError(f"unknown flow {slug!r}{near(slug, known)} There are: {', '.join(known)}")
    module = import_module(f"paperflows.flows.{slug}")
    return module.PAPER, getattr(module, slug)


def summaries() -> list[tuple[str, str]]:
    """(slug, first line of the module's docstring) of every flow, without importing them."""
    folder = Path(__file__).parent
    return [(slug, _docstring(folder / f"{slug}.py")) for slug in slugs()]


def _docstring(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def _defines_paper(path: Path) -> bool:
    body: Sequence[ast.stmt] = ast.parse(path.read_text(encoding="utf-8")).body
    return any(
        isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "PAPER" for t in node.targets)
        for node in body
    )
