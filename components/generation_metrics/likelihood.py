"""Generation metrics: how likely a sequence-to-sequence model finds one text given the other (Yuan et al. 2021).

Letters: N pairs, B pairs in a batch, S source tokens, T target tokens, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperflows.components.training.batching import TokenTable, token_budget_batches

Pairs = Sequence[tuple[str, str]]


def likelihood_score(model: nn.Module, tokenizer: Any, pairs: Pairs, *, max_length: int) -> Tensor:
    """BARTScore-F (N,): the mean of log p(candidate | reference) and log p(reference | candidate), nats a token."""
    candidates, references = [c for c, _ in pairs], [r for _, r in pairs]
    precision = mean_log_likelihood(model, tokenizer, references, candidates, max_length=max_length)
    recall = mean_log_likelihood(model, tokenizer, candidates, references, max_length=max_length)
    return (precision + recall) / 2


@torch.inference_mode()
def mean_log_likelihood(
    model: nn.Module, tokenizer: Any, sources: Sequence[str], targets: Sequence[str], *, max_length: int
) -> Tensor:
    """Mean log-probability (N,) of the target's tokens given the source, end of sequence included, in nats."""
    device = next(model.parameters()).device
    source = TokenTable.from_texts(sources, tokenizer, max_length=max_length)
    target = TokenTable.from_texts(targets, tokenizer, max_length=max_length)
    out = torch.zeros(len(sources))
    model.eval()
    for batch in token_budget_batches(source.lengths + target.lengths, budget=8192):
        ids, mask = (t.to(device) for t in source.pad(batch))
        labels, inside = (t.to(device) for t in target.pad(batch))
        out[torch.from_numpy(np.asarray(batch))] = -token_losses(model, ids, mask, labels, inside).cpu()
    return out


def token_losses(model: nn.Module, ids: Tensor, mask: Tensor, labels: Tensor, inside: Tensor) -> Tensor:
    """Mean negative log-likelihood (B,) of each target.

    Args:
        ids, mask: (B, S) source tokens.
        labels, inside: (B, T) target tokens and their mask.
    """
    start = torch.full_like(labels[:, :1], model.config.decoder_start_token_id)  # type: ignore[union-attr, arg-type]
    logits = model(input_ids=ids, attention_mask=mask, decoder_input_ids=torch.cat([start, labels[:, :-1]], 1)).logits
    losses = F.cross_entropy(logits.float().transpose(1, 2), labels, reduction="none") * inside
    return losses.sum(1) / inside.sum(1)
