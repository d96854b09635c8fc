"""One run of a flow, from its first task to its report: where it writes, and who is told.

With the parameters of params.yaml the outputs are the reproducible ones (`artifacts/<slug>`, `reports/<slug>.json`),
whether DVC started the run or not; with any others they go to `runs/<id>/`. Both end in the DVC cache.
"""

import os
import platform
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock
from prefect.runtime import flow_run
from pydantic import BaseModel

from paperflows.components.cores import cpu_cores
from paperflows.components.errors import InputError, ServiceError
from paperflows.tasks import tracking, versions
from paperflows.tasks.environment import project_root, state_folder
from paperflows.tasks.plots import draw_claims
from paperflows.tasks.publish import publish_to_prefect
from paperflows.tasks.remarks import noting
from paperflows.tasks.report import markdown, write_json, write_text
from paperflows.tasks.store import Artifact, open_artifact


@dataclass
class Findings:
    """What a flow found, filled by its body.

    Args:
        model: the model that was trained or used, in words.
        datasets: name -> content hash.
        claims: entries of the report, from `judge_claim`.
        metrics: flat name -> number.
        keep: name -> artifact that belongs to the outputs (models, annotations).
        children: (name, parameters, history of step metrics) of each trained model.
        notes: sentences the reader must know (who the judge was, what was left out).
        tables: title -> rows of cells, shown by the report page (a few examples to look at, not results).
        leaderboard: rows of `rank_methods`, shown by the report page beside those of other papers.
        draw: functions that draw one PNG each into the path they are given, by file name.
        previews: artifact of pictures (PNG), sounds (WAV) and tunes (ABC) that the report page shows and plays.
    """

    model: str = ""
    datasets: dict[str, str] = field(default_factory=dict)
    claims: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    keep: dict[str, Artifact] = field(default_factory=dict)
    children: list[tuple[str, dict[str, Any], list[dict[str, float]]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    leaderboard: list[dict[str, Any]] = field(default_factory=list)
    draw: dict[str, Any] = field(default_factory=dict)
    previews: Artifact | None = None
    report: dict[str, Any] = field(default_factory=dict)


@contextmanager
def open_run(slug: str, title: str, params: BaseModel) -> Iterator[Findings]:
    """Record the body as one run of the paper `slug`; its report is written when the body ends without an error.

    Two runs with the same parameters wait for each other, so that the second finds the first one's results.

    Args:
        params: the flow's parameters; must have the fields `profile`, `data` and `seeds`.

    Raises:
        InputError: git ignores the folder of the run, so that DVC could not version it at its end.
        ServiceError: MLflow or DVC cannot be used, or the disk is full.
    """
    root, started = project_root(), time.perf_counter()
    _same_ray(params)
    values = params.model_dump(mode="json")
    reproducible = values == reproducible_parameters(slug, type(params), root)
    if not reproducible and versions.is_dvc_repository(root) and versions.is_ignored(root, "runs/run.dvc"):
        raise InputError("git ignores runs/, where DVC keeps what versions this run: take it out of git's ignore files")
    run_id = f"{slug}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:6]}"
    (state_folder() / "locks").mkdir(parents=True, exist_ok=True)
    lock_name = slug if reproducible else f"{slug}-{_digest(values)}"
    building = state_folder() / "build" / run_id
    with FileLock(state_folder() / "locks" / f"{lock_name}.lock"):
        parent = tracking.open_parent(
            slug,
            name=run_id,
            params=values,
            tags={
                tracking.FLOW_RUN_TAG: str(flow_run.id),
                "paperflows.profile": values["profile"],
                "paperflows.data": values["data"],
                "paperflows.git": versions.git_revision(root),
            },
        )
        findings = Findings()
        try:
            with noting() as remarks:
                yield findings
            findings.notes += remarks
            _log_cached_children(parent, findings)
            _write(building, findings, slug, title, values, run_id, parent, time.perf_counter() - started)
            places = _put_in_place(building, root, slug, run_id, reproducible, findings.report)
            publish_to_prefect(slug, findings.report, places.plots)
            tracking.close_parent(
                parent,
                metrics={**findings.metrics, "seconds": findings.report["seconds"]},
                tags={"paperflows.dvc_md5": findings.report["artifacts"][0]["md5"], **_data_tags(findings)},
                files=lambda: [places.report, places.markdown, places.plots, places.artifacts],
            )
            if not os.environ.get("DVC_STAGE") and versions.is_dvc_repository(root):
                if reproducible:
                    versions.commit_stage(root, slug)
                else:
                    versions.add_folder(root, places.artifacts.parent)
        except BaseException as error:
            tracking.client().set_terminated(parent, "FAILED" if isinstance(error, Exception) else "KILLED")
            if isinstance(error, OSError):
                raise ServiceError(f"cannot write {error.filename}: {error.strerror}") from error
            raise
        finally:
            shutil.rmtree(building, ignore_errors=True)


def reproducible_parameters(slug: str, kind: type[BaseModel], root: Path) -> dict[str, Any]:
    """The parameters that params.yaml gives to `slug`, as the flow would receive them."""
    section = yaml.CSafeLoader((root / "params.yaml").read_text(encoding="utf-8")).get_single_data()[slug]
    return kind.model_validate(section).model_dump(mode="json")


def _same_ray(params: BaseModel) -> None:
    """A run that asks for a Ray cluster must have been started on it; nothing falls back silently."""
    from prefect.context import FlowRunContext
    from prefect.task_runners import ThreadPoolTaskRunner

    context, address = FlowRunContext.get(), getattr(getattr(params, "ray", None), "address", None)
    if address and context and isinstance(context.task_runner, ThreadPoolTaskRunner):
        raise InputError(
            f"ray.address is {address!r}, but a deployment takes it from RAY_ADDRESS of its worker: set that"
        )


def device_name() -> str:
    """The device that computes, in words: the GPU's name, or the number of CPU cores.

    Torch, whose import takes longer than all else in a run that finds its results remembered, is only asked where it is
    loaded or a GPU's driver is there.
    """
    if "torch" in sys.modules or Path("/dev/nvidiactl").exists():
        import torch

        if torch.cuda.is_available():
            return f"cuda ({torch.cuda.get_device_name()})"
    return f"cpu ({cpu_cores()} cores, {platform.machine()}, torch {version('torch')})"


@dataclass(frozen=True)
class _Places:
    report: Path
    markdown: Path
    plots: Path
    artifacts: Path


def _write(
    building: Path,
    found: Findings,
    slug: str,
    title: str,
    values: dict[str, Any],
    run_id: str,
    parent: str,
    seconds: float,
) -> None:
    outputs = building / "artifacts"
    for name, artifact in found.keep.items():
        shutil.copytree(open_artifact(artifact), outputs / name)
    outputs.mkdir(parents=True, exist_ok=True)
    (outputs / "config.yaml").write_text(yaml.safe_dump({slug: values}, allow_unicode=True, sort_keys=False), "utf-8")
    if found.claims:
        draw_claims(found.claims, building / "plots" / "claims.png")
    for name, draw in found.draw.items():
        draw(building / "plots" / name)
    if found.previews:
        shutil.copytree(open_artifact(found.previews), building / "plots" / "previews")
    found.report = {
        "paper": slug,
        "title": title,
        "profile": values["profile"],
        "data": {"source": values["data"], "datasets": found.datasets},
        "model": found.model,
        "device": device_name(),
        "seeds": values["seeds"],
        "git": versions.git_revision(project_root()),
        "seconds": round(seconds, 1),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "claims": found.claims,
        "metrics": found.metrics,
        "tables": found.tables,
        "leaderboard": found.leaderboard,
        "artifacts": [{"path": "artifacts", "md5": versions.dvc_md5(outputs)}],
        "notes": [note for note in found.notes if note],
        "parameters": values,
        "run": {"id": run_id, "mlflow": parent, "prefect": str(flow_run.id)},
        "plots": sorted(path.name for path in (building / "plots").glob("*.png")),
    }


def _put_in_place(
    building: Path, root: Path, slug: str, run_id: str, reproducible: bool, report: dict[str, Any]
) -> _Places:
    if reproducible:
        reports = root / "reports"
        places = _Places(reports / f"{slug}.json", reports / f"{slug}.md", reports / slug, root / "artifacts" / slug)
    else:
        folder = root / "runs" / run_id
        places = _Places(folder / "report.json", folder / "report.md", folder / "plots", folder / "artifacts")
    report["artifacts"][0]["path"] = str(places.artifacts.relative_to(root))
    (building / "plots").mkdir(exist_ok=True)
    for source, target in ((building / "artifacts", places.artifacts), (building / "plots", places.plots)):
        target.parent.mkdir(parents=True, exist_ok=True)
        old = building / f"old-{source.name}"
        if target.exists():
            target.rename(old)
        source.rename(target)
    write_json(places.report, report)
    write_text(places.markdown, markdown(report))
    return places


def _log_cached_children(parent: str, found: Findings) -> None:
    there = tracking.children(parent)
    for name, params, history in found.children:
        if name not in there:
            tracking.replay_child(name, params, history)


def _data_tags(found: Findings) -> dict[str, str]:
    return {f"data.{name}": sha[:32] for name, sha in found.datasets.items()}


def _digest(values: dict[str, Any]) -> str:
    import hashlib
    import json

    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
