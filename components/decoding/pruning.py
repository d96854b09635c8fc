"""Which configurations of a grid are worth trying on every input: a greedy walk for each family, on a few inputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from paperflows.components.decoding.configurations import GREEDY, SETTINGS, Configuration, Grid, make

Evaluate = Callable[[Sequence[Configuration]], Sequence[float]]


def walk(evaluate: Evaluate, grid: Grid, start: Configuration) -> dict[Configuration, float]:
    """Mean score of every configuration on the way of a greedy search, one setting after another (HAG, section 4).

    Each setting tries all its values while the others stay at their best so far.

    Args:
        evaluate: mean scores of configurations, over the same inputs for all.
    """
    seen: dict[Configuration, float] = {}
    best = start.effective()
    for name in SETTINGS:
        tried = {_with(best, name, value).effective() for value in grid[name]} | {best}
        new = sorted(tried - seen.keys())
        seen.update(zip(new, evaluate(new), strict=True) if new else ())
        # leaving greedy, a configuration's top_p and top_k are free again
        best = max(sorted(tried), key=lambda configuration: seen[configuration])
    return seen


def shortlist(walks: Mapping[str, Mapping[Configuration, float]], keep: int) -> list[Configuration]:
    """The `keep` best of each family's walk, with greedy decoding and the library's default, in order."""
    chosen = {GREEDY, Configuration()}
    for seen in walks.values():
        chosen |= set(sorted(seen, key=lambda configuration: (-seen[configuration], configuration))[:keep])
    return sorted(chosen)


def _with(configuration: Configuration, name: str, value: float) -> Configuration:
    return make({**asdict(configuration), name: value})
