"""Bytes that a forward pass keeps for its backward pass: what training costs in activation memory, on any device."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def saved_bytes(forward: Callable[[], Tensor], parameters: Iterable[Tensor]) -> int:
    """Bytes of all tensors that autograd saves while `forward` runs, each storage once, without the parameters.

    Weights that a backward pass needs are saved by reference and exist anyway; they are not activations.
    """
    own = {p.untyped_storage().data_ptr() for p in parameters}
    seen: dict[int, int] = {}
    kept: list[Tensor] = []  # alive until the end, so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(seen.values())
