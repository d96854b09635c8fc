"""`paperflows run`: parameters, Prefect, the flow, and the table at its end."""

import importlib
import json
import logging
import os
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from paperflows.components.errors import InputError
from paperflows.flows.params import load_parameters
from paperflows.tasks.environment import prepare

SERVED = Path(".state") / "served.json"


def run_flow(slug: str, *, profile: str, data: str | None, overrides: Sequence[str], debug: bool) -> None:
    """Run a flow in this process, print its verdicts and the path of the report page.

    Raises:
        InputError: unknown flow, parameter or folder, or bad data.
        ServiceError: a service that the flow needs is not there.
    """
    from paperflows.flows.params import near
    from paperflows.flows.registry import slugs

    if slug not in slugs():
        raise InputError(f"unknown flow {slug!r}{near(slug, slugs())} There are: {', '.join(slugs())}")
    root = prepare(quiet=not debug)
    server = served(root)
    if server and "PREFECT_API_URL" not in os.environ:
        os.environ["PREFECT_API_URL"] = server["prefect"] + "/api"
    from paperflows.flows.registry import load_flow

    paper, flow = load_flow(slug)
    params = load_parameters(paper.parameters, slug, root, profile=profile, data=data, overrides=overrides)
    if not debug:
        for name in ("prefect", "prefect.flow_runs", "prefect.task_runs", "prefect._internal"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    typer.echo(f"{slug}: {paper.title} ({profile}, data {params.data})", err=True)
    connected = "PREFECT_API_URL" in os.environ
    # a cluster's other machines could not reach a server on this one's loopback address
    alone = not (connected or params.ray.address or os.environ.get("RAY_ADDRESS"))
    report = _call_alone(flow, params, root) if alone else _call(flow, params)
    from paperflows.ledger import build_ledger

    page = build_ledger(root)
    print_report(report)
    if not connected:
        typer.echo(
            "no Prefect server was running: its UI will not show every task of this run (paperflows serve)", err=True
        )
    typer.echo(f"report page: {page}")


def _call(flow: Any, params: Any) -> dict[str, Any]:
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from paperflows.tasks.runner import runner

    # A heartbeat thread costs a second at the end of every synchronous flow; it is for deployments.
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        return flow.with_options(task_runner=runner(params.ray.address))(params)


def _call_alone(flow: Any, params: Any, root: Path) -> dict[str, Any]:
    """With a Prefect server of its own, which starts while what tasks need is imported."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from paperflows.processes import temporary_prefect, wait_for

    with temporary_prefect(root) as (url, server):
        for module in ("mlflow", "torch", "transformers"):
            importlib.import_module(module)
        wait_for(f"{url}/health", server)
        with temporary_settings({PREFECT_API_URL: url}):
            return _call(flow, params)


def served(root: Path) -> dict[str, str] | None:
    """Addresses of the servers that `paperflows serve` runs for this project, when they answer."""
    try:
        found: dict[str, str] = json.loads((root / SERVED).read_text(encoding="utf-8"))
        with urllib.request.urlopen(found["prefect"] + "/api/health", timeout=2):
            return found
    except (OSError, ValueError, KeyError):
        return None


def print_report(report: dict[str, Any]) -> None:
    """The table of claims and, below it, what the reader must know."""
    from rich.console import Console
    from rich.table import Table

    from paperflows.tasks.report import claim_rows

    rows = [{k: v for k, v in row.items() if k != "seeds"} for row in claim_rows(report)]
    table = Table(title=report["title"], title_justify="left")
    for column in rows[0]:
        table.add_column(column, no_wrap=column in ("verdict", "effect", "must be", "ours"))
    for row in rows:
        colour = {"holds": "green", "fails": "red"}.get(row["verdict"], "yellow")
        table.add_row(*(f"[{colour}]{v}[/]" if k == "verdict" else v for k, v in row.items()))
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    for note in filter(None, report["notes"]):
        console.print(note)
    console.print(f"{report['seconds']:.0f} s · {report['device']} · outputs {report['artifacts'][0]['path']}")
