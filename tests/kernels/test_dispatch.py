from types import SimpleNamespace

import pytest
import torch

from paperflows.kernels.dispatch import has_triton, use_triton


def test_cpu_takes_torch_unless_forced(monkeypatch):
    monkeypatch.delenv("PAPERFLOWS_KERNELS", raising=False)
    assert not use_triton(torch.zeros(1))
    monkeypatch.setenv("PAPERFLOWS_KERNELS", "triton")
    assert use_triton(torch.zeros(1))


def test_cuda_takes_triton_where_it_is_installed(monkeypatch):
    monkeypatch.delenv("PAPERFLOWS_KERNELS", raising=False)
    on_cuda = SimpleNamespace(is_cuda=True)
    assert use_triton(on_cuda) is has_triton()
    monkeypatch.setenv("PAPERFLOWS_KERNELS", "reference")
    assert not use_triton(on_cuda)


def test_unknown_choice_is_refused(monkeypatch):
    monkeypatch.setenv("PAPERFLOWS_KERNELS", "fast")
    with pytest.raises(ValueError, match="expected auto, reference or triton, got 'fast'"):
        use_triton(torch.zeros(1))
