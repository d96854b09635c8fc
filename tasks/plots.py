"""The plots of a report, drawn from plain numbers so that a report can be redrawn without its models."""

from pathlib import Path
from typing import Any

PALETTE = ("#1f6feb", "#c2410c", "#0f766e", "#7c3aed", "#b45309", "#475569", "#be123c", "#15803d")
VERDICT_COLOUR = {"holds": "#15803d", "fails": "#b91c1c", "undecided": "#b45309"}


def no_effect(claim: dict[str, Any]) -> float:
    """The effect of a system that equals its baseline: a difference of 0 or a ratio of 1."""
    return 1.0 if claim.get("compare") == "ratio" else 0.0


def draw_claims(claims: list[dict[str, Any]], path: Path) -> None:
    """Effects with their 95 % intervals against their margins, coloured by verdict; ratios on an axis of their own."""
    from matplotlib.figure import Figure

    kinds = {
        "ours minus baseline": [c for c in claims if no_effect(c) == 0.0],
        "ours over baseline": [c for c in claims if no_effect(c) == 1.0],
    }
    kinds = {name: some for name, some in kinds.items() if some}
    sizes = [1.2 + 0.55 * len(some) for some in kinds.values()]
    figure = Figure(figsize=(7.5, sum(sizes)), layout="constrained")
    panels = figure.subplots(len(kinds), 1, squeeze=False, height_ratios=sizes)[:, 0]
    for axes, (name, some) in zip(panels, kinds.items(), strict=True):
        _clean(axes)
        for row, claim in enumerate(reversed(some)):
            colour = VERDICT_COLOUR[claim["verdict"]]
            axes.plot(claim["ci95"], [row, row], color=colour, lw=3, solid_capstyle="round")
            axes.plot(claim["effect"], row, "o", color=colour)
            axes.plot([claim["margin"]] * 2, [row - 0.3, row + 0.3], color="#334155", lw=1)
            axes.annotate(
                claim["verdict"], (max(claim["ci95"]), row), (6, -3), textcoords="offset points", color=colour
            )
        axes.axvline(no_effect(some[0]), color="#94a3b8", lw=0.8)
        axes.set_yticks(range(len(some)), [claim["id"].replace("_", " ") for claim in reversed(some)])
        axes.set_ylim(-0.7, len(some) - 0.3)
        axes.margins(x=0.2)
        axes.set_xlabel(f"effect: {name}, with its 95 % interval (the bar is the margin)")
    _save(figure, path)


def draw_bars(groups: dict[str, dict[str, list[float]]], path: Path, *, ylabel: str) -> None:
    """Grouped bars: group -> series -> values by seed; the bar is their mean, the dots are the seeds."""
    axes, figure = _axes(width=1.5 + 1.1 * len(groups), height=4.2)
    series = list(dict.fromkeys(name for values in groups.values() for name in values))
    width = 0.8 / len(series)
    for place, name in enumerate(series):
        colour = PALETTE[place % len(PALETTE)]
        for x, values in enumerate(groups.values()):
            if name in values:
                at = x - 0.4 + width * (place + 0.5)
                mean = sum(values[name]) / len(values[name])
                axes.bar(at, mean, width * 0.92, color=colour, alpha=0.85, label=name if x == 0 else None)
                axes.plot([at] * len(values[name]), values[name], ".", color="#0f172a", ms=3)
    axes.set_xticks(range(len(groups)), list(groups), rotation=20, ha="right")
    axes.set_ylabel(ylabel)
    axes.legend(fontsize=8, ncols=min(4, len(series)), loc="upper center", bbox_to_anchor=(0.5, 1.24), frameon=False)
    _save(figure, path)


def draw_lines(series: dict[str, list[tuple[float, float]]], path: Path, *, xlabel: str, ylabel: str) -> None:
    """One line a series of (x, y) points."""
    axes, figure = _axes(height=4.0)
    for place, (name, points) in enumerate(series.items()):
        axes.plot(*zip(*points, strict=True), "o-", ms=3, color=PALETTE[place % len(PALETTE)], label=name, lw=1.6)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.legend(fontsize=8, frameon=False)
    _save(figure, path)


def draw_radar(series: dict[str, dict[str, float]], path: Path, *, highest: float) -> None:
    """One closed line a series over named directions, from 0 in the middle to `highest` at the rim."""
    import math

    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    axes = figure.add_subplot(projection="polar")
    names = list(dict.fromkeys(name for values in series.values() for name in values))
    angles = [2 * math.pi * i / len(names) for i in range(len(names))]
    for place, (label, values) in enumerate(series.items()):
        line = [values.get(name, 0.0) for name in names]
        colour = PALETTE[place % len(PALETTE)]
        axes.plot([*angles, angles[0]], [*line, line[0]], color=colour, label=label, lw=1.6)
        axes.fill(angles, line, color=colour, alpha=0.12)
    axes.set_xticks(angles, names)
    axes.set_ylim(0, highest)
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.05, 1.0))
    _save(figure, path)


def draw_histogram(values: dict[str, list[float]], path: Path, *, xlabel: str, bins: int = 30) -> None:
    """Overlaid histograms, one a series."""
    axes, figure = _axes(height=3.6)
    for place, (name, numbers) in enumerate(values.items()):
        axes.hist(numbers, bins=bins, alpha=0.6, color=PALETTE[place % len(PALETTE)], label=name)
    axes.set_xlabel(xlabel)
    axes.set_ylabel("count")
    axes.legend(fontsize=8, frameon=False)
    _save(figure, path)


def draw_heat(panels: dict[str, list[list[float]]], path: Path, *, xlabel: str, ylabel: str) -> None:
    """One heat map a panel, side by side: rows of numbers, first row on top, on one scale of colours."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(6.0, 2.4 * len(panels)), 4.0), layout="constrained")
    every = [axes for row in figure.subplots(1, len(panels), sharey=True, squeeze=False) for axes in row]
    top = max(value for rows in panels.values() for row in rows for value in row)
    for axes, (name, rows) in zip(every, panels.items(), strict=True):
        image = axes.imshow(rows, aspect="auto", cmap="viridis", vmin=0, vmax=top, interpolation="nearest")
        axes.set_title(name, fontsize=9)
        axes.set_xlabel(xlabel)
    every[0].set_ylabel(ylabel)
    figure.colorbar(image, ax=every)
    _save(figure, path)


def _axes(*, width: float = 7.5, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(6.0, width), height), layout="constrained")
    axes = figure.add_subplot()
    _clean(axes)
    return axes, figure


def _clean(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="both", color="#e2e8f0", lw=0.6)
    axes.set_axisbelow(True)


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": None})
