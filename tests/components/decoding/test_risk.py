import itertools

import numpy as np
import pytest
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from paperflows.components.decoding.risk import minimum_risk, pairwise_bleu, smoothed_bleu

CANDIDATES = [
    ["a", "man", "rides", "a", "red", "horse"],
    ["a", "man", "rides", "a", "brown", "horse", "in", "the", "park"],
    ["two", "dogs", "sleep", "on", "the", "sofa"],
    ["a", "man", "is", "riding", "a", "brown", "horse", "in", "the", "park"],
]


def test_scores_are_the_librarys_and_the_choice_is_the_largest_sum():
    method = SmoothingFunction().method4
    expected = np.zeros((4, 4))
    for i, j in itertools.permutations(range(4), 2):
        expected[i, j] = sentence_bleu([CANDIDATES[j]], CANDIDATES[i], smoothing_function=method)
    assert pairwise_bleu(CANDIDATES) == pytest.approx(expected)
    for order in itertools.permutations(range(4)):
        sums = [sum(expected[i, j] for j in range(4) if j != i) for i in order]
        assert minimum_risk([CANDIDATES[i] for i in order]) == int(np.argmax(sums))
    assert minimum_risk(CANDIDATES) == 1  # its words are those of two others; nobody agrees on the sofa


def test_two_that_agree_beat_a_third_and_the_first_of_equals_is_taken():
    same = ["a", "dog", "runs", "fast"]
    assert minimum_risk([["x", "y", "z", "w"], same, same]) == 1
    assert minimum_risk([same]) == 0
    with pytest.raises(ValueError):
        minimum_risk([])


def test_nothing_said_or_nothing_shared_scores_nothing():
    assert smoothed_bleu([], [["a", "dog"]]) == smoothed_bleu(["cat"], [["cat"]]) == 0.0
    assert smoothed_bleu(["red", "cat"], [["a", "dog"]]) == 0.0
    assert smoothed_bleu(CANDIDATES[0], [CANDIDATES[2], CANDIDATES[0]]) == pytest.approx(1.0)
