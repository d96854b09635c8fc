"""Small decoder language models that a flow trains itself. B texts, T tokens, V vocabulary."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def tiny_decoder(
    *, vocabulary: int, width: int, layers: int, heads: int, hidden: int, positions: int, seed: int
) -> nn.Module:
    """A fresh Llama-style decoder (`LlamaForCausalLM`, tied embeddings) with SwiGLU layers of width `hidden`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=hidden,
        max_position_embeddings=positions,
        tie_word_embeddings=True,
        initializer_range=width**-0.5,  # the library's 0.02 suits widths of thousands; here it would lose 100 steps
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def decoder_beside(config: Any, counts: Tensor, *, never: list[int], positions: int, seed: int) -> Any:
    """A fresh decoder with the width, layers and heads of a BERT and as many weights a layer, to compare with it.

    Its SwiGLU has three matrices where the BERT has two, so they are two thirds as wide. The output bias starts at
    the log unigram frequencies, as `start_bias` gives every masked LM.

    Args:
        config: of the BERT.
        counts: (V,) of the training texts; a token never seen counts as seen half a time.
        never: tokens without any probability.
    """
    decoder: Any = tiny_decoder(
        vocabulary=len(counts), width=config.hidden_size, layers=config.num_hidden_layers,
        heads=config.num_attention_heads, hidden=2 * config.intermediate_size // 3, positions=positions, seed=seed,
    )  # fmt: skip
    seen = counts.double().clamp(min=0.5)
    decoder.lm_head.bias = nn.Parameter((seen / seen.sum()).log().float())
    ban = torch.zeros(len(counts))
    ban[never] = -torch.inf
    decoder.lm_head.register_buffer("ban", ban, persistent=False)
    decoder.lm_head.register_forward_hook(lambda head, _inputs, scores: scores + head.ban)
    return decoder


def token_losses(decoder: Any, ids: Tensor, mask: Tensor, wanted: Tensor) -> Tensor:
    """(B,) negative log-likelihood in nats of the wanted tokens of each row, each given all tokens before it.

    Args:
        ids, mask: (B, T).
        wanted: (B, T) true for the tokens that count; never the first.
    """
    scores = decoder(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
    losses = F.cross_entropy(scores.transpose(1, 2), ids[:, 1:].masked_fill(~wanted[:, 1:], -100), reduction="none")
    return losses.sum(1)
