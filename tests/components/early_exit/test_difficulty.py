import numpy as np
import pytest

from paperflows.components.early_exit.difficulty import (
    bag_of_words,
    bit_measures,
    majority_bits,
    predict_bits,
    set_recall,
)


def test_measures_by_hand():
    truth = np.array([[0, 0, 1], [1, 1, 1], [0, 1, 1]])
    said = np.array([[0, 1, 1], [1, 0, 1], [0, 1, 0]])
    # errors of the model (0): 1 of 2 found in the first, all of 1 in the third; the second has none
    assert set_recall(truth, said, bit=0) == pytest.approx((1 / 2 + 1) / 2)
    assert set_recall(truth, said, bit=1) == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)
    told = bit_measures(truth, said)
    assert told["accuracy"] == pytest.approx(6 / 9)
    assert told["g_mean"] == pytest.approx(np.sqrt(0.75 * 13 / 18))
    assert set_recall(np.ones((2, 2)), np.ones((2, 2)), bit=0) == 0.0


def test_majority():
    assert majority_bits(np.array([[1, 0], [1, 1], [0, 0]]), 2).tolist() == [[1, 0], [1, 0]]


def test_what_words_tell_is_learnt_and_a_constant_layer_is_kept():
    train = ["good film", "bad film", "good play", "bad play"] * 5
    bits = np.array([[1, 1], [0, 1], [1, 1], [0, 1]] * 5, dtype=float)
    x, y = bag_of_words(train, [["bad song film", "good song"]])
    assert predict_bits(x, bits, y, strength=10.0).tolist() == [[0, 1], [1, 1]]
