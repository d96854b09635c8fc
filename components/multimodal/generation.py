"""Answers in any modality: inside a block only its own ids and its end, with settings of its own.

Letters: R rows, S steps, C columns of the output matrix in use, M modes (text and the modalities), D width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from paperflows.components.llm.decode import left_pad
from paperflows.components.llm.sampling import RowSettings, next_tokens, uniforms
from paperflows.components.multimodal.vocabulary import Vocabulary

TEXT = "text"


@dataclass(frozen=True)
class Setting:
    """How a modality is decoded (section 6 of the official code's settings).

    Args:
        temperature, top_k, repetition_penalty: as in `RowSettings`.
        longest: ids of a block, or of a run of text, at most; a block of exact length has that instead.
        guidance: g of logits + g (conditional - unconditional); 0 reads no unconditional prompt.
    """

    temperature: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    longest: int = 64
    guidance: float = 0.0


class _Modes:
    """What each mode allows next: its columns of the output matrix, and where each column leads."""

    def __init__(self, vocabulary: Vocabulary, settings: Mapping[str, Setting], only_text: bool) -> None:
        self.names = [TEXT, *vocabulary.blocks]
        v = vocabulary
        begins = [] if only_text or not v.marks else [b.begin for b in v.blocks.values()]
        self.columns = [torch.tensor([*v.text_ids, *begins, v.eom])]
        self.columns += [torch.tensor([*range(b.first, b.first + b.n_ids), b.end]) for b in v.blocks.values()]
        self.exact = [None, *(b.exact for b in v.blocks.values())]
        self.ends = [v.eom, *(b.end for b in v.blocks.values())]
        self.begin_of = {b.begin: mode for mode, b in enumerate(v.blocks.values(), 1)}
        self.settings = [settings.get(name, Setting()) for name in self.names]

    def after(self, mode: int, token: int, eom: int) -> int:
        """Mode of the next token; -1 where the message has ended."""
        if token == eom:
            return -1
        if mode == 0:
            return self.begin_of.get(token, 0)
        return 0 if token == self.ends[mode] else mode


def room_of(vocabulary: Vocabulary, settings: Mapping[str, Setting], modality: str) -> int:
    """Tokens that a block takes at most behind its begin token: its ids and its end."""
    exact = vocabulary.blocks[modality].exact
    return (settings[modality].longest if exact is None else exact) + 1


@torch.inference_mode()
def answer(
    model: Any,
    vocabulary: Vocabulary,
    prompts: Sequence[Sequence[int]],
    settings: Mapping[str, Setting],
    seeds: Sequence[int],
    *,
    start: str = TEXT,
    unconditional: Sequence[Sequence[int]] | None = None,
    only_text: bool = False,
    longest: int,
) -> list[list[int]]:
    """The assistant's message after each prompt, without its end mark.

    Every step multiplies the state with the columns that the rows' modes allow, a slice of the output matrix: all of a
    batch of pictures needs 65 of the vocabulary's columns. When a begin token is drawn the row's settings change to
    that modality's; a block with an exact length ends at it, any other at its end token or at its longest.

    Args:
        start: a modality whose begin token is forced (and whose block is all that is written), or text.
        unconditional: prompts without their text condition, for settings with guidance; same number as `prompts`.
        only_text: no block may be begun.
        longest: tokens of a message at most, forced ones apart; a block that is open then is none to `parse`.
    """
    modes = _Modes(vocabulary, settings, only_text)
    device = next(model.parameters()).device
    first = modes.names.index(start)
    forced = [vocabulary.blocks[start].begin] if first and vocabulary.marks else []
    rows = [[*p, *forced] for p in prompts]
    guided = unconditional is not None and any(s.guidance for s in modes.settings)
    if guided:
        rows += [[*p, *forced] for p in unconditional or ()]
    count = len(prompts)
    ids, mask = left_pad(rows, vocabulary.pad, device)
    mode = torch.full((count,), first, device=device)
    inside = torch.zeros(count, dtype=torch.long, device=device)  # tokens since the mode began
    u = uniforms(list(seeds), longest).to(device)
    seen = torch.zeros(count, vocabulary.size, dtype=torch.bool, device=device)
    written: list[list[int]] = [list(forced) for _ in range(count)]
    out = model.model(
        input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp(min=0), use_cache=True
    )
    past = out.past_key_values
    for step in range(longest):
        alive = mode >= 0
        if not bool(alive.any()):
            break
        present = sorted(set(mode[alive].tolist()))
        columns = torch.cat([modes.columns[m] for m in present]).unique().to(device)
        logits = _logits(model, out.last_hidden_state[:, -1], columns)
        if guided:
            strength = torch.tensor([modes.settings[m].guidance for m in range(len(modes.names))], device=device)
            logits = logits[:count] + strength[mode.clamp(min=0)][:, None] * (logits[:count] - logits[count:])
        logits = logits.masked_fill(~_allowed(modes, mode, inside, columns), float("-inf"))
        tokens = columns[next_tokens(logits, seen[:, columns], _row_settings(modes, mode), u[:, step])]
        tokens = torch.where(alive, tokens, vocabulary.pad)
        before = mode.tolist()
        for row, (token, now) in enumerate(zip(tokens.tolist(), before, strict=True)):
            if now >= 0 and token != vocabulary.eom:
                written[row].append(token)
        after = [
            m if m < 0 else modes.after(m, t, vocabulary.eom) for m, t in zip(before, tokens.tolist(), strict=True)
        ]
        if first:  # one block was asked for
            after = [-1 if m != first else m for m in after]
        following = torch.tensor(after, device=device)
        inside = torch.where(following == mode, inside + 1, 0)
        seen.scatter_(1, tokens[:, None], alive[:, None])
        seen &= (following == mode)[:, None]  # a penalty does not reach over from another block
        mode = following
        fed = torch.cat([tokens, tokens]) if guided else tokens
        seen_next = torch.ones_like(fed[:, None])
        if guided:  # words that the message holds before a block are part of its condition, so they are hidden too
            seen_next[count:, 0] = (mode > 0).long()
        mask = torch.cat([mask, seen_next], 1)
        out = model.model(
            input_ids=fed[:, None], attention_mask=mask, position_ids=(mask.sum(-1) - 1)[:, None], past_key_values=past,
            use_cache=True,
        )  # fmt: skip
    return written


def _logits(model: Any, states: Tensor, columns: Tensor) -> Tensor:
    """(R, C) scores of some columns of the vocabulary from (R, D) states."""
    scores: Tensor = (states @ model.lm_head.weight[columns].T).float()
    return scores


def _allowed(modes: _Modes, mode: Tensor, inside: Tensor, columns: Tensor) -> Tensor:
    """(R, C): which columns a row may write now."""
    table = torch.stack([torch.isin(columns, c.to(columns.device)) for c in modes.columns])
    allowed = table[mode.clamp(min=0)]
    ends = torch.tensor(modes.ends, device=columns.device)[mode.clamp(min=0)]
    is_end = columns[None, :] == ends[:, None]
    least = torch.tensor([e or 0 for e in modes.exact], device=columns.device)[mode.clamp(min=0)]
    limits = [s.longest if e is None else e for s, e in zip(modes.settings, modes.exact, strict=True)]
    most = torch.tensor(limits, device=columns.device)[mode.clamp(min=0)]
    allowed = torch.where((inside >= most)[:, None], is_end, allowed)
    allowed &= ~((inside < least)[:, None] & is_end)
    return allowed | (mode < 0)[:, None]  # what a row draws that has ended is thrown away


def _row_settings(modes: _Modes, mode: Tensor) -> RowSettings:
    now = mode.clamp(min=0)

    def of(name: str, kind: torch.dtype) -> Tensor:
        return torch.tensor([getattr(s, name) for s in modes.settings], dtype=kind, device=mode.device)[now]

    return RowSettings(
        temperature=of("temperature", torch.float), top_p=torch.ones(len(mode), device=mode.device),
        top_k=of("top_k", torch.long), repetition_penalty=of("repetition_penalty", torch.float),
    )  # fmt: skip
