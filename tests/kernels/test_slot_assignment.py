import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paperflows.kernels.slot_assignment import assign_slots


def by_hand(keys, capacity):
    """What the docstring says, one expert at a time."""
    slots = []
    for row in keys.tolist():
        eligible = sorted((n for n, key in enumerate(row) if key >= 0), key=lambda n: (-row[n], n))[:capacity]
        slots.append(sorted(eligible) + [-1] * (capacity - len(eligible)))
    return torch.tensor(slots)


def test_worked_case():
    keys = torch.tensor([[0.2, 0.9, -1.0, 0.9, 0.5], [-1.0, -1.0, -1.0, 0.1, -1.0]])
    assert assign_slots(keys, 2).tolist() == [[1, 3], [3, -1]]
    assert assign_slots(keys, 3).tolist() == [[1, 3, 4], [3, -1, -1]]


def test_ties_go_to_the_earlier_token():
    assert assign_slots(torch.full((1, 6), 0.25), 3).tolist() == [[0, 1, 2]]


def test_more_slots_than_tokens():
    assert assign_slots(torch.tensor([[0.5, 0.1]]), 4).tolist() == [[0, 1, -1, -1]]


def test_capacity_below_one_is_refused():
    with pytest.raises(ValueError, match="capacity: expected at least 1"):
        assign_slots(torch.zeros(1, 3), 0)


KEYS = st.lists(st.sampled_from([-1.0, 0.0, -0.0, 0.125, 0.5, 0.9, 2.5]), min_size=1, max_size=40)


@given(row=KEYS, capacity=st.integers(1, 12))
def test_any_keys(row, capacity):
    keys = torch.tensor([row, row[::-1]])
    assert assign_slots(keys, capacity).equal(by_hand(keys, capacity))


@pytest.mark.parametrize(("experts", "tokens", "capacity"), [(1, 1, 1), (3, 50, 7), (2, 4100, 513), (4, 33, 40)])
@pytest.mark.parametrize("eligible", [1.0, 0.3, 0.0], ids=["all", "some", "none"])
def test_triton_equals_the_reference(monkeypatch, experts, tokens, capacity, eligible):
    generator = torch.Generator().manual_seed(tokens)
    keys = torch.rand(experts, tokens, generator=generator).mul(64).round().div(64)
    keys[torch.rand(experts, tokens, generator=generator) >= eligible] = -1
    monkeypatch.setenv("PAPERFLOWS_KERNELS", "triton")
    found = assign_slots(keys, capacity)
    assert found.equal(by_hand(keys, capacity))
