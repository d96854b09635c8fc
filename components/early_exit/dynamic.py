"""A run in which texts leave: finished rows are dropped from the batch, so that the rest runs on less.

Letters: B texts, T tokens, C classes.
"""

import torch
from torch import Tensor

from paperflows.components.early_exit.exits import MultiExitClassifier, pool
from paperflows.components.early_exit.layers import attention_bias
from paperflows.components.early_exit.policies import Policy, Signal


@torch.inference_mode()
def run_early(model: MultiExitClassifier, ids: Tensor, mask: Tensor, policy: Policy) -> tuple[Tensor, Tensor]:
    """Logits (B, C) of the exit that each text took and its executed layers (B,).

    Rows that leave are cut out of states, mask and the policy's memory; columns that only they needed go as well.
    """
    encoder = model.encoder
    hidden, bias = encoder.embed(ids), attention_bias(mask)
    lengths = mask.sum(1)
    rows = torch.arange(len(ids), device=ids.device)
    exits = torch.full((len(ids),), encoder.depth, device=ids.device)
    out: Tensor | None = None
    memory: dict[str, Tensor] = {}
    for index in range(encoder.depth):
        hidden, _ = encoder.step(index, hidden, hidden, bias, None)
        pooled = pool(hidden, mask, model.pooling)
        logits = model.exits[index](pooled)
        out = logits.new_zeros(len(ids), logits.shape[1]) if out is None else out
        if index == encoder.depth - 1:
            out[rows] = logits
            break
        confidence = torch.sigmoid(model.confidence(pooled))[:, 0]
        leave, memory = policy(index, Signal(logits, confidence), memory)
        if not leave.any():
            continue
        out[rows[leave]], exits[rows[leave]] = logits[leave], index + 1
        stay = (~leave).nonzero()[:, 0]
        if not len(stay):
            break
        longest = int(lengths[stay].max())
        rows, lengths, mask = rows[stay], lengths[stay], mask[stay, :longest]
        hidden, bias = hidden[stay, :longest], bias[stay, :, :, :longest]
        memory = {name: value[stay] for name, value in memory.items()}
    assert out is not None
    return out, exits
