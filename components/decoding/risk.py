"""Minimum Bayes risk: of several candidates, the one that the others agree with most (Kumar and Byrne 2004)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Words = Sequence[str]


def pairwise_bleu(candidates: Sequence[Words]) -> NDArray[np.float64]:
    """(S, S) sentence BLEU-4 of candidate i with candidate j as its reference; the diagonal is 0.

    NLTK's with smoothing method 4, as in DiffuSeq's and DiffusionBERT's evaluation; an empty candidate has 0.
    """
    scores = np.zeros((len(candidates), len(candidates)))
    for i, said in enumerate(candidates):
        for j, reference in enumerate(candidates):
            if i != j:
                scores[i, j] = smoothed_bleu(said, [reference])
    return scores


def minimum_risk(candidates: Sequence[Words]) -> int:
    """Number of the candidate with the largest summed BLEU against the others; the first of equals.

    Raises:
        ValueError: no candidate.
    """
    return int(pairwise_bleu(candidates).sum(1).argmax())


def smoothed_bleu(said: Words, references: Sequence[Words]) -> float:
    """NLTK's sentence BLEU-4 with smoothing method 4; 0 where there is nothing to compare or no word agrees."""
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    if len(said) < 2 or not set(said) & {word for reference in references for word in reference}:
        return 0.0  # method 4 takes a logarithm of the length, which is 0 for one word
    return float(sentence_bleu(references, said, smoothing_function=SmoothingFunction().method4))
