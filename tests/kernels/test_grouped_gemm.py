import pytest
import torch

from paperflows.kernels.grouped_gemm import grouped_gemm

CASES = {
    "one-row": ([1], 16, 16),
    "empty-groups": ([0, 5, 0, 19, 0], 24, 40),
    "all-in-one": ([0, 50, 0], 33, 17),
    "odd-widths": ([7, 16, 3], 100, 60),
    "no-rows": ([0, 0], 16, 16),
}


@pytest.mark.parametrize("implementation", ["reference", "triton"])
@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients(monkeypatch, implementation, case):
    counts, width_in, width_out = CASES[case]
    monkeypatch.setenv("PAPERFLOWS_KERNELS", implementation)
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(sum(counts), width_in, generator=generator, requires_grad=True)
    weight = torch.randn(len(counts), width_in, width_out, generator=generator, requires_grad=True)
    pull = torch.randn(sum(counts), width_out, generator=generator)

    found = grouped_gemm(rows, weight, torch.tensor(counts))
    (found * pull).sum().backward()
    ours = found.detach(), rows.grad, weight.grad

    rows, weight = rows.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    group = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    wanted = torch.einsum("mk,mkn->mn", rows, weight[group])
    (wanted * pull).sum().backward()
    for a, b in zip(ours, (wanted.detach(), rows.grad, weight.grad), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("implementation", ["reference", "triton"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(monkeypatch, implementation, dtype):
    monkeypatch.setenv("PAPERFLOWS_KERNELS", implementation)
    counts = torch.tensor([3, 0, 20])
    rows, weight = torch.randn(23, 32).to(dtype).requires_grad_(), torch.randn(3, 32, 48).to(dtype).requires_grad_()
    pull = torch.randn(23, 48).to(dtype)
    found = grouped_gemm(rows, weight, counts)
    (found * pull).sum().backward()
    exact = [value.detach().float().requires_grad_() for value in (rows, weight)]
    group = torch.repeat_interleave(torch.arange(3), counts)
    wanted = torch.einsum("mk,mkn->mn", exact[0], exact[1][group])
    (wanted * pull.float()).sum().backward()
    assert found.dtype == rows.grad.dtype == weight.grad.dtype == dtype
    torch.testing.assert_close(found.float(), wanted, rtol=2e-2, atol=6e-2)
    for ours, theirs in zip((rows.grad, weight.grad), exact, strict=True):
        torch.testing.assert_close(ours.float(), theirs.grad, rtol=2e-2, atol=6e-2)


def test_float64_is_exact_whatever_is_chosen(monkeypatch):
    monkeypatch.setenv("PAPERFLOWS_KERNELS", "triton")
    rows, weight, counts = torch.randn(9, 8).double(), torch.randn(2, 8, 5).double(), torch.tensor([4, 5])
    wanted = torch.cat([rows[:4] @ weight[0], rows[4:] @ weight[1]])
    torch.testing.assert_close(grouped_gemm(rows, weight, counts), wanted, atol=1e-14, rtol=0)


def test_mismatch_is_refused():
    with pytest.raises(ValueError, match="expected rows"):
        grouped_gemm(torch.zeros(3, 4), torch.zeros(2, 5, 6), torch.tensor([1, 2]))
