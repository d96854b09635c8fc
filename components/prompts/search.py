"""Searches for prompts by candidates and losses: CMA-ES at the input, CMA-ES layer by layer, and random candidates.

Letters: P population, d intrinsic dimensions, n prompt vectors, D width, L layers. Source: BBT (Sun et al., ICML 2022),
BBTv2 (Sun et al. 2022), algorithm 1.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paperflows.components.prompts.blackbox import ForwardOnly


@dataclass(frozen=True)
class Step:
    """One population: the layer it was for, candidates evaluated so far, the loss of the prompts that stand."""

    layer: int
    calls: int
    loss: float


class Candidates:
    """pycma behind ask and tell, in tensors; it draws from a generator of its own, not from NumPy's global one.

    Args:
        dimensions: d.
        population: candidates asked for at a time.
        sigma: initial step.
        bound: candidates stay in [-bound, bound]; None leaves them free.
    """

    def __init__(
        self, dimensions: int, *, population: int, sigma: float, seed: int, bound: float | None = None
    ) -> None:
        import cma

        random = np.random.default_rng(seed)
        options: dict[str, Any] = {"popsize": population, "verbose": -9, "seed": np.nan}
        options["randn"] = lambda *shape: random.standard_normal(shape)
        if bound is not None:
            options["bounds"] = [-bound, bound]
        self._search = cma.CMAEvolutionStrategy(np.zeros(dimensions), sigma, options)
        self._asked: list[Any] = []

    def ask(self) -> Tensor:
        """(P, d) candidates."""
        self._asked = self._search.ask()
        return torch.from_numpy(np.stack(self._asked)).float()

    def tell(self, losses: Sequence[float]) -> None:
        """Their losses, in order."""
        self._search.tell(self._asked, list(losses))


class RandomCandidates:
    """Candidates drawn from the distribution that CMA-ES starts with, whatever their losses were."""

    def __init__(self, dimensions: int, *, population: int, sigma: float, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._size, self._sigma = (population, dimensions), sigma

    def ask(self) -> Tensor:
        """(P, d) candidates."""
        return torch.from_numpy(self._sigma * self._random.standard_normal(self._size)).float()

    def tell(self, losses: Sequence[float]) -> None:
        """Nothing is learnt."""


def search_layers(
    model: ForwardOnly,
    projections: Sequence[Tensor],
    start: Sequence[Tensor],
    *,
    searches: Sequence[Candidates | RandomCandidates],
    budget: int,
) -> Iterator[Step]:
    """Optimise the prompts of layers 0, 1, ... in turn until `budget` candidates were evaluated.

    With one projection it is BBT (the input alone), with one a layer BBTv2. A candidate becomes its layer's prompt when
    its loss is below the best one so far. That loss always belongs to the prompts that stand in `model`, so losses
    measured while other layers had other prompts are never compared.

    Args:
        projections: one (d, n * D) a layer tuned.
        start: one (n, D) a layer: the prompt is start + z @ projection.
        searches: one a layer, of dimension d.
        budget: candidates in all; a population counts as many calls as it has members.
    """
    best = float("inf")
    while model.calls < budget:
        for layer, (projection, first, search) in enumerate(zip(projections, start, searches, strict=True)):
            if model.calls >= budget:
                return
            candidates = first + (search.ask().to(projection.device) @ projection).view(-1, *first.shape)
            losses = model.losses(layer, candidates)
            search.tell(losses.tolist())
            at = int(losses.argmin())
            if float(losses[at]) < best:
                best = float(losses[at])
                model.fix(layer, candidates[at])
            yield Step(layer, model.calls, best)


Score = Callable[[], float]


def keep_best(model: ForwardOnly, steps: Iterator[Step], *, score: Score, every: int) -> tuple[float, list[Any]]:
    """Run a search, score on dev after every `every` calls, and leave the best prompts in `model`.

    Returns:
        The best dev score, and a history of {"step" (calls), "loss", "score"}.
    """
    best, kept = score(), dict(model.prompts)
    history: list[dict[str, float]] = [{"step": 0, "loss": float("nan"), "score": best}]
    looked = 0
    for step in steps:
        if step.calls - looked >= every:
            looked, found = step.calls, score()
            history.append({"step": step.calls, "loss": step.loss, "score": found})
            if found > best:
                best, kept = found, dict(model.prompts)
    for layer, prompt in sorted(kept.items()):
        model.fix(layer, prompt)
    return best, [h for h in history if h["step"]]
