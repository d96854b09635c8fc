"""A whole mixture-of-experts layer on the Triton kernels: what the torch forms give, and the same training."""

import pytest
import torch

from paperflows.components.models.tiny_decoder import tiny_decoder
from paperflows.components.moe.language_model import objective, replace_ffn
from paperflows.components.moe.layer import MoELayer, Router

ROUTINGS = {
    "even": torch.zeros(4, 20),
    "all to one expert": torch.tensor([[9.0], [0.0], [0.0], [0.0]]).repeat(1, 20),
    "an expert without tokens": torch.tensor([[1.0], [1.0], [1.0], [-20.0]]).repeat(1, 20),
}


def outcome(monkeypatch, implementation, k, factor, rectify, pull_to):
    monkeypatch.setenv("PAPERFLOWS_KERNELS", implementation)
    torch.manual_seed(0)
    layer = MoELayer(
        width=20,
        hidden=18,
        experts=4,
        router=Router(k=k, capacity_factor=factor, combine="normalised"),
        rectify=rectify,
    )
    x = torch.randn(23, 20).abs().requires_grad_()
    with torch.no_grad():
        layer.score.weight.add_(0.1 * pull_to)
    y = layer(x)
    gradients = torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])
    return [y.detach(), *gradients], layer.record.plan.load()


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize(("k", "factor", "rectify"), [(1, 1.0, ("fill", "intra")), (2, 1.0, ()), (2, None, ())])
def test_layer_equals_its_torch_form(monkeypatch, routing, k, factor, rectify):
    ours, load = outcome(monkeypatch, "triton", k, factor, rectify, ROUTINGS[routing])
    reference, same = outcome(monkeypatch, "reference", k, factor, rectify, ROUTINGS[routing])
    assert load.equal(same)
    for a, b in zip(ours, reference, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_short_training_ends_at_the_same_loss(monkeypatch):
    ids = torch.randint(0, 32, (4, 9), generator=torch.Generator().manual_seed(1))

    def losses(implementation):
        monkeypatch.setenv("PAPERFLOWS_KERNELS", implementation)
        dense = tiny_decoder(vocabulary=32, width=16, layers=1, heads=2, hidden=16, positions=16, seed=0)
        model = replace_ffn(dense, experts=2, router=Router(), rectify=("fill", "intra"))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        found = []
        for _ in range(5):
            loss, _ = objective(model, ids, balance=0.01, z=0.001)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            found.append(float(loss.detach()))
        return found

    ours, reference = losses("triton"), losses("reference")
    assert ours == pytest.approx(reference, rel=1e-4) and ours[-1] < ours[0] - 0.05
