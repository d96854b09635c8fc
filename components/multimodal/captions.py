"""What is said of an item in words, and the facets of it that can be judged."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Row = dict[str, Any]
# which facets of a modality a judge names; the first decides whether an item is right
FACETS: dict[str, tuple[str, ...]] = {
    "picture": ("word",), "speech": ("word",), "music": ("meter", "key"), "drawing": ("group", "tone"),
}  # fmt: skip
NO_TONE = "none"


def caption(modality: str, row: Row) -> str:
    """The text that goes with an item: its word, `6/8 in D`, or `group : name : tone`."""
    if modality == "music":
        return f"{row['meter']} in {row['key']}"
    if modality == "drawing":
        name = row["text"].partition(": ")[0]
        parts = [_group(row.get("group")), name if row.get("tone") else row["text"].replace(":", ",")]
        return " : ".join([*parts, row["tone"] if row.get("tone") else ""]).removesuffix(" : ")
    return str(row["text"])


def facets(modality: str, text: str) -> dict[str, str]:
    """Facets of a caption; those it does not name are empty."""
    if modality == "music":
        meter, _, key = text.partition(" in ")
        return {"meter": meter.strip().replace(" ", ""), "key": key.strip()}
    if modality == "drawing":
        parts = [part.strip() for part in text.split(" : ")]
        return {"group": parts[0], "tone": parts[2] if len(parts) > 2 else NO_TONE}
    return {"word": text.strip()}


def diversity(signals: Sequence[NDArray[np.floating]]) -> float:
    """Mean distance of two items' features, over all pairs; (N, D) as a list of (D,)."""
    if len(signals) < 2:
        return 0.0
    features = np.stack(signals).astype(np.float64)
    squares = (features**2).sum(1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * features @ features.T, 0))
    count = len(features)
    return float(distances.sum() / max(1, count * (count - 1)))


def _group(name: str | None) -> str:
    """`Smileys & Emotion` -> `smileys`."""
    return (name or "none").split(" & ")[0].split()[0].lower()
