"""Which configurations of a grid are worth trying on every input: a greedy walk for each family, on a few inputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from paperflows.components.decoding.configurations import GREEDY, SETTINGS, Configuration, Grid, make

Evaluate = Callable[[Sequence[Configuration]], Sequence[float]]


def walk(evaluate: Evaluate, grid: Grid, start: Configuration) -> dict[Configuration, float]:
    """Mean score of every configuration on the way of a greedy search, one setting after another (HAG, section 4).

    Each setting tries all its values while the others stay at their best so far. After the temperature the search goes
    on twice, from the best one above 0 and from greedy, under which top_p and top_k have no effect: a temperature may
    be the best one only with the tokens that these cut off.

    Args:
        evaluate: mean scores of configurations, over the same inputs for all.
    """
    seen: dict[Configuration, float] = {}

    def best_along(name: str, held: Configuration) -> Configuration:
        tried = sorted({_with(held, name, value).effective() for value in grid[name]} | {held})
        new = [configuration for configuration in tried if configuration not in seen]
        seen.update(zip(new, evaluate(new), strict=True) if new else ())
        return max(tried, key=lambda configuration: seen[configuration])

    first, *others = SETTINGS
    best_along(first, start.effective())
    branches = [[c for c in sorted(seen) if (c.temperature == 0) == greedy] for greedy in (False, True)]
    for branch in filter(None, branches):
        best = max(branch, key=lambda configuration: seen[configuration])
        for name in others:
            best = best_along(name, best)
    return seen


def shortlist(walks: Mapping[str, Mapping[Configuration, float]], keep: int) -> list[Configuration]:
    """The `keep` best of each family's walk, with greedy decoding and the library's default, in order."""
    chosen = {GREEDY, Configuration()}
    for seen in walks.values():
        chosen |= set(sorted(seen, key=lambda configuration: (-seen[configuration], configuration))[:keep])
    return sorted(chosen)


def _with(configuration: Configuration, name: str, value: float) -> Configuration:
    return make({**asdict(configuration), name: value})
