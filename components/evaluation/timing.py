"""Times of several ways to do one thing, interleaved, so that a busy machine slows all of them alike."""

import time
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray


def time_interleaved(
    ways: Mapping[str, Callable[[], object]], *, repeats: int, warm_up: int = 1
) -> dict[str, NDArray[np.float64]]:
    """Seconds (repeats,) of each way; in every repeat each runs once, the order turned by one.

    Args:
        ways: name -> what is timed; all must do the same work.
        warm_up: runs of each that are not counted.
    """
    names = list(ways)
    seconds = {name: np.zeros(repeats) for name in names}
    for name in names:
        for _ in range(warm_up):
            ways[name]()
    for repeat in range(repeats):
        turn = repeat % len(names)
        for name in names[turn:] + names[:turn]:
            started = time.perf_counter()
            ways[name]()
            seconds[name][repeat] = time.perf_counter() - started
    return seconds
