"""Which of an operation's two forms runs: Triton on a CUDA device, torch elsewhere.

`PAPERFLOWS_KERNELS=reference` forces torch everywhere; `PAPERFLOWS_KERNELS=triton` forces Triton, on a CPU only under
`TRITON_INTERPRET=1` (set before Triton is imported).
"""

import logging
import os
from functools import cache
from importlib.util import find_spec

from torch import Tensor

SWITCH = "PAPERFLOWS_KERNELS"
log = logging.getLogger(__name__)


def use_triton(tensor: Tensor) -> bool:
    """Whether an operation on `tensor` runs its Triton form.

    Raises:
        ValueError: $PAPERFLOWS_KERNELS is neither auto, reference nor triton.
    """
    choice = os.environ.get(SWITCH, "auto")
    if choice not in ("auto", "reference", "triton"):
        raise ValueError(f"{SWITCH}: expected auto, reference or triton, got {choice!r}")
    if choice == "auto":
        return tensor.is_cuda and (has_triton() or _say_that_it_lacks())
    return choice == "triton"


@cache
def has_triton() -> bool:
    """Whether Triton can be imported."""
    return find_spec("triton") is not None


@cache
def _say_that_it_lacks() -> bool:
    log.warning("Triton is not installed: the GPU computes the slower torch forms (pip install triton)")
    return False


def interpreted() -> bool:
    """Whether Triton runs its kernels on the CPU, where `tl.dot` multiplies bfloat16 wrongly: give it float32 there."""
    return os.environ.get("TRITON_INTERPRET") == "1"
