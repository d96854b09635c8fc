"""The command `paperflows`. Heavy libraries are imported by the command that needs them."""

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from paperflows.components.errors import InputError, ServiceError

app = typer.Typer(
    help="Nineteen NLP papers as flows: the method, its baselines and a verdict, on your own data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Datasets in the project's form.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Slug = Annotated[str, typer.Argument(help="Name of the flow; `paperflows list` shows them.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show Prefect's log and full tracebacks.")]


@app.command("list")
def list_flows() -> None:
    """List the flows with their papers."""
    from paperflows.flows.registry import summaries

    for slug, summary in summaries():
        typer.echo(f"{slug:<16} {summary}")


@app.command()
def run(
    slug: Slug,
    profile: Annotated[str, typer.Option(help="laptop, smoke, study or paper: how much is computed.")] = "laptop",
    data: Annotated[str | None, typer.Option(help="builtin, hub, or a folder of datasets.")] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="Change one parameter, such as student.layers=4.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Run a flow: the method, its baselines, and a verdict on each claim."""
    from paperflows.launch import run_flow

    try:
        run_flow(slug, profile=profile, data=data, overrides=sets or [], debug=debug)
    except KeyboardInterrupt:
        typer.echo("stopped; start again to go on from the last checkpoint", err=True)
        raise


@app.command()
def report(
    save: Annotated[
        str | None, typer.Option("--save", help="Copy the report of this run (a folder below runs/) to docs/results.")
    ] = None,
) -> None:
    """Build the report page of all runs (reports/index.html)."""
    from paperflows.ledger import build_ledger, save_result
    from paperflows.tasks.environment import project_root

    root = project_root()
    if save:
        typer.echo(f"saved {save_result(root, save)}")
    typer.echo(f"report page: {build_ledger(root)}")


@app.command()
def serve(
    port: Annotated[int, typer.Option(help="Port of the report page; Prefect and MLflow take the next two.")] = 4300,
) -> None:
    """Start the Prefect server, a worker, MLflow and the report page on this machine; Ctrl-C stops them all."""
    from paperflows.serve import serve_all

    serve_all(port=port)


@app.command()
def decide(
    heads: Annotated[Path, typer.Argument(help="Heads of a run of `uar`, such as artifacts/uar/heads.")],
    port: Annotated[int, typer.Option(help="Port of the service.")] = 4310,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Serve the decision whether to look something up, one request in milliseconds; Ctrl-C stops it."""
    from paperflows.decide import serve_decisions

    serve_decisions(heads, port=port, device=device)


@app.command()
def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="Close MLflow runs whose process is gone.")] = False,
) -> None:
    """Check versions, models, servers and disk, and find runs that died."""
    from paperflows.doctor import examine

    raise typer.Exit(examine(fix=fix))


@app.command()
def sync(
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit 2 when a file would change.")] = False,
) -> None:
    """Write dvc.yaml and prefect.yaml anew from the flows, and what README and docs quote from the reports."""
    from paperflows.sync import synchronise

    for path in synchronise(check=check):
        typer.echo(f"wrote {path}")


@data_app.command("check")
def data_check(
    folder: Annotated[Path, typer.Argument(help="A dataset, or a folder of datasets.")],
    max_errors: Annotated[int, typer.Option(help="Problems shown of each dataset.")] = 5,
) -> None:
    """Check datasets: file, line and field of the first errors."""
    from paperflows.components.data.check import check_folder, find_datasets, passed_over, split_files

    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder")
    bad, datasets, others = 0, find_datasets(folder), passed_over(folder)
    if not datasets and not others:
        split_files(folder)  # says what is expected
    for name, path in datasets.items():
        result = check_folder(path, max_errors=max_errors)
        rows = ", ".join(f"{split} {count:,}" for split, count in result.splits.items())
        typer.echo(f"{'ok ' if result.ok else 'BAD'} {name:<24} {result.task or '?':<24} {rows}")
        for warning in result.warnings:
            typer.echo(f"    note: {warning}")
        for problem in result.problems:
            typer.echo(f"    {problem}")
        bad += not result.ok
    for name, files in others.items():
        typer.echo(f"--  {name:<24} not read: no <split>.jsonl, but {', '.join(files[:3])}")
    if not datasets:
        raise InputError(f"{folder}: no dataset, that is no folder with <split>.jsonl or <split>.jsonl.gz files")
    if bad:
        raise InputError(f"{bad} dataset{'s' if bad > 1 else ''} in {folder} cannot be used as they are")


def main() -> None:
    """Entry point: bad input exits 2, a missing service 3; a traceback means a bug (1)."""
    debug = "--debug" in sys.argv
    form = "%(asctime)s.%(msecs)03d %(name)s %(message)s" if debug else "%(message)s"
    logging.basicConfig(format=form, datefmt="%H:%M:%S", level=logging.WARNING, stream=sys.stderr)
    try:
        app()
    except (InputError, ServiceError) as error:
        if debug:
            raise
        typer.echo(f"paperflows: {error}", err=True)
        sys.exit(2 if isinstance(error, InputError) else 3)


if __name__ == "__main__":
    main()
