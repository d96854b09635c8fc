"""The generation loop: many rows over few prompts, each row with its own settings, draws and length.

Letters: P prompts, T tokens of the longest prompt, R rows (samples), S steps, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from paperflows.components.llm.sampling import RowSettings, next_tokens

CHECK = 8  # tokens between two looks for stop texts and for finished rows to leave the batch
Stopped = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Decoded:
    """What was drawn: tokens (R, S) and their log-probabilities under the unprocessed model, right of a row's length
    without meaning; lengths (R,), the end token included.
    """

    tokens: Tensor
    logprobs: Tensor
    lengths: Tensor


@torch.inference_mode()
def decode_rows(
    model: Any,
    ids: Tensor,
    mask: Tensor,
    rows: Tensor,
    settings: RowSettings,
    u: Tensor,
    *,
    limits: Tensor,
    ends: Tensor,
    stopped: Stopped | None = None,
) -> Decoded:
    """Continue each prompt as often as `rows` names it; prompts are read once, and finished rows leave the batch.

    Args:
        model: a transformers causal language model in eval mode.
        ids, mask: (P, T), padded on the left.
        rows: (R,) the prompt of each row.
        settings: (R,) of each row.
        u: (R, S) uniform numbers: what row r draws at step s depends on u[r, s] alone.
        limits: (R,) most tokens of each row, at most S.
        ends: ids that end a row.
        stopped: from tokens (A, s) of the rows still alive and their numbers (A,), which of them have ended, (A,).
    """
    count, device = len(rows), ids.device
    out = model(input_ids=ids, attention_mask=mask, position_ids=_positions(mask), use_cache=True, logits_to_keep=1)
    past, logits = out.past_key_values, out.logits[rows, -1].float()
    if not torch.equal(rows, torch.arange(len(ids), device=device)):
        past.reorder_cache(rows)
    mask = mask[rows]
    seen = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, ids[rows], mask.bool())
    tokens = torch.zeros(count, int(limits.max()), dtype=torch.long, device=device)
    logprobs = torch.zeros(tokens.shape, device=device)
    lengths = torch.full((count,), -1, device=device)
    alive, now = torch.arange(count, device=device), settings
    for step in range(tokens.shape[1]):
        token = next_tokens(logits, seen, now, u[alive, step])
        logprobs[alive, step] = logits.log_softmax(-1).gather(1, token[:, None])[:, 0]
        tokens[alive, step] = token
        seen.scatter_(1, token[:, None], True)
        ended = torch.isin(token, ends) | (step + 1 >= limits[alive])
        if stopped and step % CHECK == CHECK - 1:
            ended |= stopped(tokens[alive, : step + 1], alive)
        lengths[alive] = torch.where((lengths[alive] < 0) & ended, step + 1, lengths[alive])
        running = lengths[alive] < 0
        if not bool(running.any()):
            break
        mask = torch.cat([mask, torch.ones_like(token[:, None])], 1)
        if step % CHECK == CHECK - 1 and int(running.sum()) <= 0.75 * len(alive):
            keep = running.nonzero()[:, 0]
            alive, mask, seen, token = alive[keep], mask[keep], seen[keep], token[keep]
            now = settings.at(alive)
            past.reorder_cache(keep)
        out = model(
            input_ids=token[:, None], attention_mask=mask, position_ids=(mask.sum(-1) - 1)[:, None],
            past_key_values=past, use_cache=True,
        )  # fmt: skip
        logits = out.logits[:, -1].float()
    return Decoded(tokens, logprobs, lengths)


def left_pad(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and mask (P, T) of prompts, padded on the left."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask


def _positions(mask: Tensor) -> Tensor:
    return (mask.cumsum(-1) - 1).clamp(min=0)
