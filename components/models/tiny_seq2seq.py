"""Small denoising sequence-to-sequence models that a flow trains itself (BART, Lewis et al. 2020).

Letters: B texts, T tokens.
"""

from typing import Any

import torch
from torch import Tensor, nn


def tiny_bart(*, tokenizer: Any, width: int, layers: int, heads: int, positions: int, seed: int = 0) -> nn.Module:
    """A fresh `BartForConditionalGeneration`, seeded, with `layers` encoder and as many decoder layers."""
    from transformers import BartConfig, BartForConditionalGeneration

    torch.manual_seed(seed)
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=width,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        max_position_embeddings=positions,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        decoder_start_token_id=tokenizer.sep_token_id,
        forced_eos_token_id=None,
    )
    return BartForConditionalGeneration(config)


def corrupt(
    ids: Tensor, mask: Tensor, *, tokenizer: Any, masked: float, deleted: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """BART's noise: a share of the tokens becomes [MASK], another share disappears. Special tokens stay.

    Args:
        ids, mask: (B, T).

    Returns:
        Corrupted ids and mask, (B, T' <= T).
    """
    inner = mask.bool() & ~torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    draw = torch.rand(ids.shape, generator=generator)
    noisy = torch.where(inner & (draw < masked), tokenizer.mask_token_id, ids)
    kept = mask.bool() & ~(inner & (draw > 1 - deleted))
    order = torch.argsort((~kept).long(), dim=1, stable=True)
    width = int(kept.sum(1).max())
    moved, inside = noisy.gather(1, order)[:, :width], kept.gather(1, order)[:, :width]
    return torch.where(inside, moved, tokenizer.pad_token_id), inside.long()
