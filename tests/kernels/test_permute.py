import pytest
import torch

from paperflows.kernels.permute import combine_rows, gather_rows


def loops(x, token, gate):
    rows = torch.stack([x[t] if t >= 0 else torch.zeros_like(x[0]) for t in token.tolist()]) if len(token) else x[:0]
    y = [torch.zeros_like(x[0]) for _ in x]
    for m, t in enumerate(token.tolist()):
        if t >= 0:
            y[t] = y[t] + gate[m] * rows[m]
    return rows, torch.stack(y)


CASES = {
    "one": (1, 1, 1),
    "odd": (7, 13, 30),
    "block-and-a-bit": (5, 1030, 9),
    "no-rows": (4, 8, 0),
}


@pytest.mark.parametrize("implementation", ["reference", "triton"])
@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients(monkeypatch, implementation, case):
    tokens, width, count = CASES[case]
    monkeypatch.setenv("PAPERFLOWS_KERNELS", implementation)
    generator = torch.Generator().manual_seed(3)
    token = torch.randint(-1, tokens, (count,), generator=generator)
    pull = torch.randn(tokens, width, generator=generator)

    def run(operation):
        own = torch.Generator().manual_seed(4)
        x = torch.randn(tokens, width, generator=own, requires_grad=True)
        gate = torch.rand(count, generator=own, requires_grad=True)
        rows, y = operation(x, gate)
        ((y * pull).sum() + 0 * (x.sum() + gate.sum())).backward()
        return rows.detach(), y.detach(), x.grad, gate.grad

    def ours(x, gate):
        rows = gather_rows(x, token)
        return rows, combine_rows(rows, token, gate, tokens)

    for found, wanted in zip(run(ours), run(lambda x, gate: loops(x, token, gate)), strict=True):
        if wanted is not None:
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("implementation", ["reference", "triton"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(monkeypatch, implementation, dtype):
    monkeypatch.setenv("PAPERFLOWS_KERNELS", implementation)
    x, token = torch.randn(6, 40).to(dtype).requires_grad_(), torch.tensor([5, -1, 0, 0, 3])
    gate, pull = torch.rand(5).requires_grad_(), torch.randn(6, 40)
    rows = gather_rows(x, token)
    assert rows.dtype == dtype
    assert rows.equal(torch.stack([x[5], torch.zeros(40, dtype=dtype), x[0], x[0], x[3]]))
    found = combine_rows(rows, token, gate, 6)
    (found.float() * pull).sum().backward()
    exact = [value.detach().float().requires_grad_() for value in (x, gate)]
    wanted = loops(exact[0], token, exact[1])[1]
    (wanted * pull).sum().backward()
    torch.testing.assert_close(found.float(), wanted, rtol=2e-2, atol=2e-2)
    for ours, theirs in zip((x.grad, gate.grad), exact, strict=True):
        torch.testing.assert_close(ours.float(), theirs.grad, rtol=3e-2, atol=6e-2)
