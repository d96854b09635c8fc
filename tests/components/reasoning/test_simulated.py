import numpy as np
import pytest

from paperflows.components.reasoning.simulated import noise_of, noisy_scores
from paperflows.components.reasoning.verifier import auc


def test_unit_noise_gives_the_auc_of_the_tables():
    # Phi(1 / sqrt 2) = Phi(0.70711) = 0.76025
    assert noise_of(0.76025) == pytest.approx(1.0, abs=1e-4)
    assert noise_of(0.97) < noise_of(0.85) < noise_of(0.7)


@pytest.mark.parametrize("quality", [0.7, 0.85, 0.97])
@pytest.mark.parametrize("share", [0.3, 0.8])
def test_the_judge_is_as_good_as_asked(quality, share):
    right = np.random.default_rng(1).random(20_000) < share
    assert auc(noisy_scores(right, quality=quality, seed=0), right) == pytest.approx(quality, abs=0.01)


def test_less_noise_is_never_a_worse_judge():
    right = np.random.default_rng(1).random(60) < 0.6
    found = [auc(noisy_scores(right, quality=q, seed=3), right) for q in (0.7, 0.75, 0.8, 0.85, 0.9, 0.94, 0.97)]
    assert found == sorted(found) and found[0] < found[-1]
