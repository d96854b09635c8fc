"""An encoder with an exit after every layer, for training and for the runs that skip.

Letters: B texts, T tokens, D width, L layers.
"""

from collections.abc import Generator, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from paperflows.components.early_exit.layers import Packing, attention_bias, layer_active, layer_all, layers_of
from paperflows.components.models.pretrained import load_pretrained

Frozen = Literal["copy", "renorm"]


class ExitEncoder(nn.Module):
    """A Hugging Face encoder run layer by layer; with all tokens active it computes what the encoder computes.

    Args:
        encoder: a BERT-like encoder (see `layers_of`); its word and position embeddings, layers and norms are used.
        depth: layers kept, the first ones; None keeps all.
        frozen: what becomes of the state of a token that left. "copy": it stays as it is (HashEE). "renorm": the state
            before the last norm is kept, and each layer's own last norm is applied to it (`keep_norm_same` in TOKEE).
        causal: tokens look back only, as in a language model.
        freeze_embeddings: leave the embeddings out of the training.

    Raises:
        InputError: another architecture.
    """

    def __init__(
        self,
        encoder: Any,
        *,
        depth: int | None = None,
        frozen: Frozen = "copy",
        causal: bool = False,
        freeze_embeddings: bool = False,
        separator: int | None = None,
    ) -> None:
        super().__init__()
        self.encoder: Any = encoder
        self.frozen, self.causal, self.separator = frozen, causal, separator
        self.layers = layers_of(encoder)
        self.depth = len(self.layers)
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None  # an exit has its own
        if depth is not None:
            self.cut(depth)
        config = encoder.config
        self.width: int = getattr(config, "hidden_size", None) or config.dim
        self.inner: int = self.layers[0].up.out_features  # type: ignore[assignment]
        if freeze_embeddings:
            encoder.embeddings.requires_grad_(False)
        self.train(encoder.training)

    def cut(self, depth: int) -> None:
        """Keep the first `depth` layers."""
        blocks = self.encoder.transformer if hasattr(self.encoder, "transformer") else self.encoder.encoder
        blocks.layer = nn.ModuleList(list(blocks.layer)[:depth])
        self.layers = self.layers[:depth]
        self.depth = len(self.layers)

    def embed(self, ids: Tensor) -> Tensor:
        """(B, T) token ids -> (B, T, D) input of the first layer; a second text (after a separator) gets type 1."""
        options = {}
        if self.separator is not None and getattr(self.encoder.config, "type_vocab_size", 0) > 1:
            ends = (ids == self.separator).long()
            options["token_type_ids"] = (ends.cumsum(1) - ends).clamp(max=1)
        hidden = self.encoder.embeddings(input_ids=ids, **options)
        project = getattr(self.encoder, "embeddings_project", None)
        return project(hidden) if project is not None else hidden

    def states(self, ids: Tensor, mask: Tensor) -> Generator[Tensor, Tensor | None, None]:
        """(B, T, D) after each layer, every token active in every layer: what joint training and exits' scores read.

        The caller may send another tensor back as the input of the next layer (`gen.send`), such as one whose gradient
        is rescaled.
        """
        hidden, bias = self.embed(ids), attention_bias(mask, causal=self.causal)
        for layer in self.layers:
            hidden = layer.norm(layer_all(layer, hidden, bias, training=self.training))
            sent = yield hidden
            hidden = hidden if sent is None else sent

    def step(
        self, index: int, hidden: Tensor, state: Tensor, bias: Tensor, active: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """One layer with the given active tokens, without computing the others.

        Args:
            index: of the layer, from 0.
            hidden: (B, T, D) its input; state: (B, T, D) the same before its last norm (read by "renorm" alone).
            bias: (B, 1, 1, T) from `attention_bias`.
            active: (B, T) tokens that this layer computes; None for all.

        Returns:
            hidden and state after the layer.
        """
        layer = self.layers[index]
        if active is None:
            state = layer_all(layer, hidden, bias, training=self.training)
            return layer.norm(state), state
        packing = Packing.of(active)
        if packing.most:
            fresh = layer_active(layer, hidden, bias, packing, training=self.training)
            if self.frozen == "renorm":
                state = _put(state, packing, fresh)
            else:
                hidden = _put(hidden, packing, layer.norm(fresh))
        if self.frozen == "renorm":
            hidden = layer.norm(state)
        return hidden, state

    def masked_step(
        self, index: int, hidden: Tensor, state: Tensor, bias: Tensor, active: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What `step` computes, the plain way: all tokens computed, the frozen ones thrown away. The reference."""
        layer, keep = self.layers[index], active.unsqueeze(-1)
        fresh = layer_all(layer, hidden, bias, training=self.training)
        if self.frozen == "renorm":
            state = torch.where(keep, fresh, state)
            return layer.norm(state), state
        return torch.where(keep, layer.norm(fresh), hidden), state

    def by_exit_layer(self, ids: Tensor, mask: Tensor, exits: Tensor, *, masked: bool = False) -> Iterator[Tensor]:
        """(B, T, D) after each layer when token t leaves after `exits[t]` layers, which is known beforehand.

        Args:
            exits: (B, T) executed layers of each token, 0 for padding.
            masked: compute by the reference.
        """
        hidden = state = self.embed(ids)
        bias, run = attention_bias(mask, causal=self.causal), self.masked_step if masked else self.step
        for index in range(self.depth):
            hidden, state = run(index, hidden, state, bias, (exits > index) & mask.bool())
            yield hidden


def load_exit_encoder(model: str, *, separator: int | None, **options: object) -> ExitEncoder:
    """An `ExitEncoder` from a model name (`minilm`, a folder, a hub id); options as there.

    Raises:
        InputError: no such folder, no safetensors, or an architecture without the layers that are needed.
        ServiceError: the hub cannot be reached.
    """
    from transformers import AutoModel

    encoder = load_pretrained(AutoModel, model)
    return ExitEncoder(encoder, separator=separator, **options)  # type: ignore[arg-type]


def _put(states: Tensor, packing: Packing, fresh: Tensor) -> Tensor:
    """A copy of `states` (B, T, D) with the packed ones in their places."""
    return states.index_put((packing.rows, packing.columns), fresh.to(states.dtype))
