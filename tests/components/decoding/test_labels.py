import numpy as np
import pytest

from paperflows.components.decoding.labels import half_split_oracle, label_inputs, mutual_information, shrunken


def test_shrinking_pulls_a_lucky_sample_to_the_mean_of_its_configuration():
    scores = np.array([[[1.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])  # (2 inputs, 2 configurations, 2 samples)
    # configuration 0 has the mean 0.5: input 0 becomes (2 * 1 + 2 * 0.5) / 4
    assert shrunken(scores, 2.0).tolist() == [[0.75, 0.0], [0.25, 0.0]]
    assert shrunken(scores, 0.0).tolist() == scores.mean(2).tolist()


def test_flat_inputs_and_ties_take_the_familys_best():
    scores = np.zeros((4, 3, 2))
    scores[0, 1] = 1.0  # only configuration 1 is ever right on input 0, and it is the best over all
    scores[1, :] = 1.0  # always right
    scores[3, 2, 0] = 1.0
    labels, flat = label_inputs(scores, 4.0)
    assert flat.tolist() == [False, True, True, False]
    assert labels.tolist()[:3] == [1, 1, 1]


def test_a_label_stands_only_if_the_other_half_of_the_samples_says_so_too():
    scores = np.zeros((4, 2, 4))
    scores[:, 0] = 0.5  # the family's best
    scores[0, 1] = [1.0, 1.0, 0.4, 0.4]  # better than it in all, worse where it was not chosen
    scores[1, 1] = [1.0, 1.0, 0.6, 0.6]
    scores[2, 1] = [0.0, 0.0, 0.9, 0.9]  # would not be chosen on the first half
    labels, flat = label_inputs(scores, 0.0)
    assert labels.tolist() == [0, 1, 0, 0]
    assert not flat.any()


def test_noise_makes_few_labels_that_are_not_the_familys_best():
    noise = np.random.default_rng(0).random((2000, 9, 4))
    labels, _ = label_inputs(noise, 0.0)
    best = int(noise.mean((0, 2)).argmax())
    # chosen by noise it beats another one half of the time; without the check 8 in 9 would be another one
    assert np.mean(labels != best) == pytest.approx(8 / 9 / 2, abs=0.04)


def test_an_oracle_on_noise_gains_nothing_while_the_best_of_the_same_samples_would():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 2, (2000, 16, 4)).astype(float)
    assert half_split_oracle(noise).mean() == pytest.approx(0.5, abs=0.02)
    assert noise.mean(2).max(1).mean() > 0.8


def test_mutual_information_of_what_tells_all_and_of_what_tells_nothing():
    all_told, terms = mutual_information([0.0, 0.0, 1.0, 1.0], ["a", "a", "b", "b"])
    assert all_told == pytest.approx(1.0)
    assert terms.tolist() == pytest.approx([1.0] * 4)
    assert mutual_information([0.0, 1.0, 0.0, 1.0], ["a", "a", "b", "b"])[0] == pytest.approx(0.0)
