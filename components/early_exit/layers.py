"""The layers of a BERT-like Hugging Face encoder, computed for the tokens that are still active.

A token that left keeps its state, stays a key and a value for the others ("copied upward"), and costs neither query
nor feed-forward network. Active tokens are packed into one (A, D) matrix, so padding costs nothing there.

Letters: B texts, T tokens, A active tokens of the batch, M most active tokens in a text, D width, F inner width.
Source: HashEE (Sun et al. 2022), section 3.2; TOKEE (Li et al. 2021), section 3.3.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperflows.components.errors import InputError

# others share module names with these and compute something else (Longformer's attention is local)
FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert")


@dataclass(frozen=True)
class Layer:
    """The modules of one post-norm transformer layer; they stay the encoder's own, so training reaches them."""

    query: nn.Module
    key: nn.Module
    value: nn.Module
    attended: nn.Module
    attention_norm: nn.Module
    up: nn.Module
    down: nn.Module
    norm: nn.Module
    activation: Callable[[Tensor], Tensor]
    heads: int
    dropout: float
    attention_dropout: float


def layers_of(encoder: nn.Module) -> list[Layer]:
    """The layers of a BERT, RoBERTa, ELECTRA, XLM-R, ElasticBERT (BERT's names) or DistilBERT encoder.

    Raises:
        InputError: the encoder has other modules than these families.
    """
    config: Any = encoder.config
    if getattr(config, "model_type", None) not in FAMILIES:
        raise InputError(
            f"{type(encoder).__name__}: early exits need an encoder of one of the families {', '.join(FAMILIES)}"
        )
    if hasattr(encoder, "transformer") and hasattr(config, "n_heads"):
        return [
            Layer(
                b.attention.q_lin,
                b.attention.k_lin,
                b.attention.v_lin,
                b.attention.out_lin,
                b.sa_layer_norm,
                b.ffn.lin1,
                b.ffn.lin2,
                b.output_layer_norm,
                b.ffn.activation,
                config.n_heads,
                config.dropout,
                config.attention_dropout,
            )
            for b in encoder.transformer.layer  # type: ignore[union-attr]
        ]
    blocks = getattr(getattr(encoder, "encoder", None), "layer", None)
    if blocks is None or not hasattr(blocks[0], "intermediate") or not hasattr(blocks[0].attention, "self"):
        raise InputError(f"{type(encoder).__name__}: early exits need an encoder built like BERT or DistilBERT")
    return [
        Layer(
            b.attention.self.query,
            b.attention.self.key,
            b.attention.self.value,
            b.attention.output.dense,
            b.attention.output.LayerNorm,
            b.intermediate.dense,
            b.output.dense,
            b.output.LayerNorm,
            b.intermediate.intermediate_act_fn,
            config.num_attention_heads,
            config.hidden_dropout_prob,
            config.attention_probs_dropout_prob,
        )
        for b in blocks
    ]


@dataclass(frozen=True)
class Packing:
    """Where the active tokens of a batch lie: token i is (rows[i], columns[i]), its row's slots[i]-th active one."""

    rows: Tensor
    columns: Tensor
    slots: Tensor
    most: int

    @classmethod
    def of(cls, active: Tensor) -> "Packing":
        """Packing of a (B, T) mask."""
        rows, columns = active.nonzero(as_tuple=True)
        order = active.cumsum(1)
        return cls(rows, columns, order[rows, columns] - 1, int(order[:, -1].max()) if len(rows) else 0)


def layer_all(layer: Layer, hidden: Tensor, bias: Tensor, *, training: bool) -> Tensor:
    """State (B, T, D) before the layer's last norm, all tokens active.

    Args:
        hidden: (B, T, D) input of the layer.
        bias: (B, 1, 1, T), or (B, 1, T, T) by query, from `attention_bias`: added to attention scores.
    """
    mixed = _attend(layer, layer.query(hidden), hidden, bias, training)
    return _feed_forward(layer, hidden, mixed, training)


def layer_active(layer: Layer, hidden: Tensor, bias: Tensor, packing: Packing, *, training: bool) -> Tensor:
    """States (A, D) before the layer's last norm, of the active tokens alone.

    Keys and values come from all tokens; queries, output projection and feed-forward network from the active ones.
    """
    inside = hidden[packing.rows, packing.columns]
    packed = layer.query(inside)
    queries = packed.new_zeros(len(hidden), packing.most, packed.shape[-1])
    queries[packing.rows, packing.slots] = packed
    if bias.shape[2] > 1:
        by_query = bias.new_zeros(len(hidden), 1, packing.most, bias.shape[-1])
        by_query[packing.rows, 0, packing.slots] = bias[packing.rows, 0, packing.columns]
        bias = by_query
    mixed = _attend(layer, queries, hidden, bias, training)[packing.rows, packing.slots]
    return _feed_forward(layer, inside, mixed, training)


def _attend(layer: Layer, queries: Tensor, hidden: Tensor, bias: Tensor, training: bool) -> Tensor:
    """(B, M, D) queries against the keys and values of `hidden` (B, T, D) -> (B, M, D) before the projection."""
    rows, _, width = queries.shape
    q, k, v = (
        x.view(rows, -1, layer.heads, width // layer.heads).transpose(1, 2)
        for x in (queries, layer.key(hidden), layer.value(hidden))
    )
    rate = layer.attention_dropout if training else 0.0
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype), dropout_p=rate)
    return out.transpose(1, 2).reshape(rows, -1, width)


def _feed_forward(layer: Layer, inputs: Tensor, mixed: Tensor, training: bool) -> Tensor:
    """Residual, norm and feed-forward network for tokens in any leading shape; the last norm is left to the caller."""
    attended = F.dropout(layer.attended(mixed), layer.dropout, training)
    middle = layer.attention_norm(attended + inputs)
    return F.dropout(layer.down(layer.activation(layer.up(middle))), layer.dropout, training) + middle


def attention_bias(mask: Tensor, *, causal: bool = False) -> Tensor:
    """(B, T) mask of real tokens -> (B, 1, 1, T) bias: 0 where one may look, the least float where padding stands.

    With `causal` (B, 1, T, T): nobody looks ahead.
    """
    seen = mask.bool()[:, None, None, :]
    if causal:
        seen = seen & torch.ones(mask.shape[1], mask.shape[1], dtype=torch.bool, device=mask.device).tril()
    return torch.zeros(seen.shape, device=mask.device).masked_fill(~seen, torch.finfo(torch.float32).min)
