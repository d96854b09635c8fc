"""A BERT-like encoder run layer by layer, with soft prompts put in front of the text at any of its layers.

A prompt never moves the text: its vectors have no position embedding, and `text` gives back the text's own states, so
that the place of a mask token is the same with and without prompts.

Letters: B texts, T tokens, n prompt vectors, D width, L layers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from paperflows.components.errors import InputError
from paperflows.components.models.adapters import transformer_layers

How = Literal["add", "replace"]
# (n, D), (B, n, D), or what makes the latter of the text's states (B, T, D) and mask (B, T)
Prompt = Tensor | Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Stream:
    """States on their way through the layers: hidden (B, n + T, D), mask (B, n + T), the first n being prompts."""

    hidden: Tensor
    mask: Tensor
    prompts: int = 0

    @property
    def text(self) -> Tensor:
        """(B, T, D) the states of the text alone."""
        return self.hidden[:, self.prompts :]

    @property
    def text_mask(self) -> Tensor:
        """(B, T) the mask of the text alone."""
        return self.mask[:, self.prompts :]

    def with_prompt(self, vectors: Tensor, how: How) -> "Stream":
        """A prompt put in front, or, where one stands there already, added to its states or put in their place.

        Args:
            vectors: (n, D) or (B, n, D).

        Raises:
            ValueError: the prompt that stands there has another length.
        """
        vectors = vectors.expand(len(self.hidden), -1, -1).to(self.hidden.dtype)
        if not self.prompts:
            seen = self.mask.new_ones(len(self.mask), vectors.shape[1])
            return Stream(torch.cat([vectors, self.hidden], 1), torch.cat([seen, self.mask], 1), vectors.shape[1])
        if vectors.shape[1] != self.prompts:
            raise ValueError(f"a prompt of {vectors.shape[1]} vectors where {self.prompts} stand")
        if how == "add":
            vectors = vectors + self.hidden[:, : self.prompts]
        return Stream(torch.cat([vectors, self.text], 1), self.mask, self.prompts)

    def expand(self, times: int) -> "Stream":
        """The same texts `times` times over, (times * B, ...): copy p of text b at row p * B + b."""
        return Stream(self.hidden.repeat(times, 1, 1), self.mask.repeat(times, 1), self.prompts)


class PromptEncoder(nn.Module):
    """The layers of an encoder, and prompts at the inputs of some of them.

    Args:
        encoder: BERT, RoBERTa, ELECTRA, XLM-R, DistilBERT or another whose layers `transformer_layers` finds and whose
            embeddings take `input_ids`.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder: Any = encoder
        self.depth = len(transformer_layers(encoder))
        config: Any = encoder.config
        self.width: int = getattr(config, "hidden_size", None) or config.dim
        self.positions = _positions(encoder)

    def start(self, ids: Tensor, mask: Tensor) -> Stream:
        """(B, T) token ids and mask -> the stream that enters layer 0.

        Raises:
            InputError: more tokens than the encoder has positions; prompts take none.
        """
        if self.positions is not None and ids.shape[1] > self.positions:
            raise InputError(
                f"max_length: a text of {ids.shape[1]} tokens for an encoder of {self.positions} positions"
            )
        hidden = self.encoder.embeddings(input_ids=ids)
        project = getattr(self.encoder, "embeddings_project", None)
        return Stream(hidden if project is None else project(hidden), mask)

    def advance(
        self,
        stream: Stream,
        prompts: Mapping[int, Prompt] | None = None,
        *,
        first: int = 0,
        last: int | None = None,
        how: How = "add",
    ) -> Stream:
        """Through layers `first` .. `last` - 1; a prompt of layer l enters just before that layer.

        Args:
            prompts: layer -> its prompt, layers counted from 0 (the embeddings' output).
            last: the layer not run any more; None runs all that remain.
            how: what a prompt does where an earlier one stands already.
        """
        layers, given = transformer_layers(self.encoder), prompts or {}
        bias: Tensor | None = None
        for index in range(first, self.depth if last is None else last):
            if index in given:
                prompt = given[index]
                vectors = prompt if isinstance(prompt, Tensor) else prompt(stream.text, stream.text_mask)
                stream = stream.with_prompt(vectors, how)
                bias = None
            if bias is None:
                bias = _bias(stream.mask, stream.hidden.dtype)
            out = layers[index](stream.hidden, attention_mask=bias)
            stream = Stream(out[0] if isinstance(out, tuple) else out, stream.mask, stream.prompts)
        return stream

    def forward(self, ids: Tensor, mask: Tensor, prompts: Mapping[int, Prompt] | None = None) -> Tensor:
        """(B, T) token ids and mask -> (B, T, D) last states of the text."""
        return self.advance(self.start(ids, mask), prompts).text


def _positions(encoder: Any) -> int | None:
    """Most tokens of a text: rows of the table of positions, less those that RoBERTa leaves for padding."""
    table = getattr(encoder.embeddings, "position_embeddings", None)
    if table is None:
        return None
    return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)


def _bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, S) mask -> (B, 1, 1, S), 0 where one may look and the least number elsewhere."""
    blocked = ~mask.bool()[:, None, None, :]
    return torch.zeros(blocked.shape, dtype=dtype, device=mask.device).masked_fill(blocked, torch.finfo(dtype).min)
