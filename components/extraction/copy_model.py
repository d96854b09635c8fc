"""A small decoder that writes targets and copies words from the sentence, on top of a pretrained encoder.

Letters: B sentences, T word pieces of the longest, U target positions, D width, V vocabulary of the decoder. A target
position is a number below V (a token of the decoder's own vocabulary) or V + t (a copy of source piece t), as in
pointer networks (See et al. 2017): p(token) = (1 - c) softmax(vocabulary), p(copy of t) = c softmax(attention to t).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperflows.components.extraction.grammar import Walk


class Block(nn.Module):
    """Pre-norm self-attention, cross-attention and feed-forward."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(3)])
        self.qkv, self.mixed = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.query, self.keys, self.crossed = (
            nn.Linear(width, width),
            nn.Linear(width, 2 * width),
            nn.Linear(width, width),
        )
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def remember(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, T, D/H) of the (B, T, D) memory, computed once a sentence."""
        key, value = self.keys(memory).chunk(2, -1)
        return self._split(key), self._split(value)

    def forward(
        self, x: Tensor, memory: tuple[Tensor, Tensor], seen: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(B, U, D) -> (B, U, D) and the keys and values of all positions so far. With `past`, U is 1.

        Args:
            seen: (B, 1, 1, T) true where the memory may be looked at.
        """
        query, key, value = (self._split(part) for part in self.qkv(self.norms[0](x)).chunk(3, -1))
        if past is not None:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        rate = self.dropout if self.training else 0.0
        own = F.scaled_dot_product_attention(query, key, value, is_causal=past is None, dropout_p=rate)
        x = x + F.dropout(self.mixed(self._join(own)), rate)
        other = F.scaled_dot_product_attention(
            self._split(self.query(self.norms[1](x))), *memory, attn_mask=seen, dropout_p=rate
        )
        x = x + F.dropout(self.crossed(self._join(other)), rate)
        x = x + F.dropout(self.down(F.gelu(self.up(self.norms[2](x)))), rate)
        return x, (key, value)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    @staticmethod
    def _join(x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(2)


class Decoder(nn.Module):
    """The decoder alone: a language model where nothing is there to copy from.

    Args:
        vocabulary: V; token 0 begins, token 1 ends.
        width: D, the encoder's.
        positions: longest target.
    """

    def __init__(
        self, *, vocabulary: int, width: int, layers: int, heads: int, positions: int, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.vocabulary, self.positions = vocabulary, positions
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(positions, width)
        self.nothing = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList([Block(width, heads, dropout) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.pointer, self.copied, self.copy = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, 1)
        for table in (self.tokens, self.places):
            nn.init.normal_(table.weight, std=0.02)

    def remember(self, memory: Tensor | None, rows: int) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of the memory for every block; of the learnt nothing where there is none."""
        memory = self.nothing.expand(rows, 1, -1) if memory is None else memory
        return [block.remember(memory) for block in self.blocks]  # type: ignore[operator]

    def embed(self, ids: Tensor, memory: Tensor | None, first: int) -> Tensor:
        """(B, U) target numbers at positions first ... -> (B, U, D); a copy is embedded by what it copies."""
        x = self.tokens(ids.clamp(max=self.vocabulary - 1))
        if memory is not None:
            source = (ids - self.vocabulary).clamp(min=0)
            taken = memory.gather(1, source[..., None].expand(-1, -1, memory.shape[-1]))
            x = torch.where((ids >= self.vocabulary)[..., None], self.copied(taken), x)
        return x + self.places(torch.arange(first, first + ids.shape[1], device=ids.device))

    def log_probabilities(self, x: Tensor, memory: Tensor | None, mask: Tensor | None) -> Tensor:
        """(B, U, D) states -> (B, U, V), or (B, U, V + T) where there is something to copy."""
        x = self.norm(x)
        own = F.log_softmax((x @ self.tokens.weight.t()).float(), -1)
        if memory is None or mask is None:
            return own
        scores = (self.pointer(x) @ memory.transpose(1, 2)).float() / memory.shape[-1] ** 0.5
        pointed = F.log_softmax(scores.masked_fill(~mask.bool()[:, None], -1e9), -1)
        gate = self.copy(x).float()
        return torch.cat([F.logsigmoid(-gate) + own, F.logsigmoid(gate) + pointed], -1)

    def forward(self, ids: Tensor, memory: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """(B, U) target numbers -> log-probabilities of the next one at each position, (B, U, V [+ T])."""
        kept = self.remember(memory, len(ids))
        seen = _seen(mask, len(ids), ids.device)
        x = self.embed(ids, memory, 0)
        for block, known in zip(self.blocks, kept, strict=True):
            x, _ = block(x, known, seen, None)
        return self.log_probabilities(x, memory, mask)

    @torch.inference_mode()
    def write(self, memory: Tensor, mask: Tensor, *, longest: int, walk: Walk | None = None) -> list[list[int]]:
        """Greedy targets (without begin and end) of B sentences; each position is computed once.

        Args:
            walk: the best of what it allows is written; empty allows everything.
        """
        limit, device = min(longest, self.positions), memory.device
        kept, seen = self.remember(memory, len(memory)), _seen(mask, len(memory), device)
        out = torch.ones(len(memory), limit, dtype=torch.int64, device=device)
        live = torch.arange(len(memory), device=device)
        ids, open_ = torch.zeros_like(live), torch.ones_like(live, dtype=torch.bool)
        past: list[Any] = [None] * len(self.blocks)
        for place in range(limit):
            x = self.embed(ids[:, None], memory, place)
            for i, (block, known) in enumerate(zip(self.blocks, kept, strict=True)):
                x, past[i] = block(x, known, seen, past[i])
            said = self.log_probabilities(x, memory, mask)[:, -1]
            ids = (said if walk is None else said.masked_fill(~walk.allowed(), -torch.inf)).argmax(-1)
            if walk is not None:
                walk.advance(ids)
            ids = torch.where(open_, ids, 1)
            out[live, place] = ids
            open_ = ids != 1
            if not open_.any():
                break
            if 2 * int(open_.sum()) <= len(live):  # the finished ones leave the batch
                live, ids, memory, mask, seen = (part[open_] for part in (live, ids, memory, mask, seen))
                kept = [(key[open_], value[open_]) for key, value in kept]
                past = [(key[open_], value[open_]) for key, value in past]
                if walk is not None:
                    walk.keep(open_)
                open_ = open_[open_]
        return [row[: row.index(1)] if 1 in row else row for row in out.tolist()]


class CopyModel(nn.Module):
    """An encoder and the decoder above it.

    Args:
        encoder: a transformers encoder with `last_hidden_state` (B, T, D).
    """

    def __init__(self, encoder: nn.Module, decoder: Decoder) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def read(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, T) source pieces -> (B, T, D) memory."""
        return self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state

    def forward(self, ids: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        """Source, and (B, U + 1) targets that begin with 0 and are padded with -100 -> mean nats of a target token."""
        inputs = target[:, :-1].clamp(min=0)
        said = self.decoder(inputs, self.read(ids, mask), mask)
        return F.nll_loss(said.flatten(0, 1), target[:, 1:].flatten(), ignore_index=-100)


def _seen(mask: Tensor | None, rows: int, device: Any) -> Tensor:
    if mask is None:
        return torch.ones(rows, 1, 1, 1, dtype=torch.bool, device=device)
    return mask.bool()[:, None, None, :]
