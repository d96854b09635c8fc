"""One function decides every verdict: a paired bootstrap of the effect against its margin.

Letters: S seeds, N examples, R resamples, K columns of an output that is counts (K = 0: a plain number).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from paperflows.components.evaluation.statistics import Array

Statistic = Callable[[Array, Array], Array]
Compare = Literal["difference", "ratio"]
Verdict = Literal["holds", "fails", "undecided"]
_NOTHING = 1e-9  # a baseline at most this is none


@dataclass(frozen=True)
class Paired:
    """Scores of two systems on the same examples of one dataset.

    Args:
        gold: (N,) what the statistic compares with (labels, human scores).
        ours, baseline: (S, N) outputs by seed, or (S, N, K) where a statistic needs counts; seed i of both belongs
            together (same data order, same initialisation).
        groups: (N,) what examples belong together and are no independent evidence, such as the aspects of a sentence:
            groups are resampled whole (the cluster bootstrap, Davison and Hinkley 1997, section 3.8); None where each
            example stands for itself.
    """

    gold: Array
    ours: Array
    baseline: Array
    groups: Array | None = None

    def __post_init__(self) -> None:
        if self.groups is not None and self.groups.shape != self.gold.shape:
            raise ValueError(f"groups need a number for each example: {self.groups.shape} for {self.gold.shape}")
        if self.ours.shape != self.baseline.shape or self.ours.shape[1:2] != self.gold.shape:
            shapes = (self.gold.shape, self.ours.shape, self.baseline.shape)
            raise ValueError(f"paired scores need gold (N,), ours (S, N), baseline (S, N); got {shapes}")


@dataclass(frozen=True)
class Effect:
    """An effect with its 95 % interval; `n` examples in all; `caveat` says why nothing can be told from it, if so."""

    ours: float
    baseline: float
    effect: float
    ci95: tuple[float, float]
    n: int
    caveat: str = ""


def paired_bootstrap(
    datasets: Sequence[Paired],
    statistic: Statistic,
    *,
    resamples: int = 1000,
    seed: int = 0,
    compare: Compare = "difference",
    unseen: bool = True,
) -> Effect:
    """Difference ours - baseline of a statistic, averaged over seeds and then over datasets, with its interval.

    With `compare="ratio"` the effect is ours / baseline instead, taken for each dataset and seed and averaged alike.

    Examples (groups of them, where they have groups) are resampled with replacement, the same ones for both systems and
    all seeds, within each dataset. The randomness of training is added as a draw from Student's t with S - 1 degrees of
    freedom times the standard error of the S per-seed effects: resampling a handful of seeds would give intervals that
    are much too short (with three seeds they cover the truth four times in five; the tests simulate both). With S = 1
    the interval speaks of this one trained model only.

    Where no resample differs from another, because no two examples do, the interval is as wide as examples of which
    none was seen could make it: 3 / N of the largest output (the rule of three, Hanley and Lippman-Hand 1983). A ratio
    to a baseline of nothing, and a statistic that many resamples do not have, have a caveat instead of a meaning.

    Args:
        unseen: there are more examples than these; not so for repeats of one measurement, which may all agree.

    Raises:
        ValueError: the datasets have different numbers of seeds, or a statistic is not finite.
    """
    seeds = {len(d.ours) for d in datasets}
    if len(seeds) != 1:
        raise ValueError(f"all datasets need the same seeds, got {sorted(seeds)}")
    count = seeds.pop()
    random = np.random.default_rng(seed)
    point, effects = np.zeros((2, count)), np.zeros(count)
    draws = np.zeros(resamples)
    effect_of, caveat = _EFFECTS[compare], ""
    for data in datasets:
        both = np.stack([statistic(data.gold[None], data.ours), statistic(data.gold[None], data.baseline)])
        point += both
        if compare == "ratio" and (both[1] <= _NOTHING).any():
            caveat = "the baseline is 0, to which there is no ratio"
            continue
        effects += effect_of(both[0], both[1])
        drawn = _resample(data, statistic, effect_of, resamples, random)
        if unseen and np.ptp(drawn) < 1e-12:
            others = 3 / _independent(data) * _largest(data) / (both[1].mean() if compare == "ratio" else 1.0)
            drawn = drawn + random.choice([-others, others], resamples)
        draws += drawn
    point, effects, draws = point / len(datasets), effects / len(datasets), draws / len(datasets)
    if caveat:
        ours, baseline = point.mean(1)
        return Effect(float(ours), float(baseline), 0.0, (0.0, 0.0), sum(len(d.gold) for d in datasets), caveat)
    if not np.isfinite(point).all() or not np.isfinite(effects).all():
        raise ValueError("a statistic is not finite: are all outputs of a system equal?")
    if count > 1:
        error = effects.std(ddof=1) / np.sqrt(count)
        draws = draws + error * random.standard_t(count - 1, resamples)
    there = np.isfinite(draws)
    if there.mean() < 0.95:
        caveat = f"{1 - there.mean():.0%} of the resamples have no such statistic"
    low, high = np.quantile(draws[there], [0.025, 0.975])
    return Effect(
        ours=float(point[0].mean()),
        baseline=float(point[1].mean()),
        effect=float(effects.mean()),
        ci95=(float(low), float(high)),
        n=sum(len(d.gold) for d in datasets),
        caveat=caveat,
    )


def decide(ci95: tuple[float, float], margin: float, *, lower_is_better: bool = False) -> Verdict:
    """`holds` when the whole interval is beyond the margin, `fails` when it is all at or short of it, else `undecided`.

    Beyond is above it, or below it with `lower_is_better` (losses, seconds).
    """
    low, high = (-ci95[1], -ci95[0]) if lower_is_better else ci95
    bound = -margin if lower_is_better else margin
    if low > bound:
        return "holds"
    if high <= bound:
        return "fails"
    return "undecided"


def _ratio(ours: Array, baseline: Array) -> Array:
    """ours / baseline, finite where a resample's baseline is 0."""
    return ours / np.maximum(baseline, _NOTHING)


def _largest(data: Paired) -> float:
    """The largest output of either system, 1 at least; 1 for counts, whose statistics are shares."""
    return 1.0 if data.ours.ndim > 2 else float(max(1.0, np.abs(data.ours).max(), np.abs(data.baseline).max()))


_EFFECTS: dict[str, Callable[[Array, Array], Array]] = {"difference": np.subtract, "ratio": _ratio}


def _resample(
    data: Paired, statistic: Statistic, effect_of: Statistic, resamples: int, random: np.random.Generator
) -> Array:
    """(R,) effects, mean over seeds, on resampled examples; in chunks that keep memory bounded."""
    out, done = np.empty(resamples), 0
    for pick in _picks(data, resamples, random):
        gold = data.gold[pick]
        effects = [
            effect_of(statistic(gold, a[pick]), statistic(gold, b[pick]))
            for a, b in zip(data.ours, data.baseline, strict=True)
        ]
        out[done : done + len(pick)] = np.mean(effects, axis=0)
        done += len(pick)
    return out


def _picks(data: Paired, resamples: int, random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Examples of each resample, (some resamples, N); with groups one resample at a time, of as many as it has."""
    n = len(data.gold)
    if data.groups is None:
        chunk = max(1, 2_000_000 // max(1, data.ours[0].size))
        for start in range(0, resamples, chunk):
            yield random.integers(0, n, size=(min(chunk, resamples - start), n))
        return
    group = np.unique(data.groups, return_inverse=True)[1]
    count = int(group.max()) + 1
    for _ in range(resamples):
        times = np.bincount(random.integers(0, count, count), minlength=count)
        yield np.repeat(np.arange(n), times[group])[None]


def _independent(data: Paired) -> int:
    """How many examples, or groups of them."""
    return len(data.gold) if data.groups is None else len(np.unique(data.groups))
