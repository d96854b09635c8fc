"""The layer against loops over tokens and experts, and its refusals."""

import pytest
import torch
import torch.nn.functional as F

from paperflows.components.errors import InputError
from paperflows.components.models.tiny_decoder import tiny_decoder
from paperflows.components.moe.language_model import moe_layers, next_token_loss, objective, replace_ffn
from paperflows.components.moe.layer import MoELayer, Router
from paperflows.components.moe.routing import gates
from paperflows.components.moe.worker import forward_flops

DECODER = {"vocabulary": 64, "width": 16, "layers": 2, "heads": 2, "hidden": 24, "positions": 32, "seed": 0}


def made(**options):
    torch.manual_seed(1)
    layer = MoELayer(**{"width": 12, "hidden": 20, "experts": 4, **options}).double()
    torch.nn.init.normal_(layer.score.weight)
    return layer


def loops(layer, x):
    """Each token through each of its experts, one at a time, with the plan's own rows and weights."""
    plan = layer.record.plan
    scores = F.linear(x, layer.score.weight).softmax(-1)
    weight = gates(scores, plan, layer.router.combine)
    y = torch.zeros_like(x)
    pairs = [*zip(plan.travel.token, plan.travel.expert), *zip(plan.stay.token, plan.stay.expert)]  # noqa: B905
    for row, (token, expert) in enumerate(pairs):
        if token >= 0:
            gate, up = (x[token] @ layer.experts.gate_up[expert]).chunk(2)
            y[token] = y[token] + weight[row] * ((F.silu(gate) * up) @ layer.experts.down[expert])
    return y


@pytest.mark.parametrize("combine", ["score", "normalised", "straight_through"])
@pytest.mark.parametrize("rectify", [(), ("intra",), ("fill",), ("fill", "intra")], ids="+".join)
@pytest.mark.parametrize(("k", "factor"), [(1, 1.0), (2, 0.5), (2, None)])
def test_output_and_gradients(rectify, k, factor, combine):
    layer = made(router=Router(k=k, capacity_factor=factor, combine=combine), rectify=rectify)
    x = torch.randn(11, 12, dtype=torch.float64, requires_grad=True)
    pull = torch.randn(11, 12, dtype=torch.float64)

    def gradients(y):
        return torch.autograd.grad((y * pull).sum(), [x, *layer.parameters()])

    y = layer(x)
    ours = gradients(y)
    again = loops(layer, x)
    torch.testing.assert_close(y, again, rtol=1e-10, atol=1e-10)
    for a, b in zip(ours, gradients(again), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_dropped_tokens_skip_the_layer_and_rectified_ones_do_not():
    x = torch.randn(1, 16, 12, dtype=torch.float64)
    plain, rectified = made(), made(rectify=("intra",))
    lost = plain(x)[0].abs().sum(-1) == 0
    assert lost.tolist() == plain.record.plan.dropped.flatten().tolist()
    assert lost.any()
    assert not (rectified(x)[0].abs().sum(-1) == 0).any()


def test_padding_changes_nothing():
    layer = made(rectify=("intra", "fill"))
    x = torch.randn(9, 12, dtype=torch.float64)
    padded = torch.cat([x[:4], torch.full((3, 12), 1e3, dtype=torch.float64), x[4:]])
    mask = torch.tensor([True] * 4 + [False] * 3 + [True] * 5)
    torch.testing.assert_close(layer(padded, mask)[mask], layer(x))
    layer(padded, mask)
    balance = float(layer.record.balance.detach())
    layer(x)
    assert balance == pytest.approx(float(layer.record.balance.detach()))


def test_one_expert_is_the_dense_model():
    dense = tiny_decoder(**DECODER)
    ids = torch.randint(0, 64, (3, 20))
    wanted = next_token_loss(dense, ids)
    mixed = replace_ffn(dense, experts=1, router=Router(), copy=True)
    torch.testing.assert_close(next_token_loss(mixed, ids), wanted)


def test_copied_experts_start_as_the_dense_model():
    dense = tiny_decoder(**DECODER)
    ids = torch.randint(0, 64, (3, 20))
    wanted = next_token_loss(dense, ids)
    router = Router(k=2, capacity_factor=None, combine="normalised")
    torch.testing.assert_close(next_token_loss(replace_ffn(dense, experts=4, router=router, copy=True), ids), wanted)


def test_routing_losses_enter_the_objective():
    model = replace_ffn(tiny_decoder(**DECODER), experts=4, router=Router())
    ids = torch.randint(0, 64, (3, 20))
    plain, nats = objective(model, ids, balance=0.0, z=0.0)
    assert plain.equal(nats)
    records = [m.record for m in model.modules() if isinstance(m, MoELayer)]
    wanted = plain + sum(0.5 * r.balance + 0.25 * r.z for r in records) / 2
    whole, first = objective(model, ids, balance=0.5, z=0.25)
    torch.testing.assert_close(whole, wanted)
    torch.testing.assert_close(first, nats)


def test_flops_of_a_dropless_top_1_model_are_those_of_the_dense_one_and_the_router():
    ids = torch.randint(0, 64, (3, 21))
    dense = forward_flops(tiny_decoder(**DECODER), ids)
    router = Router(capacity_factor=None)
    mixed = forward_flops(replace_ffn(tiny_decoder(**DECODER), experts=4, router=router), ids)
    assert mixed - dense == 2 * (2 * 60 * 16 * 4)  # two layers, 60 tokens, width 16, 4 experts


def test_flops_of_a_dense_model_are_those_written_out_by_hand():
    texts, tokens, width, hidden, layers, words = 3, 20, 16, DECODER["hidden"], DECODER["layers"], 64
    projections, attention, ffn = 4 * width * width, 2 * tokens * width, 3 * width * hidden
    each = layers * (projections + attention + ffn) + width * words
    found = forward_flops(tiny_decoder(**DECODER), torch.randint(0, 64, (texts, tokens + 1)))
    assert found == 2 * texts * tokens * each


def test_a_mask_is_seen_however_it_is_given_and_forgotten_after():
    model = replace_ffn(tiny_decoder(**DECODER), experts=4, router=Router())
    ids, mask = torch.randint(0, 64, (2, 10)), torch.ones(2, 10, dtype=torch.long)
    mask[1, 4:] = 0

    def tokens(*given, of=model, **named):
        of(*given, **named)
        return moe_layers(model)[0].record.plan.tokens

    assert tokens(input_ids=ids, attention_mask=mask) == tokens(ids, mask) == tokens(ids, mask, of=model.model) == 14
    assert tokens(ids) == tokens(ids, of=model.model) == 20
    layer = moe_layers(model)[0]
    layer(torch.randn(2, 3, 16), torch.zeros(2, 3, dtype=torch.bool))
    assert float(layer.record.balance) == float(layer.record.z) == 0, "no real token, no loss"


def test_bad_settings_are_refused():
    sizes = {"width": 4, "hidden": 4, "experts": 4}
    with pytest.raises(InputError, match=r"k: expected 1 to 4 \(the number of experts\), got 5"):
        MoELayer(**sizes, router=Router(k=5))
    with pytest.raises(InputError, match="capacity factor: expected a number above 0, got -1"):
        MoELayer(**sizes, router=Router(capacity_factor=-1))
    with pytest.raises(InputError, match=r"rectify: expected any of intra, fill, random, got \['inter'\]"):
        MoELayer(**sizes, rectify=("inter",))
    with pytest.raises(InputError, match="no feed-forward layers"):
        replace_ffn(torch.nn.Linear(2, 2), experts=2, router=Router())


@pytest.mark.parametrize("rectify", [(), ("intra", "fill")])
def test_padding_takes_no_slot_and_counts_in_no_loss(rectify):
    dense = tiny_decoder(vocabulary=40, width=16, layers=2, heads=2, hidden=24, positions=32, seed=0)
    model = replace_ffn(dense, experts=4, router=Router(), rectify=rectify).eval()
    ids = torch.randint(0, 40, (1, 11), generator=torch.Generator().manual_seed(2))
    padded, mask = torch.cat([ids, torch.zeros(1, 9, dtype=torch.long)], 1), (torch.arange(20) < 11).long()[None]
    with torch.no_grad():
        alone = model(input_ids=ids).logits
        records = [layer.record for layer in moe_layers(model)]
        among = model(input_ids=padded, attention_mask=mask).logits[:, :11]
    torch.testing.assert_close(among, alone, atol=1e-5, rtol=0)
    for before, layer in zip(records, moe_layers(model), strict=True):
        assert before.plan.load().equal(layer.record.plan.load())
        torch.testing.assert_close(before.balance, layer.record.balance)
        torch.testing.assert_close(before.z, layer.record.z)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"router": Router(combine="normalized")}, "combine: expected one of score, normalised"),
        ({"router": Router(keep="first")}, "keep: expected one of score, position"),
        ({"router": Router(capacity_factor=float("inf"))}, "capacity factor: expected a number above 0, got inf"),
        ({"rectify": ("intra", "random")}, "two ways to choose for the same tokens"),
    ],
)
def test_settings_that_would_silently_mean_something_else_are_refused(settings, said):
    with pytest.raises(InputError, match=said):
        MoELayer(width=8, hidden=8, experts=4, **settings)


def test_under_autocast_rows_and_weights_meet_in_its_precision():
    torch.manual_seed(0)
    layer = MoELayer(width=16, hidden=24, experts=4, router=Router(k=2), rectify=("fill", "intra"))
    x = torch.randn(30, 16)
    exact = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = layer(torch.nn.Identity()(x))
    torch.testing.assert_close(rounded.float(), exact, rtol=0.05, atol=0.05)
    rounded.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
