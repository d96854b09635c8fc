"""The report of a run: JSON by contract, a Markdown table, PNG plots."""

import json
import math
import os
from pathlib import Path
from typing import Any

CONTRACT = (
    "paper",
    "title",
    "profile",
    "data",
    "model",
    "device",
    "seeds",
    "git",
    "seconds",
    "claims",
    "metrics",
    "artifacts",
)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; NaN and infinity are refused, so that every reader can parse it.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(path, text)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically (temporary name, fsync, rename)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_report(path: Path) -> dict[str, Any]:
    """A report, checked to hold every field of the contract.

    Raises:
        InputError: not JSON, or a field is missing.
    """
    from paperflows.components.errors import InputError

    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not a report ({error})") from error
    missing = [name for name in CONTRACT if name not in report]
    if missing:
        raise InputError(f"{path}: not a report, {', '.join(missing)} missing")
    return report


def number(value: float | None) -> str:
    """Three significant digits or more, as tables show it."""
    if value is None:
        return "–"
    if math.isnan(value):
        return "NaN"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def alike(value: float, other: float) -> str:
    """`value` with as many decimals as `number` gives the smaller of both, so that a difference can be checked."""
    decimals = len(number(min(abs(value), abs(other))).partition(".")[2])
    return f"{value:,.{decimals}f}"


def claim_rows(report: dict[str, Any]) -> list[dict[str, str]]:
    """The claims as table rows: claim, ours, baseline, effect, interval, what it must clear, verdict, seeds, paper.

    A ratio is a number without a sign, after a cross; a difference has its sign.
    """
    rows = []
    for claim in report["claims"]:
        paper, ratio = claim["paper"], claim.get("compare") == "ratio"
        said = (claim["statement"], claim.get("caveat", ""), "a check" if claim.get("kind") == "check" else "")
        low, high, effect, margin = (
            f"{value:.3f}" if ratio else f"{value:+.3f}" for value in (*claim["ci95"], claim["effect"], claim["margin"])
        )
        rows.append(
            {
                "claim": "; ".join(filter(None, said)),
                "metric": claim["metric"],
                "ours": alike(claim["ours"], claim["baseline"]),
                "baseline": f"{alike(claim['baseline'], claim['ours'])} ({claim['baseline_name']})",
                "effect": f"× {effect}" if ratio else effect,
                "95 % interval": f"[{low}, {high}]",
                "must be": f"{'<' if claim.get('lower_is_better') else '>'} {margin}",
                "verdict": claim["verdict"],
                "seeds": str(claim["seeds"]),
                "paper": f"{number(paper['ours'])} / {number(paper['baseline'])} ({paper['where']})" if paper else "–",
            }
        )
    return rows


def findings_of(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The claims that speak of the method; checks of fixed numbers or of machinery do not."""
    return [claim for claim in report["claims"] if claim.get("kind", "finding") == "finding"]


def markdown(report: dict[str, Any]) -> str:
    """The report for people: what was run, the table of claims, the metrics."""
    rows = claim_rows(report)
    columns = list(rows[0]) if rows else []
    data = ", ".join(f"{name} `{sha[:12]}`" for name, sha in report["data"]["datasets"].items())
    seeds = ", ".join(map(str, report["seeds"]))
    lines = [
        f"# {report['title']}",
        "",
        f"Profile `{report['profile']}` · data `{report['data']['source']}` · model {report['model']} · "
        f"{report['device']} · seeds {seeds} · commit `{report['git']}` · {report['seconds']:.0f} s",
        "",
        *report.get("notes", []),
        "",
        "| " + " | ".join(columns) + " |",
        "|" + " --- |" * len(columns),
        *("| " + " | ".join(_cell(row[c]) for c in columns) + " |" for row in rows),
        "",
        *_leaderboard(report.get("leaderboard", [])),
        "| metric | value |",
        "| --- | --- |",
        *(f"| {_cell(name)} | {number(value)} |" for name, value in report["metrics"].items()),
        "",
        f"Data: {data}",
        "",
    ]
    return "\n".join(lines)


def _leaderboard(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of the leaderboard's table: each method's score against the reference curve, by dataset."""
    if not rows:
        return []
    lines = ["| dataset | method | ELUE score | area | share of the front | points (clamped) | parameters |"]
    lines.append("|" + " --- |" * 7)
    for row in sorted(rows, key=lambda r: (r["dataset"], -r["score"])):
        area = "–" if row["area"] is None else f"{row['area']:+.4f}"
        size = "–" if row["parameters"] is None else f"{row['parameters'] / 1e6:.1f} M"
        cells = [row["dataset"], _cell(row["method"]), f"{row['score']:+.4f}", area, f"{row['front_share']:.0%}"]
        lines.append("| " + " | ".join([*cells, f"{row['points']} ({row['clamped']})", size]) + " |")
    return [*lines, ""]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
