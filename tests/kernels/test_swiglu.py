import pytest
import torch

from paperflows.kernels.swiglu import swiglu


def formula(gate_up):
    """Written out: gate / (1 + exp(-gate)) * up."""
    hidden = gate_up.shape[1] // 2
    gate, up = gate_up[:, :hidden], gate_up[:, hidden:]
    return gate / (1 + (-gate).exp()) * up


@pytest.mark.parametrize("implementation", ["reference", "triton"])
@pytest.mark.parametrize(("count", "hidden"), [(1, 1), (7, 13), (3, 1030), (0, 8)])
def test_output_and_gradient(monkeypatch, implementation, count, hidden):
    monkeypatch.setenv("PAPERFLOWS_KERNELS", implementation)
    generator = torch.Generator().manual_seed(3)
    given = 3 * torch.randn(count, 2 * hidden, generator=generator)
    pull = torch.randn(count, hidden, generator=generator)
    found = {}
    for name, operation, start in (("ours", swiglu, given.clone()), ("wanted", formula, given.double())):
        start.requires_grad_()
        y = operation(start)
        (y * pull).sum().backward()
        found[name] = y.detach().double(), start.grad.double()
    for ours, wanted in zip(found["ours"], found["wanted"], strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(monkeypatch, dtype):
    monkeypatch.setenv("PAPERFLOWS_KERNELS", "triton")
    given = torch.randn(5, 80, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = swiglu(given)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), formula(given.float()), rtol=1e-2, atol=1e-3)


def test_float64_is_exact_whatever_is_chosen(monkeypatch):
    monkeypatch.setenv("PAPERFLOWS_KERNELS", "triton")
    given = torch.randn(4, 6).double()
    torch.testing.assert_close(swiglu(given), formula(given), rtol=1e-14, atol=1e-14)
