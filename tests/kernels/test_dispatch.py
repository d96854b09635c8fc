import pytest
import torch

from paperflows.kernels.dispatch import use_triton


def test_cpu_takes_torch_unless_forced(monkeypatch):
    monkeypatch.delenv("PAPERFLOWS_KERNELS", raising=False)
    assert not use_triton(torch.zeros(1))
    monkeypatch.setenv("PAPERFLOWS_KERNELS", "triton")
    assert use_triton(torch.zeros(1))


def test_unknown_choice_is_refused(monkeypatch):
    monkeypatch.setenv("PAPERFLOWS_KERNELS", "fast")
    with pytest.raises(ValueError, match="expected auto, reference or triton, got 'fast'"):
        use_triton(torch.zeros(1))
