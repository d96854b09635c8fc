"""Device and precision by accelerate: bfloat16 where the device computes it fast, float32 on CPU."""

from typing import Any

import torch

from paperflows.components.errors import InputError


def bf16_is_fast(device: str = "auto") -> bool:
    """Does the device multiply bfloat16 matrices faster than float32 ones: GPUs that have it, CPUs with AVX512-BF16?"""
    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_avx512_bf16_supported())


def accelerator(device: str = "auto") -> Any:
    """An `accelerate.Accelerator` for "auto", "cpu" or "cuda".

    Raises:
        InputError: "cuda" was asked for and torch sees no GPU, or the name is unknown.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"device: expected auto, cpu or cuda, got {device!r}")
    cuda = torch.cuda.is_available()
    if device == "cuda" and not cuda:
        raise InputError("device: cuda was asked for, but torch sees no GPU (torch.cuda.is_available() is False)")
    AcceleratorState._reset_state(reset_partial_state=True)
    use_cuda = cuda and device != "cpu"
    bf16 = use_cuda and torch.cuda.is_bf16_supported()
    return Accelerator(cpu=not use_cuda, mixed_precision="bf16" if bf16 else "no")
