"""Routing on hand-worked cases, and what must hold for any scores."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paperflows.components.errors import InputError
from paperflows.components.moe.capacity import fill_slots, slots_per_expert
from paperflows.components.moe.rectify import reroute
from paperflows.components.moe.router import load_balance_loss, top_choices, z_loss
from paperflows.components.moe.routing import gates, plan_routing

# five tokens, three experts; tokens 0, 1, 2 and 4 choose expert 0, token 3 chooses expert 1, nobody expert 2
SCORES = torch.tensor([[0.6, 0.3, 0.1], [0.5, 0.1, 0.4], [0.9, 0.05, 0.05], [0.2, 0.7, 0.1], [0.55, 0.25, 0.2]])


def rows(leg):
    return list(zip(leg.token.tolist(), leg.expert.tolist(), strict=True))


def test_capacity_is_a_share_rounded_up():
    assert slots_per_expert(5, k=1, experts=3, factor=1.0) == 2
    assert slots_per_expert(5, k=2, experts=3, factor=1.25) == 5
    assert slots_per_expert(1, k=1, experts=8, factor=1.0) == 1
    with pytest.raises(InputError, match="capacity factor: expected a number above 0, got 0"):
        slots_per_expert(5, k=1, experts=3, factor=0)


def test_an_expert_keeps_the_best_of_those_that_chose_it():
    choices = top_choices(SCORES, 1)
    assert fill_slots(SCORES, choices, 2, fill=False).tolist() == [[0, 2], [3, -1], [-1, -1]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kernels", ["reference", "triton"])
def test_near_ties_go_to_the_higher_score(monkeypatch, kernels, dtype):
    monkeypatch.setenv("PAPERFLOWS_KERNELS", kernels)
    low = torch.tensor(0.51, dtype=dtype)
    high = torch.nextafter(low, torch.ones((), dtype=dtype))  # added to 2 they are equal, and the first would win
    for a in (low, low * 0, 1 - (high - low)):
        first = torch.stack([a, torch.nextafter(a, torch.full((), 2.0, dtype=dtype))])
        scores = torch.stack([first, torch.zeros(2, dtype=dtype)], dim=1)
        assert fill_slots(scores, torch.zeros(2, 1, dtype=torch.int64), 1, fill=True).tolist() == [[1], [0]]


def test_or_the_first_in_the_batch():
    choices = top_choices(SCORES, 1)
    assert fill_slots(SCORES, choices, 2, fill=False, keep="position").tolist() == [[0, 1], [3, -1], [-1, -1]]


def test_empty_slots_are_filled_by_score():
    choices = top_choices(SCORES, 1)
    # expert 1 has room for token 0 (0.3 is the best of the others); expert 2 for tokens 1 (0.4) and 4 (0.2)
    assert fill_slots(SCORES, choices, 2, fill=True).tolist() == [[0, 2], [0, 3], [1, 4]]


def test_dropped_tokens_go_to_the_best_expert_of_their_worker():
    plan = plan_routing(SCORES, 1, factor=1.0, rectify=("intra",), local=range(1, 3))
    assert plan.dropped.flatten().tolist() == [False, True, False, False, True]
    assert rows(plan.stay) == [(4, 1), (1, 2)]
    assert plan.stay.counts.tolist() == [1, 1]
    assert plan.shares() == {"dropped": 0.4, "rectified": 0.4, "skipped": 0.0, "padded": 0.5, "useful": 5 / 8}


def test_also_to_the_expert_that_turned_them_away_when_it_is_their_own():
    plan = plan_routing(SCORES, 1, factor=1.0, rectify=("intra",), local=range(1))
    assert rows(plan.stay) == [(1, 0), (4, 0)]


def test_both_never_give_a_token_the_same_expert_twice():
    # fill-in gives token 1 expert 2, so that its rectification must take expert 1
    plan = plan_routing(SCORES, 1, factor=1.0, rectify=("intra", "fill"), local=range(1, 3))
    assert rows(plan.travel) == [(0, 0), (2, 0), (0, 1), (3, 1), (1, 2), (4, 2)]
    assert rows(plan.stay) == [(1, 1), (4, 1)]
    assert plan.load().tolist() == [2, 4, 2]


def test_two_dropped_choices_take_two_experts():
    used = torch.zeros(1, 4, dtype=torch.bool)
    token, expert = reroute(torch.tensor([[0.1, 0.2, 0.4, 0.3]]), used, torch.tensor([2]), range(4), 2)
    assert (token.tolist(), expert.tolist()) == ([0, 0], [2, 3])


def test_dropless_computes_every_choice():
    plan = plan_routing(SCORES, 2, factor=None)
    assert rows(plan.travel) == [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (0, 1), (2, 1), (3, 1), (4, 1), (1, 2)]
    assert plan.shares() == {"dropped": 0.0, "rectified": 0.0, "skipped": 0.0, "padded": 0.0, "useful": 1.0}


def test_padding_tokens_enter_nothing():
    mask = torch.tensor([True, False, True, True, False])
    plan = plan_routing(SCORES, 1, factor=1.0, rectify=("intra", "fill"), mask=mask)
    assert plan.tokens == 3
    assert not {1, 4} & {token for token, _ in rows(plan.travel) + rows(plan.stay)}
    assert plan.travel.counts.tolist() == [1, 1, 1]
    assert not plan.dropped[~mask].any()
    alone = plan_routing(SCORES[mask], 1, factor=1.0, rectify=("intra", "fill"))
    original = mask.nonzero().flatten()
    assert rows(plan.travel) == [(int(original[t]), e) for t, e in rows(alone.travel)]


def test_gates():
    plan = plan_routing(SCORES, 1, factor=1.0, rectify=("fill",))
    by_row = dict(zip(rows(plan.travel), gates(SCORES, plan, "score").tolist(), strict=True))
    assert by_row[(0, 1)] == pytest.approx(0.3)
    by_row = dict(zip(rows(plan.travel), gates(SCORES, plan, "normalised").tolist(), strict=True))
    assert by_row[(0, 1)] == pytest.approx(0.3 / 0.9)
    assert by_row[(3, 1)] == pytest.approx(1.0)
    scores = SCORES.clone().requires_grad_()
    weights = gates(scores, plan, "straight_through")
    by_row = dict(zip(rows(plan.travel), weights.tolist(), strict=True))
    assert by_row[(0, 0)] == by_row[(0, 1)] == pytest.approx(0.5)
    weights.sum().backward()
    assert scores.grad[0].tolist() == [1.0, 1.0, 0.0]


def test_padded_slots_weigh_nothing():
    plan = plan_routing(SCORES, 1, factor=1.0)
    for combine in ("score", "normalised", "straight_through"):
        assert gates(SCORES, plan, combine)[plan.travel.token < 0].tolist() == [0.0, 0.0, 0.0]


def test_balance_loss_is_one_when_even_and_the_number_of_experts_when_collapsed():
    assert load_balance_loss(torch.full((6, 3), 1 / 3), torch.tensor([[0], [1], [2]] * 2)) == pytest.approx(1.0)
    assert load_balance_loss(torch.tensor([[1.0, 0, 0]] * 4), torch.zeros(4, 1, dtype=torch.int64)) == pytest.approx(3)


def test_z_loss():
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]])
    assert z_loss(logits) == pytest.approx((math.log(2) ** 2 + math.log(4) ** 2) / 2, rel=1e-6)


@settings(deadline=None, max_examples=150)
@given(
    tokens=st.integers(1, 30),
    experts=st.sampled_from([2, 4, 6]),
    k=st.integers(1, 2),
    factor=st.sampled_from([0.5, 1.0, 1.3, None]),
    rectify=st.sampled_from([(), ("intra",), ("fill",), ("intra", "fill"), ("random",)]),
    half=st.booleans(),
    masked=st.booleans(),
    ties=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_any_routing(tokens, experts, k, factor, rectify, half, masked, ties, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(tokens, experts, generator=generator) * 3
    scores = (logits.round() if ties else logits).softmax(-1)
    mask = torch.rand(tokens, generator=generator) < 0.7 if masked else None
    local = range(experts // 2, experts) if half else range(experts)
    plan = plan_routing(scores, k, factor=factor, rectify=rectify, local=local, mask=mask)
    travel = [(t, e) for t, e in rows(plan.travel) if t >= 0]
    everything = travel + rows(plan.stay)
    real = range(tokens) if mask is None else [t for t in range(tokens) if mask[t]]
    chosen = {(t, e) for t in real for e in top_choices(scores, k)[t].tolist()}
    dropped = {(t, int(plan.choices[t, j])) for t in real for j in range(k) if bool(plan.dropped[t, j])}

    assert plan.tokens == len(real) and {t for t, _ in everything} <= set(real)
    assert len(set(everything)) == len(everything), "a token twice in one expert"
    for leg, numbers in ((plan.travel, range(experts)), (plan.stay, local)):
        assert leg.counts.tolist() == [leg.expert.tolist().count(e) for e in numbers] and leg.expert.equal(
            leg.expert.sort().values
        ), "rows and counts by expert"
    if factor is None:
        assert set(travel) == chosen and not dropped and not rows(plan.stay), "dropless computes the choices, no more"
        assert len(travel) == len(plan.travel.token), "dropless pads nothing"
    else:
        capacity = slots_per_expert(plan.tokens, k=k, experts=experts, factor=factor)
        assert plan.travel.counts.tolist() == [capacity] * experts, "every expert has its slots, empty or not"
        for expert in range(experts):
            one_expert(scores[:, expert].tolist(), expert, travel, chosen, dropped, real, capacity, "fill" in rectify)
    rerouted(scores, plan, local, travel, dropped, real, rectify)
    lost = sum((plan.dropped.sum(1) > 0).tolist()) if not rectify and k == 1 else None
    shares = plan.shares()
    assert shares["skipped"] == pytest.approx((len(real) - len({t for t, _ in everything})) / max(1, len(real)))
    assert lost is None or shares["skipped"] == pytest.approx(lost / max(1, len(real)))
    if "intra" in rectify and k == 1:
        assert shares["skipped"] == 0
    assert int(plan.load().sum()) == len(everything)


def one_expert(score, expert, travel, chosen, dropped, real, capacity, fill):
    """Who has the slots of one expert: its best choosers, and the best of the others only when no chooser is left."""
    held = [t for t, e in travel if e == expert]
    choosers = {t for t, e in chosen if e == expert}
    kept, fillers = choosers & set(held), set(held) - choosers
    turned_away = {t for t, e in dropped if e == expert}
    assert len(held) <= capacity
    assert len(kept) == min(capacity, len(choosers)), "a chooser was turned away while a slot was free"
    assert kept | turned_away == choosers and not kept & turned_away, "kept and dropped are all choices"
    assert all(score[t] >= score[other] for t in kept for other in turned_away), "the best choosers stay"
    if not fill:
        assert not fillers
        return
    assert not (fillers and turned_away), "a filler has the slot of a chooser"
    assert len(held) == min(capacity, len(real)), "an empty slot while a token could take it"
    others = set(real) - choosers - fillers
    assert all(score[t] >= score[other] for t in fillers for other in others), "the best of the others fill"


def rerouted(scores, plan, local, travel, dropped, real, rectify):
    """Dropped choices get an expert of their own worker, as far as it has one that the token does not use."""
    stay = rows(plan.stay)
    assert all(e in local for _, e in stay), "a rectified token left its worker"
    if not {"intra", "random"} & set(rectify):
        assert not stay
        return
    for token in real:
        missing = sum(t == token for t, _ in dropped)
        room = sum((token, e) not in travel for e in local)
        assert sum(t == token for t, _ in stay) == min(missing, room), "dropped choices are rectified"
    if "intra" in rectify:
        for t, e in stay:
            better = [o for o in local if scores[t, o] > scores[t, e]]
            assert all((t, o) in travel + stay for o in better), "a better local expert was free"
