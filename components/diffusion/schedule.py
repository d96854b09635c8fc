"""When tokens are masked: one schedule object for the base, spindle and information forms.

Letters: S steps of the process, B sentences, T tokens, V vocabulary.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from paperflows.components.errors import InputError

Kind = Literal["base", "spindle", "information"]


@dataclass(frozen=True)
class Schedule:
    """Survival a_t of every token: the probability that it is not yet masked after t of S steps; a_0 = 1, a_S = 0.

    base: a_t = 1 - t/S. spindle (the official code's form): 1 - t/S + strength sin(pi t/S) (f - mean f), where f is
    log(count + 1) over its maximum. information (the paper's form): 1 - t/S - strength sin(pi t/S) (1 - mean H / H),
    where H is -log p(w). Both let frequent tokens survive longer. A curve that would leave [0, 1] or rise is clipped
    and held down.

    Args:
        steps: S.
        kind: the form.
        strength: lambda.
        counts: (V,) of the tokens in the training texts.
    """

    steps: int
    kind: Kind
    strength: float
    counts: Tensor

    def __post_init__(self) -> None:
        if self.steps < 1 or self.strength < 0:
            raise InputError(f"schedule: expected steps of at least 1 and no negative strength, got {self}")

    @cached_property
    def commonness(self) -> Tensor:
        """(V,) f of the spindle form, H of the information form (a token never seen counts as seen half a time)."""
        counts = self.counts.double()
        if self.kind == "information":
            seen = counts.clamp(min=0.5)
            return -(seen / counts.sum()).log()
        logs = (counts + 1).log()
        return logs / logs.max()

    @cached_property
    def centre(self) -> float:
        """Mean commonness of a token of the training texts."""
        weights = self.counts.double() / self.counts.double().sum()
        return float((weights * self.commonness).sum())

    @cached_property
    def rates(self) -> Tensor:
        """(S + 1, V) probability that a masked position is unmasked in step t -> t - 1 if its token is w.

        What the model uses: it must not know the true sentence's mean, so the corpus' takes its place. Row 0 is unused.
        A rate of zero would make the bound infinite; it is kept above a thousandth of the base rate.
        """
        survival = self._curve(self._deviation(self.commonness, self.centre))
        rates = _rate(survival[:, :-1], survival[:, 1:]).t()
        base = 1 / torch.arange(1, self.steps + 1, dtype=torch.float64)
        rates = torch.maximum(rates, 1e-3 * base[:, None]).clamp(max=1.0)
        rates[0] = 1.0  # in the last step whatever is masked is unmasked
        return torch.cat([torch.zeros(1, len(self.counts), dtype=torch.float64), rates]).float()

    @cached_property
    def survival(self) -> Tensor:
        """(S + 1, V) survival by token around the corpus' mean: what the sampler's strides need."""
        return self._curve(self._deviation(self.commonness, self.centre)).t().float()

    @cached_property
    def repaired(self) -> Tensor:
        """Ids of tokens whose curve around the corpus' mean had to be clipped or held down."""
        raw = self._raw(self._deviation(self.commonness, self.centre))
        wrong = (raw.diff(dim=-1) > 1e-9).any(-1) | (raw > 1 + 1e-9).any(-1) | (raw < -1e-9).any(-1)
        return wrong.nonzero()[:, 0]

    def of_sentences(self, ids: Tensor, noised: Tensor) -> Tensor:
        """(B, T, S + 1) survival of the tokens of sentences, around each sentence's own mean.

        Args:
            ids, noised: (B, T); the mean is over the positions that take part.
        """
        values = self.commonness[ids]
        mean = (values * noised).sum(1, keepdim=True) / noised.sum(1, keepdim=True).clamp(min=1)
        return self._curve(self._deviation(values, mean))

    def _deviation(self, values: Tensor, mean: Tensor | float) -> Tensor:
        if self.kind == "base":
            return torch.zeros_like(values)
        return values - mean if self.kind == "spindle" else mean / values - 1

    def _raw(self, deviation: Tensor) -> Tensor:
        share = torch.arange(self.steps + 1, dtype=torch.float64) / self.steps
        return 1 - share + self.strength * (math.pi * share).sin() * deviation[..., None]

    def _curve(self, deviation: Tensor) -> Tensor:
        return self._raw(deviation).clamp(0, 1).cummin(dim=-1).values


def _rate(before: Tensor, after: Tensor) -> Tensor:
    """r_t = (a_{t-1} - a_t) / (1 - a_t); 0 where nothing can be masked yet."""
    return torch.where(after < 1, (before - after) / (1 - after).clamp(min=1e-12), 0.0)


def true_rates(survival: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Mask probability 1 - a_t and unmask rate r_t (B, T) of sentences at their steps t (B,) in 1..S.

    Args:
        survival: (B, T, S + 1) of `of_sentences`.
    """
    index = t[:, None, None].expand(-1, survival.shape[1], 1)
    after, before = survival.gather(2, index)[..., 0], survival.gather(2, index - 1)[..., 0]
    return (1 - after).float(), _rate(before, after).float()


def stratified_steps(count: int, steps: int, generator: torch.Generator) -> Tensor:
    """`count` steps in 1..S, one from each of `count` equal strata of the process, in random order."""
    places = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    drawn = (places * steps).long().clamp(max=steps - 1) + 1
    return drawn[torch.randperm(count, generator=generator)]
