"""Bottleneck adapters behind every layer of a frozen transformer (Houlsby et al. 2019; Pfeiffer et al. 2021).

Letters: B batch, T tokens, D width, R bottleneck width.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from paperflows.components.errors import InputError

FILE = "adapters.safetensors"


class Adapter(nn.Module):
    """h + W_up relu(W_down h), (B, T, D) -> (B, T, D); W_up starts at zero, so that a new adapter changes nothing."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """The adapted states."""
        return hidden + self.up(torch.relu(self.down(hidden)))


def transformer_layers(model: nn.Module) -> nn.ModuleList:
    """The layers of an encoder of transformers (`encoder.layer`, or `layers`).

    Raises:
        InputError: it keeps them elsewhere.
    """
    for path in ("encoder.layer", "layers", "encoder.layers", "transformer.layer"):
        found: Any = model
        for name in path.split("."):
            found = getattr(found, name, None)
        if isinstance(found, nn.ModuleList):
            return found
    raise InputError(f"{type(model).__name__}: its layers are in none of the known places")


def keep_layers(model: nn.Module, count: int) -> None:
    """Drop the layers above the first `count`, in place.

    Raises:
        InputError: there are fewer.
    """
    layers = transformer_layers(model)
    if not 1 <= count <= len(layers):
        raise InputError(f"layer {count}: the model has layers 1 to {len(layers)}")
    del layers[count:]


def add_adapters(model: nn.Module, bottleneck: int, *, seed: int = 0) -> nn.ModuleList:
    """Freeze `model` (weights, and dropout off) and put a trainable adapter behind each of its layers, in place."""
    torch.manual_seed(seed)
    model.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    layers = transformer_layers(model)
    width: int = model.config.hidden_size  # type: ignore[union-attr, assignment]
    adapters = nn.ModuleList(Adapter(width, bottleneck) for _ in layers)
    model.add_module("adapters", adapters)
    for layer, adapter in zip(layers, adapters, strict=True):
        layer.register_forward_hook(_behind(adapter))
    return adapters


def save_adapters(adapters: nn.ModuleList, folder: Path) -> None:
    """Write the adapters' weights into `folder`."""
    from safetensors.torch import save_file

    save_file({k: v.detach().cpu().contiguous() for k, v in adapters.state_dict().items()}, folder / FILE)


def load_adapters(model: nn.Module, folder: Path) -> nn.ModuleList:
    """Add the adapters that `save_adapters` wrote.

    Raises:
        InputError: they were made for another width or number of layers.
    """
    from safetensors.torch import load_file

    weights = load_file(folder / FILE)
    adapters = add_adapters(model, len(weights["0.down.bias"]))
    try:
        adapters.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{folder / FILE}: adapters of another model ({str(error).splitlines()[0]})") from error
    return adapters


def _behind(adapter: nn.Module) -> Any:
    def hook(_layer: nn.Module, _inputs: Any, output: Any) -> Any:
        return (adapter(output[0]), *output[1:]) if isinstance(output, tuple) else adapter(output)

    return hook
