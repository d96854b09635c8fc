"""Regression metrics: a cross-encoder that reads candidate and reference together (BLEURT, Sellam et al. 2020).

Letters: N pairs, B pairs in a batch, T tokens of both.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from paperflows.components.models.pretrained import load_pretrained, load_tokenizer
from paperflows.components.training.batching import TokenTable, token_budget_batches

Pairs = Sequence[tuple[str, str]]


def load_regressor(model: str) -> tuple[Any, Any]:
    """A cross-encoder with one output, and its tokenizer; a fresh head (torch's random state) where none was saved."""
    from transformers import AutoModelForSequenceClassification

    loaded = load_pretrained(AutoModelForSequenceClassification, model, num_labels=1)
    return loaded.eval(), load_tokenizer(model)


def pair_table(tokenizer: Any, pairs: Pairs, *, max_length: int) -> tuple[TokenTable, TokenTable]:
    """Token ids and segment numbers of all pairs."""
    found = tokenizer(
        [a for a, _ in pairs], [b for _, b in pairs], truncation="longest_first", max_length=max_length,
        return_token_type_ids=True, return_attention_mask=False,
    )  # fmt: skip
    return TokenTable(found["input_ids"], pad_id=tokenizer.pad_token_id), TokenTable(found["token_type_ids"], pad_id=0)


@torch.inference_mode()
def predict(model: nn.Module, tokenizer: Any, pairs: Pairs, *, max_length: int) -> Tensor:
    """Scores (N,) float32 on the CPU."""
    device = next(model.parameters()).device
    table, types = pair_table(tokenizer, pairs, max_length=max_length)
    out = torch.zeros(len(pairs))
    model.eval()
    for batch in token_budget_batches(table.lengths, budget=4096):
        ids, mask = table.pad(batch)
        segments = types.pad(batch)[0]
        logits = model(
            input_ids=ids.to(device), attention_mask=mask.to(device), token_type_ids=segments.to(device)
        ).logits
        out[torch.from_numpy(batch)] = logits[:, 0].float().cpu()
    return out
