"""What is written from other files and checked in: dvc.yaml, prefect.yaml, the README's table of studies."""

import re
from pathlib import Path
from typing import Any

import yaml

from paperflows.components.errors import InputError
from paperflows.flows.params import load_parameters
from paperflows.flows.registry import Paper, load_flow, slugs
from paperflows.tasks.closure import closure
from paperflows.tasks.environment import prepare
from paperflows.tasks.report import claim_rows, findings_of, markdown, read_report, write_text

HEADER = "# Written by `paperflows sync` from the flows; do not edit.\n"
POOL = "paperflows"
STUDIES = re.compile(r"(?<=<!-- studies: written by `paperflows sync` -->\n).*?(?=<!-- end of studies -->)", re.S)


def synchronise(*, check: bool = False) -> list[Path]:
    """Write the files that differ from what the flows and the reports say, and return their paths.

    Raises:
        InputError: with `check`, when a file differs; README.md has no place for the table of studies.
    """
    root = prepare()
    papers = [load_flow(slug)[0] for slug in slugs()]
    wanted = {root / "dvc.yaml": dvc_yaml(root, papers), root / "prefect.yaml": prefect_yaml(root, papers)}
    wanted[root / "README.md"] = with_studies((root / "README.md").read_text(encoding="utf-8"), root)
    for path in sorted((root / "docs" / "results").glob("*.json")):
        wanted[path.with_suffix(".md")] = markdown(read_report(path))
    stale = [p for p, text in wanted.items() if not p.is_file() or p.read_text(encoding="utf-8") != text]
    if check and stale:
        raise InputError(
            f"{', '.join(p.name for p in stale)} differ from the flows or the reports: run `paperflows sync`"
        )
    for path in stale:
        write_text(path, wanted[path])
    return stale


def dvc_yaml(root: Path, papers: list[Paper]) -> str:
    """One stage a paper: its code is the true import closure of its flow, its parameters its section."""
    stages = {
        paper.slug: {
            "cmd": f"paperflows run {paper.slug}",
            "desc": f"{paper.title} ({paper.authors})",
            "deps": [path.relative_to(root).as_posix() for path in closure(f"paperflows.flows.{paper.slug}")],
            "params": [paper.slug],
            "outs": [f"artifacts/{paper.slug}", {f"reports/{paper.slug}.md": {"cache": False}}],
            "metrics": [{f"reports/{paper.slug}.json": {"cache": False}}],
            "plots": [{f"reports/{paper.slug}": {"cache": False}}],
        }
        for paper in papers
    }
    return HEADER + yaml.safe_dump({"stages": stages}, sort_keys=False, width=120, allow_unicode=True)


def prefect_yaml(root: Path, papers: list[Paper]) -> str:
    """One deployment a paper on one process work pool, its form filled from params.yaml, its schedule switched off."""
    deployments = []
    for paper in papers:
        params = load_parameters(paper.parameters, paper.slug, root)
        deployments.append(
            {
                "name": "laptop",
                "description": f"{paper.title} ({paper.authors}, arXiv {paper.arxiv})",
                "tags": ["paperflows", paper.slug],
                "entrypoint": f"paperflows.flows.{paper.slug}:{paper.slug}",
                "parameters": {"params": params.model_dump(mode="json")},
                "concurrency_limit": 1,
                "work_pool": {"name": POOL, "work_queue_name": None, "job_variables": {}},
                "schedules": [{"cron": paper.cron, "timezone": "UTC", "active": False}],
            }
        )
    content: dict[str, Any] = {"name": "paperflows", "prefect-version": "3.8.8", "pull": [], "deployments": deployments}
    return HEADER + yaml.safe_dump(content, sort_keys=False, width=120, allow_unicode=True)


def with_studies(readme: str, root: Path) -> str:
    """The text with the table of studies between its two marks.

    Raises:
        InputError: the marks are missing.
    """
    text, found = STUDIES.subn(lambda _: studies(root), readme)
    if not found:
        raise InputError("README.md: the marks between which the table of studies stands are missing")
    return text


def studies(root: Path) -> str:
    """A row for every report of docs/results: the first finding, and how many findings got which verdict."""
    reports = {path: read_report(path) for path in sorted((root / "docs" / "results").glob("*.json"))}
    lines = [
        "| flow | its first claim | ours | baseline | effect, 95 % interval | must be | verdict | hold, fail, open |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for path, report in reports.items():
        rows = claim_rows({**report, "claims": findings_of(report)})
        row, verdicts = rows[0], [one["verdict"] for one in rows]
        counts = ", ".join(str(verdicts.count(verdict)) for verdict in ("holds", "fails", "undecided"))
        link = f"[{report['paper']}]({path.relative_to(root).with_suffix('.md').as_posix()})"
        effect = f"{row['effect']} {row['95 % interval']}"
        lines.append(
            f"| {link} | {row['claim']} | {row['ours']} | {row['baseline']} | {effect} | {row['must be']} "
            f"| {row['verdict']} | {counts} |"
        )
    return "\n".join(lines) + "\n"
