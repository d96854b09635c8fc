"""The kernels as a GPU compiles them: `TRITON_INTERPRET=0 pytest tests/kernels/test_cuda.py` on a machine with one."""

import os

import pytest
import torch

from paperflows.components.moe.layer import MoELayer, Router
from paperflows.kernels.grouped_gemm import grouped_gemm
from paperflows.kernels.permute import combine_rows, gather_rows
from paperflows.kernels.slot_assignment import assign_slots, reference
from paperflows.kernels.swiglu import swiglu

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1", reason="needs a GPU and its compiler"
)
# relative error of the whole tensor: what rounding each operand and result to the precision costs
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
GROUPS = {
    "one row": ([1], 16, 16),
    "empty groups": ([0, 5, 0, 300, 0], 128, 264),
    "all in one": ([0, 700, 0], 96, 320),
    "odd widths": ([7, 160, 33], 100, 61),
    "no rows": ([0, 0], 16, 16),
    "many tiles": ([513, 1024, 0, 255], 512, 768),
}


def apart(ours, wanted):
    assert not ours.isnan().any()
    return float((ours.double() - wanted).norm() / wanted.norm().clamp(min=1e-30))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", GROUPS)
def test_grouped_products(case, dtype):
    counts, width_in, width_out = GROUPS[case]
    torch.manual_seed(0)
    rows = torch.randn(sum(counts), width_in, device="cuda", dtype=dtype, requires_grad=True)
    weight = torch.randn(len(counts), width_in, width_out, device="cuda", dtype=dtype, requires_grad=True)
    pull = torch.randn(sum(counts), width_out, device="cuda", dtype=dtype)
    found = grouped_gemm(rows, weight, torch.tensor(counts, device="cuda"))
    ours = found.detach(), *torch.autograd.grad(found, (rows, weight), pull)
    exact = [value.detach().double().requires_grad_() for value in (rows, weight)]
    parts = [part @ w for part, w in zip(exact[0].split(counts), exact[1], strict=True)]
    wanted = torch.cat(parts)
    wanted = wanted.detach(), *torch.autograd.grad(wanted, exact, pull.double())
    for a, b in zip(ours, wanted, strict=True):
        assert apart(a, b) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("tokens", "width", "count"), [(1, 1, 1), (7, 13, 30), (5, 1030, 9), (4096, 512, 6000)])
def test_gather_and_combine(tokens, width, count, dtype):
    torch.manual_seed(0)
    token = torch.randint(-1, tokens, (count,), device="cuda")
    x = torch.randn(tokens, width, device="cuda", dtype=dtype, requires_grad=True)
    gate = torch.rand(count, device="cuda", requires_grad=True)
    pull = torch.randn(tokens, width, device="cuda", dtype=dtype)
    found = combine_rows(gather_rows(x, token), token, gate, tokens)
    ours = found.detach(), *torch.autograd.grad(found, (x, gate), pull)
    exact, weight = x.detach().double().requires_grad_(), gate.detach().double().requires_grad_()
    real = token >= 0
    copied = exact[token[real]] * weight[real, None]
    wanted = torch.zeros_like(exact).index_add(0, token[real], copied)
    wanted = wanted.detach(), *torch.autograd.grad(wanted, (exact, weight), pull.double())
    for a, b in zip(ours, wanted, strict=True):
        assert apart(a, b) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("count", "hidden"), [(1, 1), (7, 13), (3000, 1408)])
def test_gated_activation(count, hidden, dtype):
    torch.manual_seed(0)
    gate_up = torch.randn(count, 2 * hidden, device="cuda", dtype=dtype, requires_grad=True)
    pull = torch.randn(count, hidden, device="cuda", dtype=dtype)
    found = swiglu(gate_up)
    ours = found.detach(), *torch.autograd.grad(found, gate_up, pull)
    exact = gate_up.detach().double().requires_grad_()
    gate, up = exact.chunk(2, 1)
    wanted = gate / (1 + (-gate).exp()) * up
    wanted = wanted.detach(), *torch.autograd.grad(wanted, exact, pull.double())
    for a, b in zip(ours, wanted, strict=True):
        assert apart(a, b) < TOLERANCE[dtype]


@pytest.mark.parametrize(("experts", "tokens", "capacity"), [(1, 1, 1), (3, 17, 5), (8, 16384, 2048), (64, 5000, 7000)])
def test_slots(experts, tokens, capacity):
    torch.manual_seed(0)
    keys = torch.randn(experts, tokens, device="cuda").round(decimals=2)  # with ties, and tokens that are not eligible
    assert assign_slots(keys, capacity).equal(reference.assign_slots(keys, capacity))


@pytest.mark.parametrize(("k", "factor", "rectify"), [(1, 1.0, ("fill", "intra")), (2, 1.0, ()), (2, None, ())])
def test_layer_equals_its_torch_form(monkeypatch, k, factor, rectify):
    found = {}
    for implementation in ("triton", "reference"):
        monkeypatch.setenv("PAPERFLOWS_KERNELS", implementation)
        torch.manual_seed(0)
        router = Router(k=k, capacity_factor=factor, combine="normalised")
        layer = MoELayer(width=200, hidden=180, experts=8, router=router, rectify=rectify).cuda()
        x = torch.randn(999, 200, device="cuda", requires_grad=True)
        y = layer(x)
        found[implementation] = [y.detach(), *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])]
    for ours, wanted in zip(found["triton"], found["reference"], strict=True):
        assert apart(ours, wanted.double()) < 1e-4
