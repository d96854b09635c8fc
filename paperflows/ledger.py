"""The report page: one self-contained HTML file, the ledger of the nineteen papers."""

import base64
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from paperflows.components.errors import InputError
from paperflows.tasks.plots import no_effect
from paperflows.tasks.report import alike, claim_rows, findings_of, number, read_report, write_text

PAGE = Path("reports") / "index.html"
RESULTS = Path("docs") / "results"


@dataclass(frozen=True)
class Entry:
    """One report, its plots as data URLs, and what it made: pictures, sounds and tunes to look at and listen to."""

    report: dict[str, Any]
    plots: list[tuple[str, str]]
    place: str
    previews: list[dict[str, str]]


def build_ledger(root: Path, *, links: dict[str, str] | None = None) -> Path:
    """Write the page from all reports: docs/results, reports, and the newest of runs for each profile and data source.

    Args:
        links: addresses of running servers ("prefect", "mlflow"), to link to each run's pages.

    Raises:
        InputError: a file among the reports is not one.
    """
    entries = [_entry(root, path, path.with_suffix("")) for path in sorted((root / RESULTS).glob("*.json"))]
    entries += [_entry(root, path, path.with_suffix("")) for path in sorted((root / "reports").glob("*.json"))]
    entries += _newest([_entry(root, p, p.parent / "plots") for p in sorted((root / "runs").glob("*/report.json"))])
    by_paper: dict[str, list[Entry]] = {}
    for entry in entries:
        by_paper.setdefault(entry.report["paper"], []).append(entry)
    listed = dict(yaml.safe_load((Path(__file__).parent / "papers.yaml").read_text(encoding="utf-8")))
    titles = listed | {slug: found[0].report["title"] for slug, found in by_paper.items() if slug not in listed}
    environment = Environment(
        loader=PackageLoader("paperflows", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"number": number, "alike": alike, "interval": interval_svg, "rows": claim_rows}
    tallies = {
        slug: {v: sum(c["verdict"] == v for c in findings_of(found[0].report)) for v in VERDICTS}
        for slug, found in by_paper.items()
    }
    page = environment.get_template("ledger.html.jinja").render(
        titles=titles,
        papers=by_paper,
        tallies=tallies,
        counts={v: sum(tally[v] for tally in tallies.values()) for v in VERDICTS},
        links=links or {},
        leaderboard=leaderboard_rows(_first(by_paper)),
        built=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    write_text(root / PAGE, page)
    return root / PAGE


def save_result(root: Path, run: str) -> Path:
    """Copy the report and plots of a run (`runs/ID` or ID) to docs/results, where the README and the ledger quote them.

    Raises:
        InputError: there is no such run.
    """
    folder = (root / "runs" / Path(run).name).resolve()
    if not (folder / "report.json").is_file():
        raise InputError(f"no run {run!r} in {root / 'runs'}")
    report = read_report(folder / "report.json")
    target = root / RESULTS / f"{report['paper']}.json"
    source = report["data"]["source"]

    def public(name: str) -> str:
        """A file of the run without the path of the user's data folder, of which the name is enough."""
        text = (folder / name).read_text(encoding="utf-8")
        return text.replace(source, Path(source).name) if "/" in source else text

    write_text(target, public("report.json"))
    shutil.rmtree(target.with_suffix(""), ignore_errors=True)
    shutil.copytree(folder / "plots", target.with_suffix(""))
    write_text(target.with_suffix(".md"), public("report.md"))
    return target


def leaderboard_rows(entries: list[Entry]) -> list[dict[str, Any]]:
    """The submissions of all papers, means over their datasets: paper by paper, for each has its own reference and
    datasets, the best ELUE score first.
    """
    rows = []
    for entry in entries:
        submitted = entry.report.get("leaderboard", [])
        for method in dict.fromkeys(row["method"] for row in submitted):
            own = [row for row in submitted if row["method"] == method]
            areas = [row["area"] for row in own if row["area"] is not None]
            rows.append(
                {
                    "paper": entry.report["paper"],
                    "method": method,
                    "reference": own[0].get("reference", "its static exits"),
                    "datasets": ", ".join(row["dataset"] for row in own),
                    "score": sum(row["score"] for row in own) / len(own),
                    "area": sum(areas) / len(areas) if areas else None,
                    "front_share": sum(row["front_share"] for row in own) / len(own),
                    "parameters": own[0]["parameters"],
                }
            )
    return sorted(rows, key=lambda row: (row["paper"], -row["score"]))


VERDICTS = ("holds", "undecided", "fails")


def interval_svg(claim: dict[str, Any]) -> str:
    """A small drawing of the effect's interval against no effect and the margin; its numbers come from the report."""
    from markupsafe import Markup

    low, high = claim["ci95"]
    margin: float = claim["margin"]
    none = no_effect(claim)
    left, right = min(low, none, margin), max(high, none, margin)
    span = (right - left) or 1.0

    def x(value: float) -> float:
        return round(8 + 144 * (value - left) / span, 1)

    return Markup(
        '<svg viewBox="0 0 160 22" class="ci {v}" role="img" aria-label="interval">'
        '<line x1="{z}" x2="{z}" y1="2" y2="20" class="zero"/><line x1="{m}" x2="{m}" y1="5" y2="17" class="margin"/>'
        '<line x1="{a}" x2="{b}" y1="11" y2="11" class="bar"/><circle cx="{e}" cy="11" r="4"/></svg>'
    ).format(v=claim["verdict"], z=x(none), m=x(margin), a=x(low), b=x(high), e=x(claim["effect"]))


def _entry(root: Path, path: Path, plots: Path) -> Entry:
    images = [
        (image.stem, "data:image/png;base64," + base64.b64encode(image.read_bytes()).decode())
        for image in sorted(plots.glob("*.png"))
    ]
    return Entry(read_report(path), images, path.relative_to(root).as_posix(), _previews(plots / "previews"))


def _previews(folder: Path) -> list[dict[str, str]]:
    """Name, picture or sound (data URL) and score (text) of each preview; files of one stem are one preview."""
    found: dict[str, dict[str, str]] = {}
    for file in sorted(folder.glob("*")):
        empty = {"name": file.stem.replace("_", " "), "picture": "", "sound": "", "score": ""}
        entry = found.setdefault(file.stem, empty)
        if file.suffix == ".abc":
            entry["score"] = file.read_text(encoding="utf-8")
        elif kind := {".png": "picture", ".wav": "sound"}.get(file.suffix):
            media = "image/png" if kind == "picture" else "audio/wav"
            entry[kind] = f"data:{media};base64," + base64.b64encode(file.read_bytes()).decode()
    return list(found.values())


def _newest(entries: list[Entry]) -> list[Entry]:
    latest: dict[tuple[str, ...], Entry] = {}
    for entry in sorted(entries, key=lambda e: e.report["finished"]):
        report = entry.report
        latest[report["paper"], report["profile"], report["data"]["source"]] = entry
    return [entry for entry in latest.values() if entry.report["profile"] != "smoke"] or list(latest.values())


def _first(by_paper: dict[str, list[Entry]]) -> list[Entry]:
    return [entries[0] for entries in by_paper.values()]
