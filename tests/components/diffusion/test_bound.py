"""The bound against enumeration: every sentence, every way of masking it, every step."""

import itertools
import math

import pytest
import torch

from paperflows.components.diffusion.bound import bound_terms, sentence_bounds, training_loss
from paperflows.components.diffusion.schedule import Schedule, stratified_steps, true_rates
from paperflows.components.errors import InputError

COUNTS = torch.tensor([50, 10, 2, 0])  # three words and [MASK]
MASK, WORDS, STEPS = 3, 3, 4


def schedule(kind, strength=0.3, steps=STEPS):
    return Schedule(steps, kind, strength, COUNTS)


class Table:
    """A denoiser of random but fixed probabilities that depend on the whole corrupted sentence."""

    time = "none"

    def __init__(self, seed=0):
        self.seed = seed

    def __call__(self, ids, attention, t, masked):
        rows = []
        for sentence, open_ in zip(ids.tolist(), masked.tolist(), strict=True):
            for place, is_open in enumerate(open_):
                if is_open:
                    g = torch.Generator().manual_seed(self.seed + hash((tuple(sentence), place)) % 10**6)
                    logits = torch.cat([torch.randn(WORDS, generator=g), torch.tensor([-torch.inf])])
                    rows.append(logits.log_softmax(0))
        return torch.stack(rows) if rows else torch.zeros(0, WORDS + 1)


def exact_bound(sentence, denoiser, s):
    """The bound by summing over every step and every set of masked positions."""
    ids = torch.tensor([sentence])
    survival = s.of_sentences(ids, torch.ones_like(ids))
    total = 0.0
    for t in range(1, s.steps + 1):
        gone, rate = true_rates(survival, torch.tensor([t]))
        for chosen in itertools.product([0, 1], repeat=len(sentence)):
            masked = torch.tensor([chosen]).bool()
            if not masked.any():
                continue
            p = torch.where(masked, gone, 1 - gone).prod().item()
            noisy = torch.where(masked, MASK, ids)
            logp = denoiser(noisy, None, None, masked)
            total += p * bound_terms(logp, ids[masked], rate[masked], s.rates[t].expand(len(logp), -1)).sum().item()
    return total


def chain_probability(sentence, denoiser, s):
    """log-probability that the model's own chain ends in the sentence, by dynamic programming over masked sets."""
    n = len(sentence)
    reach = {(MASK,) * n: 1.0}
    for t in range(s.steps, 0, -1):
        following = {}
        for state, weight in reach.items():
            open_ = [i for i in range(n) if state[i] == MASK]
            if not open_:
                following[state] = following.get(state, 0.0) + weight
                continue
            ids = torch.tensor([state])
            p = denoiser(ids, None, None, ids == MASK).exp()
            move = p * s.rates[t]
            options = [
                [(MASK, 1 - float(move[k].sum())), (sentence[i], float(move[k][sentence[i]]))]
                for k, i in enumerate(open_)
            ]
            for choice in itertools.product(*options):
                new = list(state)
                for place, (token, _) in zip(open_, choice, strict=True):
                    new[place] = token
                following[tuple(new)] = following.get(tuple(new), 0.0) + weight * math.prod(c for _, c in choice)
        reach = following
    return reach.get(tuple(sentence), 0.0)


@pytest.mark.parametrize("kind", ["base", "spindle", "information"])
def test_the_chain_is_a_distribution_and_the_bound_lies_above_its_surprise(kind):
    s, denoiser = schedule(kind), Table()
    sentences = list(itertools.product(range(WORDS), repeat=2))
    probabilities = {x: chain_probability(x, denoiser, s) for x in sentences}
    assert sum(probabilities.values()) == pytest.approx(1.0, abs=1e-5)
    gaps = [exact_bound(x, denoiser, s) + math.log(probabilities[x]) for x in sentences]
    assert min(gaps) > -1e-4
    # the information form, clipped, is far from what the model may know of it
    assert max(gaps) < {"base": 0.4, "spindle": 1.0, "information": 5.0}[kind]


@pytest.mark.parametrize("kind", ["base", "spindle"])
def test_the_estimate_converges_to_the_enumerated_bound(kind):
    s, denoiser = schedule(kind), Table()
    ids = torch.tensor([[0, 2]] * 4000)
    ones = torch.ones_like(ids)
    got, _ = sentence_bounds(
        denoiser, ids, ones, ones, s, mask_id=MASK, strata=STEPS, generator=torch.Generator().manual_seed(0)
    )
    assert got.mean().item() == pytest.approx(exact_bound((0, 2), denoiser, s), abs=4 * got.std().item() / 4000**0.5)


class Unigram:
    """The best denoiser that knows no context."""

    time = "none"

    def __call__(self, ids, attention, t, masked):
        p = COUNTS / COUNTS.sum()
        return p.log().expand(int(masked.sum()), -1)


def test_no_context_free_denoiser_scores_below_the_unigram_entropy_but_the_official_figure_does():
    p = COUNTS[:WORDS] / COUNTS.sum()
    entropy = -(p * p.log()).sum().item()
    generator = torch.Generator().manual_seed(0)
    ids = torch.multinomial(p, 4 * 8000, replacement=True, generator=generator).view(-1, 4)
    ones = torch.ones_like(ids)
    figures = {}
    for kind in ("base", "spindle"):
        bound, official = sentence_bounds(
            Unigram(), ids, ones, ones, schedule(kind, 0.45, steps=64), mask_id=MASK, strata=16, generator=generator
        )
        figures[kind] = bound.mean().item() / 4, official.mean().item() / 4
    assert figures["base"][0] == pytest.approx(entropy, rel=0.03)  # tight
    assert figures["base"][0] == pytest.approx(figures["base"][1], rel=1e-4)  # the same thing without a spindle
    assert figures["spindle"][0] > 0.98 * entropy
    assert figures["spindle"][1] < 0.95 * entropy


@pytest.mark.parametrize("kind", ["base", "spindle", "information"])
def test_survival_starts_at_one_ends_at_zero_and_never_rises(kind):
    s = schedule(kind, 0.9, steps=16)
    curve = s.of_sentences(torch.tensor([[0, 1, 2, 2]]), torch.ones(1, 4))
    assert torch.all(curve[..., 0] == 1) and torch.allclose(
        curve[..., -1], torch.zeros(1, dtype=curve.dtype), atol=1e-12
    )
    assert (curve.diff(dim=-1) <= 1e-12).all()
    assert (s.rates[1:] > 0).all() and (s.rates[1] >= 1 - 1e-6).all()


def test_spindle_keeps_the_sentences_average_and_spares_frequent_tokens():
    s = schedule("spindle", 0.3, steps=8)
    curve = s.of_sentences(torch.tensor([[0, 1, 2]]), torch.ones(1, 3))
    assert torch.allclose(curve.mean(1), 1 - torch.arange(9, dtype=curve.dtype)[None] / 8, atol=1e-6)
    assert curve[0, 0, 4] > curve[0, 1, 4] > curve[0, 2, 4]
    assert len(s.repaired) == 0
    assert len(schedule("information", 0.9, steps=16).repaired) > 0


def test_without_strength_all_forms_are_the_base():
    ids, ones = torch.tensor([[0, 1, 2]]), torch.ones(1, 3)
    base = schedule("base").of_sentences(ids, ones)
    for kind in ("spindle", "information"):
        assert torch.allclose(schedule(kind, 0.0).of_sentences(ids, ones), base)
        assert torch.allclose(schedule(kind, 0.0).rates, schedule("base").rates)


def test_each_stratum_gives_one_step():
    steps = stratified_steps(8, 64, torch.Generator().manual_seed(0))
    assert sorted(((steps - 1) // 8).tolist()) == list(range(8))
    assert steps.min() >= 1 and steps.max() <= 64


def test_a_process_without_steps_is_refused():
    with pytest.raises(InputError, match="steps"):
        schedule("base", steps=0)


def test_the_hybrid_term_weighs_against_a_step_as_in_the_official_code():
    """Base schedule: a masked token has 1/t of its cross-entropy from the bound and 0.01 of it beside, S times each."""
    s, t = schedule("base", steps=8), 4
    logp = torch.tensor([[0.5, 0.3, 0.2, 0.0]]).log()
    token, rate = torch.tensor([1]), torch.tensor([1 / t])
    terms = bound_terms(logp, token, rate, s.rates[[t]])
    nats = -math.log(0.3)
    assert float(terms) == pytest.approx(nats / t, rel=1e-5)
    loss = training_loss(terms, -logp[:, 1], steps=8, count=2, hybrid=0.01)
    assert float(loss) == pytest.approx(8 * (1 / t + 0.01) * nats / 2, rel=1e-5)
