"""Quality and diversity of samples: BLEU against all test sentences, and against one another."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from paperflows.components.evaluation.tradeoff import reference_weights

ORDER = 4
Words = Sequence[str]
Floats = NDArray[np.float64]


def bleu_against(samples: Sequence[Words], references: Sequence[Words]) -> Floats:
    """Sentence BLEU-4 of each sample with all references at once, as NLTK's `sentence_bleu` with smoothing method 1.

    An n-gram is clipped by its highest count in any reference, which is counted once for all samples.
    """
    most: list[Counter[tuple[str, ...]]] = [Counter() for _ in range(ORDER)]
    for reference in references:
        for n, counts in enumerate(_grams(reference)):
            most[n] |= counts  # the union of counters takes the larger count
    lengths = np.array(sorted(len(reference) for reference in references))
    return np.array([_bleu(sample, most, _closest(len(sample), lengths)) for sample in samples])


def self_bleu(samples: Sequence[Words]) -> Floats:
    """Sentence BLEU-4 of each sample with all the others as references; high where samples resemble one another."""
    first: list[dict[tuple[str, ...], tuple[int, int]]] = [{} for _ in range(ORDER)]  # gram -> (count, who)
    second: list[dict[tuple[str, ...], int]] = [{} for _ in range(ORDER)]
    for who, sample in enumerate(samples):
        for n, counts in enumerate(_grams(sample)):
            for gram, count in counts.items():
                best = first[n].get(gram, (0, -1))
                if count > best[0]:
                    second[n][gram], first[n][gram] = best[0], (count, who)
                elif count > second[n].get(gram, 0):
                    second[n][gram] = count
    lengths = np.array(sorted(len(sample) for sample in samples))
    scores = []
    for who, sample in enumerate(samples):
        others = [
            {gram: second[n].get(gram, 0) if first[n][gram][1] == who else first[n][gram][0] for gram in counts}
            for n, counts in enumerate(_grams(sample))
        ]
        place = int(np.searchsorted(lengths, len(sample)))
        scores.append(_bleu(sample, others, _closest(len(sample), np.delete(lengths, place))))
    return np.array(scores)


def equal_diversity_weights(
    ours: Sequence[float], baseline: Sequence[float], *, knots: int = 21
) -> tuple[Floats, Floats] | None:
    """Weights of two systems' settings that compare them at equal self-BLEU, averaged over their common range.

    At each of `knots` values of self-BLEU in the common range a system is interpolated linearly between its two
    nearest settings, which is drawing from both; the weights are averaged over the values.

    Args:
        ours, baseline: mean self-BLEU of each setting, such as temperatures.

    Returns:
        Weights of the settings of both, each summing to 1; None where the ranges do not meet.
    """
    low, high = max(min(ours), min(baseline)), min(max(ours), max(baseline))
    if low > high:
        return None
    wanted = np.linspace(low, high, knots).tolist()
    return reference_weights(wanted, list(ours)).mean(0), reference_weights(wanted, list(baseline)).mean(0)


def _grams(words: Words) -> list[Counter[tuple[str, ...]]]:
    return [Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1)) for n in range(1, ORDER + 1)]


def _closest(length: int, lengths: NDArray[np.int64]) -> int:
    return int(lengths[np.abs(lengths - length).argmin()])  # the shorter of two equally near, as lengths are sorted


def _bleu(sample: Words, most: Sequence[dict[tuple[str, ...], int]], closest: int) -> float:
    """BLEU-4 with brevity penalty; a precision of 0 becomes 0.1 over the number of n-grams (smoothing method 1)."""
    logs = []
    for n, counts in enumerate(_grams(sample)):
        total = max(1, sum(counts.values()))
        hits = sum(min(count, most[n].get(gram, 0)) for gram, count in counts.items())
        if n == 0 and hits == 0:
            return 0.0
        logs.append(np.log((hits or 0.1) / total))
    brevity = 1.0 if len(sample) > closest else np.exp(1 - closest / max(1, len(sample)))
    return float(brevity * np.exp(np.mean(logs)))
