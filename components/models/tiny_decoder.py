"""Small decoder language models that a flow trains itself."""

import torch
from torch import nn


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
