"""Encoders read word by word: fine-tuned on aspects, or as frozen states of words.

Letters: N examples, B examples in a batch, W words, T pieces, L layers, D width, K classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from paperflows.components.models.pretrained import load_pretrained, load_tokenizer
from paperflows.components.syntax.words import pieces_of
from paperflows.components.training.batching import TokenTable, token_budget_batches


@dataclass(frozen=True)
class WordEncoder:
    """A transformers encoder and its tokenizer."""

    model: Any
    tokenizer: Any


def load_aspect_encoder(model: str, *, device: str = "cpu") -> WordEncoder:
    """`minilm`, a folder or a hub id, without its pooler; errors as in `load_pretrained`."""
    from transformers import AutoModel

    loaded = load_pretrained(AutoModel, model)
    if getattr(loaded, "pooler", None) is not None:
        loaded.pooler = None
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    return WordEncoder(loaded.to("cuda" if cuda else "cpu").eval(), load_tokenizer(model))


class AspectInputs:
    """N examples as `[CLS] sentence [SEP] aspect [SEP]`, the pieces of the aspect in the sentence marked.

    Args:
        rows: with `words` and `inside` (numbers of the aspect's words).
    """

    def __init__(self, rows: Sequence[dict[str, Any]], tokenizer: Any) -> None:
        sentences = pieces_of(tokenizer, [r["words"] for r in rows])
        aspects = pieces_of(tokenizer, [[r["words"][i] for i in r["inside"]] for r in rows])
        self.owners = [np.append(o, np.full(len(a) - 1, -1)) for (_, o), (a, _) in zip(sentences, aspects, strict=True)]
        ids = [s + a[1:] for (s, _), (a, _) in zip(sentences, aspects, strict=True)]
        marks = [np.isin(o, r["inside"]).astype(int) for o, r in zip(self.owners, rows, strict=True)]
        self._ids = TokenTable(ids, pad_id=tokenizer.pad_token_id)
        self._marks = TokenTable(marks, pad_id=0)  # type: ignore[arg-type]
        self.lengths = self._ids.lengths

    def pad(self, rows: np.ndarray) -> dict[str, Tensor]:
        """tokens, mask and aspect, all (B, T)."""
        ids, mask = self._ids.pad(rows)
        return {"tokens": ids, "mask": mask, "aspect": self._marks.pad(rows)[0].bool()}


def aspect_batches(inputs: AspectInputs) -> list[np.ndarray]:
    """All examples, in batches of like length."""
    return token_budget_batches(inputs.lengths, budget=4096)


class AspectEncoder(nn.Module):
    """The pure encoder with an MLP on the mean of the aspect's pieces: (B, T) -> logits (B, K)."""

    def __init__(self, base: WordEncoder, *, classes: int) -> None:
        super().__init__()
        self.encoder, self.tokenizer = base.model, base.tokenizer
        width = base.model.config.hidden_size
        self.inner, self.out = nn.Linear(width, width), nn.Linear(width, classes)
        self.dropout = nn.Dropout(0.1)

    def inputs(self, rows: Sequence[dict[str, Any]]) -> AspectInputs:
        """`rows` for this encoder."""
        return AspectInputs(rows, self.tokenizer)

    def forward(self, ids: Tensor, mask: Tensor, aspect: Tensor) -> Tensor:
        """Logits (B, K)."""
        hidden = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = aspect.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * weight).sum(1) / weight.sum(1)
        return self.out(self.dropout(torch.relu(self.inner(self.dropout(mean)))))

    def save(self, folder: Path) -> None:
        """The encoder and its tokenizer, in the form of transformers."""
        self.encoder.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


class WordTable:
    """States of the words of N examples in one array: (M, ...) with M words in all.

    Args:
        flat: the words' states, example after example.
        lengths: (N,) words of each.
    """

    def __init__(self, flat: Tensor, lengths: np.ndarray) -> None:
        self.flat = torch.cat([flat, torch.zeros_like(flat[:1])])
        self.lengths = lengths
        self._starts = np.cumsum(lengths) - lengths

    def pad(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """States (B, W, ...) and mask (B, W) bool."""
        columns = np.arange(int(self.lengths[rows].max()))
        inside = columns[None, :] < self.lengths[rows][:, None]
        places = np.where(inside, self._starts[rows][:, None] + columns[None, :], len(self.flat) - 1)
        return self.flat[torch.from_numpy(places)], torch.from_numpy(inside)


def layer_states(encoder: WordEncoder, sentences: Sequence[Sequence[str]]) -> WordTable:
    """States (W, L, D) of the words of each sentence at every layer, the mean over a word's pieces."""
    pieces = pieces_of(encoder.tokenizer, sentences)
    table = TokenTable([ids for ids, _ in pieces], pad_id=encoder.tokenizer.pad_token_id)

    def states(ids: Tensor, mask: Tensor) -> Tensor:
        return torch.stack(
            encoder.model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[1:], 2
        )

    return _word_means(encoder, states, table, [o for _, o in pieces], [len(s) for s in sentences])


def word_embeddings(encoder: WordEncoder, sentences: Sequence[Sequence[str]]) -> WordTable:
    """Vectors (W, D) of the words by themselves, the mean of their pieces' input embeddings: they know no sentence."""
    pieces = pieces_of(encoder.tokenizer, sentences)
    table = TokenTable([ids for ids, _ in pieces], pad_id=encoder.tokenizer.pad_token_id)
    embed = encoder.model.get_input_embeddings()
    return _word_means(encoder, lambda ids, _: embed(ids), table, [o for _, o in pieces], [len(s) for s in sentences])


def aspect_states(encoder: WordEncoder, rows: Sequence[dict[str, Any]]) -> WordTable:
    """Last states (W, D) of the words of each example, read with its aspect."""
    inputs = AspectInputs(rows, encoder.tokenizer)

    def states(ids: Tensor, mask: Tensor) -> Tensor:
        return encoder.model(input_ids=ids, attention_mask=mask).last_hidden_state

    return _word_means(encoder, states, inputs._ids, inputs.owners, [len(r["words"]) for r in rows])


@torch.inference_mode()
def _word_means(
    encoder: WordEncoder,
    states: Callable[[Tensor, Tensor], Tensor],
    table: TokenTable,
    owners: Sequence[np.ndarray],
    counts: Sequence[int],
) -> WordTable:
    """The mean of `states(ids, mask)`, (B, T, ...), over the pieces of each word."""
    lengths = np.array(counts)
    starts = np.cumsum(lengths) - lengths
    device = next(encoder.model.parameters()).device
    total: Tensor | None = None
    number = torch.zeros(int(lengths.sum()))
    for rows in token_budget_batches(table.lengths, budget=4096):
        ids, mask = table.pad(rows)
        hidden = states(ids.to(device), mask.to(device))
        owner = np.full(ids.shape, -1)
        for line, row in enumerate(rows):
            owner[line, : len(owners[row])] = np.where(owners[row] >= 0, owners[row] + starts[row], -1)
        chosen = torch.from_numpy(owner >= 0)
        index = torch.from_numpy(owner[owner >= 0])
        picked = hidden.float().cpu()[chosen]
        total = torch.zeros(len(number), *picked.shape[1:]) if total is None else total
        total.index_add_(0, index, picked)
        number.index_add_(0, index, torch.ones(len(index)))
    assert total is not None
    return WordTable(total / number.view(-1, *[1] * (total.dim() - 1)), lengths)
