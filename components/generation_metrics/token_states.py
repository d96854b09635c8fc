"""Contextual states of the tokens of many texts, each distinct text encoded once.

Letters: N texts, M tokens of all of them, B texts or pairs in a batch, T tokens of the longest, D width.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperflows.components.models.adapters import keep_layers, load_adapters
from paperflows.components.models.pretrained import load_pretrained, load_tokenizer
from paperflows.components.training.batching import TokenTable, token_budget_batches


@dataclass(frozen=True)
class TokenStates:
    """Unit-length states of all tokens in one array, so that a padded batch is a single gather.

    Args:
        flat: (M + 1, D); the last row is zero and serves as padding.
        weights: (M + 1,) weight of each token in averages; 0 for special tokens and padding.
        starts, lengths: (N,) where the tokens of each text lie.
    """

    flat: Tensor
    weights: Tensor
    starts: np.ndarray
    lengths: np.ndarray

    def pad(self, texts: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """States (B, T, D), weights (B, T) and mask (B, T) bool of the given texts."""
        columns = np.arange(int(self.lengths[texts].max()))
        inside = columns[None, :] < self.lengths[texts][:, None]
        rows = np.where(inside, self.starts[texts][:, None] + columns[None, :], len(self.flat) - 1)
        index = torch.from_numpy(rows)
        return self.flat[index], self.weights[index], torch.from_numpy(inside)


class TokenEncoder:
    """An encoder cut at a layer, and its tokenizer.

    Args:
        model: a transformers encoder; its last layer's states are taken.
        max_length: tokens kept of a text.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, *, max_length: int) -> None:
        self.model, self.tokenizer, self.max_length = model, tokenizer, max_length
        around = (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
        self.special = torch.tensor(sorted({token for token in around if token is not None}))

    def table(self, texts: Sequence[str]) -> TokenTable:
        """`texts` tokenised for this encoder."""
        return TokenTable.from_texts(texts, self.tokenizer, max_length=self.max_length)

    def __call__(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, T) token ids and mask -> (B, T, D) unit-length states; gradients flow."""
        return F.normalize(self.model(input_ids=ids, attention_mask=mask).last_hidden_state, dim=-1)

    def token_weights(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, T) 1.0 for tokens that count in averages: neither padding nor those put around a text ([UNK] counts)."""
        return (mask.bool() & ~torch.isin(ids, self.special.to(ids.device))).float()

    def states(
        self, texts: Sequence[str], *, idf: Mapping[int, float] | None = None, token_budget: int = 2048
    ) -> TokenStates:
        """States of distinct `texts`.

        Args:
            idf: weight by token id (`inverse_document_frequency`); None weighs all tokens alike.
            token_budget: padded tokens a batch.
        """
        table = self.table(texts)
        ends = np.cumsum(table.lengths)
        starts = ends - table.lengths
        flat: Tensor | None = None
        weights = torch.zeros(int(ends[-1]) + 1)
        device = next(self.model.parameters()).device
        lookup = None if idf is None else _lookup(idf, len(self.tokenizer))
        self.model.eval()
        with torch.inference_mode():
            for batch in token_budget_batches(table.lengths, budget=token_budget):
                ids, mask = table.pad(batch)
                hidden = self(ids.to(device), mask.to(device)).float().cpu()
                inside = mask.bool()
                place = torch.from_numpy(starts[batch])[:, None] + torch.arange(ids.shape[1])
                if flat is None:
                    flat = torch.zeros(int(ends[-1]) + 1, hidden.shape[-1])
                flat[place[inside]] = hidden[inside]
                weight = self.token_weights(ids, mask)
                weights[place[inside]] = (weight if lookup is None else weight * lookup[ids])[inside]
        assert flat is not None
        return TokenStates(flat, weights, starts, table.lengths)


def load_token_encoder(
    model: str, *, layer: int, adapters: Path | None = None, max_length: int = 512, device: str = "cpu"
) -> TokenEncoder:
    """`minilm`, a folder or a hub id, cut above its layer `layer` (from 1), with trained adapters where given.

    Raises:
        InputError, ServiceError: as `load_pretrained`; a layer that the model does not have.
    """
    from transformers import AutoModel

    loaded = load_pretrained(AutoModel, model)
    keep_layers(loaded, layer)
    if getattr(loaded, "pooler", None) is not None:
        loaded.pooler = None
    if adapters is not None:
        load_adapters(loaded, adapters)
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    return TokenEncoder(loaded.to("cuda" if cuda else "cpu").eval(), load_tokenizer(model), max_length=max_length)


def inverse_document_frequency(table: TokenTable) -> dict[int, float]:
    """log((N + 1) / (n + 1)) by token id, n of N texts having the token; -1 holds that of unseen tokens.

    Take it from a corpus of references, never from the candidates that are scored.
    """
    count: Counter[int] = Counter()
    for start, length in zip(table._starts, table.lengths, strict=True):
        count.update(set(table._flat[start : start + length].tolist()))
    total = len(table) + 1
    return {-1: math.log(total), **{token: math.log(total / (n + 1)) for token, n in count.items()}}


def _lookup(idf: Mapping[int, float], vocabulary: int) -> Tensor:
    weights = torch.full((vocabulary,), idf[-1])
    known = [token for token in idf if token >= 0]
    weights[torch.tensor(known)] = torch.tensor([idf[token] for token in known])
    return weights
