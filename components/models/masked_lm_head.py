"""A masked-LM head for an encoder that came without one, its decoder tied to the word embeddings.

Letters: N texts, B batch, T tokens.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from paperflows.components.errors import InputError
from paperflows.components.models.pretrained import load_pretrained
from paperflows.components.models.tiny_bert import mask_tokens
from paperflows.components.training.batching import TokenTable, token_budget_batches


def with_masked_lm_head(model: str, *, seed: int) -> tuple[nn.Module, list[str]]:
    """The encoder `model` (minilm, a folder, a hub id) as a masked LM, and the names of the weights that are fresh.

    A head that the model brings is kept; a fresh one is seeded. Dropout is off: the encoder is adapted, not trained.

    Raises:
        InputError: weights other than those of the head are missing, or no such folder.
        ServiceError: the hub cannot be reached.
    """
    from transformers import AutoModelForMaskedLM

    torch.manual_seed(seed)
    options: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    built, found = load_pretrained(AutoModelForMaskedLM, model, output_loading_info=True, **options)
    missing = sorted(found["missing_keys"])
    inside = [name for name in missing if name.startswith(f"{built.base_model_prefix}.")]
    if inside:
        raise InputError(f"model {model!r}: its weights lack {inside[0]}")
    return built, missing


@torch.inference_mode()
def masked_accuracy(
    masked_lm: Any, tokenizer: Any, texts: Sequence[str], *, max_length: int, seed: int
) -> tuple[float, float]:
    """Share of masked tokens (15 %, masked as in training) that the model names exactly; in [0, 1].

    Returns:
        That, and the share that is the most frequent of them: the score of naming it always.
    """
    table = TokenTable.from_texts(texts, tokenizer, max_length=max_length)
    generator = torch.Generator().manual_seed(seed)
    device = next(masked_lm.parameters()).device
    hits, asked = 0, Counter[int]()
    masked_lm.eval()
    for rows in token_budget_batches(table.lengths, budget=4096):
        ids, mask = table.pad(rows)
        corrupted, labels = mask_tokens(ids, mask, tokenizer=tokenizer, share=0.15, generator=generator)
        chosen = labels != -100
        if chosen.any():
            hidden = masked_lm.base_model(input_ids=corrupted.to(device), attention_mask=mask.to(device))
            head = getattr(masked_lm, "cls", None) or masked_lm.lm_head
            said = head(hidden.last_hidden_state[chosen.to(device)]).argmax(-1).cpu()
            hits += int((said == labels[chosen]).sum())
            asked.update(labels[chosen].tolist())
    total = max(1, asked.total())
    return hits / total, max(asked.values(), default=0) / total
