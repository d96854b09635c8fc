import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from paperflows.components.contrastive.losses import info_nce, similarity_regression, soft_info_nce

E = torch.eye(3)


def reference(first, second, score, temperature, negatives=None, duplicates=None, smooth="all"):
    """Soft InfoNCE written as the double sum of the paper, in Python floats."""
    candidates = second if negatives is None else torch.cat([second, negatives])
    total = 0.0
    for i in range(len(first)):
        logits = [F.cosine_similarity(first[i], c, dim=0).item() / temperature for c in candidates]
        allowed = [j for j in range(len(logits)) if j == i or duplicates is None or not duplicates[i, j]]
        norm = math.log(sum(math.exp(logits[j]) for j in allowed))
        for j in allowed:
            if j == i:
                q = score[i].item()
            else:
                q = (1 - score[i].item()) / (len(allowed) - 1) if smooth == "all" else 0.0
            total -= q * (logits[j] - norm)
    return total / len(first)


def test_regression_by_hand():
    first, second = torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 2.0], [3.0, 3.0]])
    # cosines 0 and 1; against 0.5 and 0.8: (0.25 + 0.04) / 2
    assert similarity_regression(first, second, torch.tensor([0.5, 0.8])).item() == pytest.approx(0.145, abs=1e-6)


def test_info_nce_by_hand():
    # orthogonal rows, tau = 1: each row's logits are one 1 and two 0s
    assert info_nce(E, E, temperature=1.0).item() == pytest.approx(math.log(math.e + 2) - 1, abs=1e-6)


def test_hard_negatives_are_candidates_of_every_row():
    value = info_nce(E, E, temperature=1.0, negatives=-E)
    assert value.item() == pytest.approx(math.log(math.e + 2 + math.exp(-1) + 2) - 1, abs=1e-6)


def test_duplicates_do_not_count_as_negatives():
    first, second = E[[0, 0, 1]], E[[0, 0, 1]]  # rows 0 and 1 say the same
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    by_hand = (2 * (math.log(math.e + 1) - 1) + math.log(math.e + 2) - 1) / 3
    assert info_nce(first, second, temperature=1.0, duplicates=same).item() == pytest.approx(by_hand, abs=1e-6)


def test_soft_equals_hard_when_scores_are_one():
    torch.manual_seed(0)
    first, second, negatives = torch.randn(3, 5, 7).unbind()
    hard = info_nce(first, second, negatives=negatives)
    for smooth in ("all", "positive"):
        soft = soft_info_nce(first, second, torch.ones(5), negatives=negatives, smooth=smooth)
        assert soft.item() == pytest.approx(hard.item(), rel=1e-6)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 6), st.booleans(), st.booleans(), st.sampled_from(["all", "positive"]), st.integers(0, 10**6))
def test_soft_equals_the_double_sum(size, with_negatives, with_duplicates, smooth, seed):
    generator = torch.Generator().manual_seed(seed)
    first, second, negatives = torch.randn(3, size, 4, generator=generator).unbind()
    score = torch.rand(size, generator=generator)
    negatives = negatives if with_negatives else None
    width = 2 * size if with_negatives else size
    duplicates = torch.rand(size, width, generator=generator) < 0.2 if with_duplicates else None
    options = {"temperature": 0.5, "negatives": negatives, "duplicates": duplicates, "smooth": smooth}
    alone = duplicates is not None and any(int((~duplicates[i]).sum()) + int(duplicates[i, i]) < 2 for i in range(size))
    if alone:
        return
    ours = soft_info_nce(first, second, score, **options)
    assert ours.item() == pytest.approx(reference(first, second, score, **options), rel=1e-4)


def test_gradients_are_finite_with_masked_candidates():
    first = torch.randn(4, 3, requires_grad=True)
    duplicates = torch.ones(4, 4, dtype=torch.bool)
    soft_info_nce(first, torch.randn(4, 3), torch.full((4,), 0.3), duplicates=duplicates).backward()
    assert torch.isfinite(first.grad).all()
