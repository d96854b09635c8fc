"""When a text leaves: rules over what its exits said so far. One function serves replay and real runs alike.

A rule sees one layer at a time: `leave, memory = rule(layer, signal, memory)`. Its memory is a dict of tensors whose
first dimension is the rows, so that a run can drop the rows that left.

Letters: B texts, N texts of a dataset, L layers, C classes.
Sources: DeeBERT (Xin et al. 2020), PABEE (Zhou et al. 2020), BERxiT (Xin et al. 2021); HashEE, table 1.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from paperflows.components.errors import InputError


@dataclass(frozen=True)
class Signal:
    """What one exit says of a batch: logits (B, C) and the learned confidence (B,) in [0, 1]."""

    logits: Tensor
    confidence: Tensor


Memory = dict[str, Tensor]
Policy = Callable[[int, Signal, Memory], tuple[Tensor, Memory]]


def entropy(logits: Tensor) -> Tensor:
    """Entropy of softmax(logits) over the last dimension, divided by ln C: in [0, 1] whatever the classes."""
    told = torch.log_softmax(logits.float(), -1)
    return -(told.exp() * told).sum(-1) / math.log(logits.shape[-1])


def entropy_policy(threshold: float) -> Policy:
    """Leave when the normalised entropy is below `threshold`.

    Raises:
        InputError: one output: a regression has no entropy.
    """

    def rule(layer: int, signal: Signal, memory: Memory) -> tuple[Tensor, Memory]:
        if signal.logits.shape[-1] == 1:
            raise InputError("the entropy rule needs classes; a regression takes patience or the learned rule")
        return entropy(signal.logits) < threshold, memory

    return rule


def patience_policy(patience: int, *, tolerance: float = 0.1) -> Policy:
    """Leave when the prediction has agreed with the layer before `patience` times in a row.

    Args:
        tolerance: a regression agrees when it moved by less than this.
    """

    def rule(layer: int, signal: Signal, memory: Memory) -> tuple[Tensor, Memory]:
        scores = signal.logits
        said = scores[:, 0] if scores.shape[-1] == 1 else scores.argmax(-1)
        if layer == 0:
            count = torch.zeros(len(said), dtype=torch.long, device=said.device)
        else:
            same = (said - memory["said"]).abs() < tolerance if said.is_floating_point() else said == memory["said"]
            count = torch.where(same, memory["count"] + 1, 0)
        return count >= patience, {"said": said, "count": count}

    return rule


def learned_policy(threshold: float) -> Policy:
    """Leave when the learned confidence is above `threshold`."""
    return lambda layer, signal, memory: (signal.confidence > threshold, memory)


def fixed_policy(layers: Tensor) -> Policy:
    """Leave after a layer drawn beforehand: the control with the same cost and no knowledge of the text.

    Args:
        layers: (N,) executed layers of each text of the replayed dataset.
    """
    return lambda layer, signal, memory: (layers <= layer + 1, memory)


POLICIES: dict[str, Callable[..., Policy]] = {
    "entropy": entropy_policy,
    "patience": patience_policy,
    "learned": learned_policy,
}


def replay(policy: Policy, logits: Tensor, confidence: Tensor) -> Tensor:
    """Executed layers (N,), 1 to L, that `policy` would give from stored exits.

    Args:
        logits: (N, L, C).
        confidence: (N, L).
    """
    n, depth = logits.shape[:2]
    exits = torch.full((n,), depth, dtype=torch.long)
    open_rows = torch.ones(n, dtype=torch.bool)
    memory: Memory = {}
    for layer in range(depth):
        leave, memory = policy(layer, Signal(logits[:, layer], confidence[:, layer]), memory)
        exits[open_rows & leave] = layer + 1
        open_rows &= ~leave
        if layer == depth - 2:
            break
    return exits
