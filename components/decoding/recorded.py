"""Recorded completions of a language model under several configurations (prompt style and temperature)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paperflows.components.errors import InputError


def scores_by_configuration(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], NDArray[np.float64]]:
    """Names of the configurations, and (N, C, M) whether each recorded sample is right.

    M is the least number of samples that any question has under any configuration.

    Raises:
        InputError: fewer than two configurations with two samples each for every question.
    """
    by_row: list[dict[str, list[float]]] = []
    for row in rows:
        found: dict[str, list[float]] = {}
        for chain in row["chains"]:
            name = f"{chain.get('style') or 'prompt'} T={chain.get('temperature')}"
            found.setdefault(name, []).append(float(chain["answer"] == row["answer"]))
        by_row.append(found)
    names = sorted(set.intersection(*(set(found) for found in by_row)))
    least = min((len(found[name]) for found in by_row for name in names), default=0)
    if len(names) < 2 or least < 2:
        raise InputError(
            f"recorded chains: {len(names)} configurations with at least {least} samples for every question; "
            "choosing among configurations needs two of each"
        )
    return names, np.array([[found[name][:least] for name in names] for found in by_row])
