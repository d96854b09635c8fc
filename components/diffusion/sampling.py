"""Writing text by the reverse process in strides, and by Gibbs sampling of a plain masked LM.

Letters: B sentences, T tokens, V vocabulary, S steps of the process.
"""

from typing import Any

import torch
from torch import Tensor

from paperflows.components.diffusion.schedule import Schedule


@torch.inference_mode()
def sample(
    denoiser: Any, ids: Tensor, attention: Tensor, noised: Tensor, schedule: Schedule, *, mask_id: int, stride: int,
    top_k: int, temperature: float, generator: torch.Generator, keep: bool = False,
) -> tuple[Tensor, int, list[Tensor]]:  # fmt: skip
    """Fill the positions that take part, all masked at first, going from S to 0 in strides.

    A position is unmasked to w with probability p(w) (a_{t-s}(w) - a_t(w)) / (1 - a_t(w)): w is drawn from the
    denoiser, then the coin is thrown. Temperature and top-k act on p alone. A time-agnostic denoiser is not asked again
    for a sentence that did not change, so a sentence costs at most as many calls as it has tokens.

    Args:
        ids: (B, T); what stands at positions that do not take part is the condition.
        noised: (B, T) true where text is to be written.
        stride: steps of the process taken at once; the last stride is shorter where S is no multiple.
        keep: return the sentences after every stride.

    Returns:
        Filled ids (B, T), sentences that the denoiser read, and the way there.
    """
    survival, noised = schedule.survival, noised.bool()
    now = torch.where(noised, mask_id, ids)
    way = [now.clone()]
    calls = 0
    agnostic = denoiser.time == "none"
    draws = torch.zeros_like(now)  # what would be written where the coin allows it
    probabilities: list[Tensor | None] = [None] * len(ids)
    changed = torch.ones(len(ids), dtype=torch.bool)
    t = schedule.steps
    while t > 0:
        after = max(0, t - stride)
        masked = now == mask_id
        masked &= noised
        ask = (masked.any(1) & (changed | (not agnostic))).nonzero()[:, 0]
        if len(ask):
            calls += len(ask)
            logp = denoiser(now[ask], attention[ask], torch.full((len(ask),), t), masked[ask]).cpu()
            parts = _sharpen(logp, top_k, temperature).split(masked[ask].sum(1).tolist())
            for row, part in zip(ask.tolist(), parts, strict=True):
                probabilities[row] = part
        rows = masked.any(1).nonzero()[:, 0].tolist()
        if not rows:
            break
        together = torch.cat([p for r in rows if (p := probabilities[r]) is not None])
        words = torch.multinomial(together, 1, generator=generator)[:, 0]
        rate = (survival[after, words] - survival[t, words]) / (1 - survival[t, words]).clamp(min=1e-12)
        written = torch.rand(len(words), generator=generator) < rate
        if after == 0:
            written = torch.ones_like(written)
        before = now.clone()
        draws[masked] = words
        coin = torch.zeros_like(masked)
        coin[masked] = written
        now = torch.where(coin, draws, now)
        changed = (now != before).any(1)
        way += [now.clone()] if keep else []
        t = after
    return now, calls, way


@torch.inference_mode()
def gibbs(
    denoiser: Any, ids: Tensor, attention: Tensor, noised: Tensor, *, mask_id: int, sweeps: int, top_k: int,
    temperature: float, generator: torch.Generator,
) -> tuple[Tensor, int]:  # fmt: skip
    """BERT-Mouth (Wang and Cho 2019): start all masked, then mask and redraw one random position a step.

    Args:
        sweeps: steps for every position of the longest sentence.

    Returns:
        Filled ids (B, T), and sentences that the masked LM read.
    """
    noised = noised.bool()
    now = torch.where(noised, mask_id, ids)
    rows = torch.arange(len(ids))
    calls, step = torch.zeros(len(ids), dtype=torch.long), 0
    length = noised.sum(1)
    while step < sweeps * int(length.max()):
        busy = rows[step < sweeps * length]
        weights = torch.where((now == mask_id) & noised, 1e6, noised.double())  # open positions first
        place = torch.multinomial(weights[busy], 1, generator=generator)[:, 0]
        at = torch.zeros_like(noised)
        at[busy, place] = True
        seen = torch.where(at, mask_id, now)
        logp = denoiser(seen[busy], attention[busy], torch.ones(len(busy), dtype=torch.long), at[busy]).cpu()
        words = torch.multinomial(_sharpen(logp, top_k, temperature), 1, generator=generator)[:, 0]
        now[busy, place] = words
        calls[busy] += 1
        step += 1
    return now, int(calls.sum())


def _sharpen(logp: Tensor, top_k: int, temperature: float) -> Tensor:
    """(N, V) probabilities of the top_k likeliest words (0: all) at a temperature."""
    scaled = logp / temperature
    if 0 < top_k < logp.shape[1]:
        least = scaled.topk(top_k, dim=1).values[:, -1:]
        scaled = scaled.masked_fill(scaled < least, float("-inf"))
    return scaled.softmax(1)
