"""A BERT that reads to the left alone: the autoregressive twin of a masked LM. B texts, T tokens, V vocabulary."""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def causal_twin(lm: Any, *, never: list[int]) -> Any:
    """A `BertLMHeadModel` with the configuration and the weights of a `BertForMaskedLM`.

    A pretrained BERT as the start of a decoder is BERT2RND's half (Rothe et al. 2020): what stands beside a denoiser
    has its size and its start, and differs in what it sees.

    Args:
        lm: not changed, and shares no weight.
        never: tokens without any probability.
    """
    from transformers import BertLMHeadModel

    config = copy.deepcopy(lm.config)
    config.is_decoder = True
    decoder: Any = BertLMHeadModel(config)
    decoder.load_state_dict(lm.state_dict())
    decoder.tie_weights()
    ban = torch.zeros(config.vocab_size)
    ban[never] = -torch.inf
    decoder.cls.register_buffer("ban", ban, persistent=False)
    decoder.cls.register_forward_hook(lambda head, _inputs, scores: scores + head.ban)
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
