"""Agreement of annotators beyond chance: Krippendorff's alpha (Krippendorff 2011).

Letters: A annotators, N units, V different values.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from paperflows.components.errors import InputError

Level = Literal["nominal", "ordinal", "interval"]


def krippendorff_alpha(labels: NDArray[np.floating], *, level: Level = "ordinal") -> float:
    """1 for perfect agreement, 0 for chance; units with fewer than two labels are not read.

    Args:
        labels: (A, N), nan where an annotator gave none.
        level: of measurement; scores of a scale are ordinal.

    Raises:
        InputError: no unit has two labels, or only one value occurs.
    """
    labels = labels[:, (~np.isnan(labels)).sum(0) >= 2]
    values = np.unique(labels[~np.isnan(labels)])
    if len(values) < 2:
        raise InputError("Krippendorff's alpha needs units with two labels and at least two different values")
    counts = np.stack([(labels == value).sum(0) for value in values], axis=1).astype(np.float64)
    per_unit = counts.sum(1, keepdims=True)
    together = (counts / (per_unit - 1)).T @ counts - np.diag((counts / (per_unit - 1)).sum(0))
    total = together.sum(1)
    expected = (np.outer(total, total) - np.diag(total)) / (total.sum() - 1)
    distance = _distance(values, total, level)
    return float(1 - (together * distance).sum() / (expected * distance).sum())


def _distance(values: NDArray[np.floating], total: NDArray[np.floating], level: Level) -> NDArray[np.floating]:
    """Squared differences (V, V) of the level of measurement."""
    if level == "nominal":
        return 1.0 - np.eye(len(values))
    place = values if level == "interval" else np.cumsum(total) - total / 2
    return (place[:, None] - place[None, :]) ** 2
