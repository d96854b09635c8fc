"""Decoder language models whose feed-forward layers are mixtures of experts. B texts, T tokens, V vocabulary."""

import inspect
from collections.abc import Collection, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperflows.components.errors import InputError
from paperflows.components.moe.exchange import Group
from paperflows.components.moe.layer import MoELayer, Router
from paperflows.components.moe.routing import Rectify


def replace_ffn(
    model: nn.Module,
    *,
    experts: int,
    router: Router,
    rectify: Collection[Rectify] = (),
    group: Group = None,
    copy: bool = False,
    seed: int = 0,
) -> nn.Module:
    """Put a mixture of experts in the place of every feed-forward layer of a Llama-like model; changes it in place.

    Args:
        model: a transformers decoder whose layers have `mlp.gate_proj`, `mlp.up_proj` and `mlp.down_proj`.
        copy: start every expert as a copy of the dense layer (the paper's way with Llama 2); else each expert gets its
            own random weights of the dense layer's scale, a function of `seed`, layer and expert alone, so that any
            number of workers starts from the same model.
        group: see `MoELayer`.

    Raises:
        InputError: the model has no such layers, or as in `MoELayer`.
    """
    blocks = [m for m in model.modules() if hasattr(getattr(m, "mlp", None), "gate_proj")]
    if not blocks:
        raise InputError(f"{type(model).__name__} has no feed-forward layers with gate_proj, up_proj and down_proj")
    for depth, block in enumerate(blocks):
        dense: Any = block.mlp
        width, hidden = dense.gate_proj.in_features, dense.gate_proj.out_features
        layer = MoELayer(width=width, hidden=hidden, experts=experts, router=router, rectify=rectify, group=group)
        gate_up = torch.cat([dense.gate_proj.weight.t(), dense.up_proj.weight.t()], dim=1)
        down = dense.down_proj.weight.t()
        with torch.no_grad():
            _normal(layer.score.weight, width**-0.5, [seed, depth])
            for place, number in enumerate(layer.local):
                for target, source in ((layer.experts.gate_up[place], gate_up), (layer.experts.down[place], down)):
                    if copy:
                        target.copy_(source)
                    else:
                        _normal(target, float(source.std()), [seed, depth, number, target.shape[0]])
        block.mlp = layer.to(dense.gate_proj.weight)
    inner: Any = getattr(model, "base_model", model)  # what the model with a head calls, and a user may
    inner.register_forward_pre_hook(_tell_padding, with_kwargs=True)
    return model


def _tell_padding(model: nn.Module, given: Any, named: dict[str, Any]) -> None:
    """transformers calls feed-forward layers with states alone: tell them which tokens are padding."""
    arguments = inspect.signature(model.forward).bind_partial(*given, **named).arguments
    mask = arguments.get("attention_mask", arguments.get("kwargs", {}).get("attention_mask"))
    for layer in moe_layers(model):
        layer.padding = mask if isinstance(mask, Tensor) and mask.dim() == 2 else None


def moe_layers(model: nn.Module) -> list[MoELayer]:
    """The mixture-of-experts layers of a model, lowest first."""
    return [m for m in model.modules() if isinstance(m, MoELayer)]


def next_token_loss(model: nn.Module, ids: Tensor) -> Tensor:
    """Negative log-likelihood in nats (B, T - 1) of each next token of (B, T) ids."""
    logits = model(input_ids=ids[:, :-1]).logits
    return F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(len(ids), -1)


def objective(model: nn.Module, ids: Tensor, *, balance: float, z: float) -> tuple[Tensor, Tensor]:
    """Training loss and its first term, the mean next-token loss.

    The others are `balance` and `z` times the layers' mean routing losses, so that losses of a dense model and of a
    mixture are not comparable, and first terms are.
    """
    loss = next_token_loss(model, ids).mean()
    records = [layer.record for layer in moe_layers(model) if layer.record is not None]
    if not records:
        return loss, loss
    return loss + sum(balance * r.balance + z * r.z for r in records) / len(records), loss


def routing_metrics(model: nn.Module) -> Iterator[tuple[str, float]]:
    """What the last forward pass did on this worker: shares (mean over layers), the load of every expert, and what a
    training step sends to other workers: the bytes of the forward pass and as many gradients.
    """
    records = [layer.record for layer in moe_layers(model) if layer.record is not None]
    shares = [r.plan.shares() for r in records]
    for name in shares[0] if shares else ():
        yield f"routing.{name}", sum(s[name] for s in shares) / len(shares)
    if records:
        yield "routing.bytes_sent", 2.0 * sum(r.bytes_sent for r in records)
    for depth, record in enumerate(records):
        for number, rows in enumerate(record.plan.load().tolist()):
            yield f"load.layer{depth}.expert{number}", float(rows)


def _normal(target: Tensor, std: float, key: list[int]) -> None:
    import numpy as np

    drawn = np.random.default_rng(key).standard_normal(tuple(target.shape))
    target.copy_(torch.from_numpy(drawn).to(target) * std)
