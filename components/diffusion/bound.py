"""The variational bound of absorbing diffusion in closed form: no vocabulary-by-vocabulary matrix anywhere.

Letters: N masked positions, V vocabulary, B sentences, T tokens.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from paperflows.components.diffusion.schedule import Schedule, stratified_steps, true_rates

Denoise = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def bound_terms(logp: Tensor, token: Tensor, rate: Tensor, rates: Tensor) -> Tensor:
    """(N,) KL divergence in nats between the true posterior and the model's, at masked positions.

    r [-log p(x) + log(r / rhat(x))] + (1 - r) log[(1 - r) / (1 - sum_w p(w) rhat(w))]: a masked position with token x
    unmasks with probability r; the model unmasks it to w with probability p(w) rhat(w).

    Args:
        logp: (N, V) log-probabilities of the denoiser.
        token: (N,) true tokens.
        rate: (N,) true rates r.
        rates: (N, V) the model's rates by word.
    """
    of_token = logp.gather(1, token[:, None])[:, 0]
    hat = rates.gather(1, token[:, None])[:, 0]
    unmask = torch.where(rate > 0, rate * (rate.clamp(min=1e-20).log() - hat.log() - of_token), 0.0)
    leave = (logp.exp() * rates).sum(1)
    stays = 1 - rate
    keep = stays * (stays.clamp(min=1e-20).log() - (1 - leave).clamp(min=1e-20).log())
    return unmask + torch.where(stays > 1e-7, keep, 0.0)


def training_loss(terms: Tensor, plain: Tensor, *, steps: int, count: int, hybrid: float) -> Tensor:
    """The bound of a token, estimated at one step of each sentence, and `hybrid` of the plain cross-entropy beside it.

    The official code adds 0.01 of the cross-entropy to the divergence of the one step that was drawn, which weighs more
    than the bound does at most steps; both are multiplied by the number of steps here, which makes the first the bound.

    Args:
        terms: (N,) of `bound_terms`.
        plain: (N,) minus log-probabilities of the masked tokens.
        steps: S of the process.
        count: tokens that take part, masked or not.
    """
    return steps * (terms.sum() + hybrid * plain.sum()) / count


def corrupt(
    ids: Tensor, noised: Tensor, t: Tensor, schedule: Schedule, mask_id: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sentences at step t of the forward process.

    Args:
        ids: (B, T).
        noised: (B, T) true where tokens take part; special tokens and padding never do.
        t: (B,) in 1..S.

    Returns:
        Corrupted ids, masked positions (bool), mask probabilities 1 - a_t and true unmask rates, all (B, T).
    """
    gone, rate = true_rates(schedule.of_sentences(ids, noised), t)
    masked = noised.bool() & (torch.rand(ids.shape, generator=generator) < gone)
    return torch.where(masked, mask_id, ids), masked, gone, rate


@torch.inference_mode()
def sentence_bounds(
    denoiser: Denoise, ids: Tensor, attention: Tensor, noised: Tensor, schedule: Schedule, *, mask_id: int,
    strata: int, generator: torch.Generator,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Estimates (B,) of each sentence's bound and of the official code's figure, in nats.

    Steps are drawn one from each of `strata` equal parts of the process, masks once a step: an unbiased estimate. The
    official figure takes the base schedule's step beta_t = 1/(S - t + 1) with the spindle's survivals, a rate of
    beta_t a_{t-1} / (1 - a_t) that it also tells the model: rare tokens count less, and it is no bound under spindle.

    Args:
        denoiser: (corrupted ids, attention (B, T), steps (B,), masked positions) -> (N, V) log-probabilities.
        strata: forward passes a sentence.
    """
    total, official = torch.zeros(len(ids)), torch.zeros(len(ids))
    steps = torch.stack([stratified_steps(strata, schedule.steps, generator) for _ in range(len(ids))])
    for column in range(strata):
        t = steps[:, column]
        noisy, masked, gone, rate = corrupt(ids, noised, t, schedule, mask_id, generator)
        if not bool(masked.any()):
            continue
        logp = denoiser(noisy, attention, t, masked).float().cpu()
        row = masked.nonzero()[:, 0]
        terms = bound_terms(logp, ids[masked], rate[masked], schedule.rates[t[row]])
        total.index_add_(0, row, terms)
        before = 1 - gone[masked] * (1 - rate[masked])
        weight = before / (gone[masked] * (schedule.steps - t[row] + 1))
        official.index_add_(0, row, -weight * logp.gather(1, ids[masked][:, None])[:, 0])
    return total * schedule.steps / strata, official * schedule.steps / strata
