"""What the Prefect UI shows of a finished run: the table of claims, the report, the plots."""

import base64
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from paperflows.tasks.report import claim_rows, markdown


def publish_to_prefect(slug: str, report: dict[str, Any], plots: Path) -> None:
    """Create the artifacts of the current flow run; keys are lower case with dashes."""
    key = slug.replace("_", "-")
    run = report["run"]
    create_table_artifact(  # type: ignore[call-arg]
        key=f"{key}-claims",
        table=claim_rows(report),
        description=f"{report['title']}: verdicts ({report['profile']}, data {report['data']['source']})",
        _sync=True,
    )
    identity = (
        f"\n\nOutputs `{report['artifacts'][0]['path']}` DVC md5 `{report['artifacts'][0]['md5']}` · "
        f"MLflow run `{run['mlflow']}`\n"
    )
    _markdown(f"{key}-report", markdown(report) + identity, "claims, metrics and versions")
    images = [f"### {p.stem}\n\n![{p.stem}]({_data_url(p)})" for p in sorted(plots.glob("*.png"))]
    if images:
        _markdown(f"{key}-plots", "\n\n".join(images), "plots")


def _markdown(key: str, text: str, description: str) -> None:
    create_markdown_artifact(key=key, markdown=text, description=description, _sync=True)  # type: ignore[call-arg]


def _data_url(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
