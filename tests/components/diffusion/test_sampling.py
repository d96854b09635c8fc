import itertools
from collections import Counter

import pytest
import torch
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from paperflows.components.diffusion.denoiser import Denoiser
from paperflows.components.diffusion.diversity import bleu_against, equal_diversity_weights, self_bleu
from paperflows.components.diffusion.sampling import gibbs, sample
from paperflows.components.diffusion.schedule import Schedule
from paperflows.components.models.cut_vocabulary import start_bias, start_head
from paperflows.components.models.tiny_bert import tiny_bert

COUNTS = torch.tensor([60, 30, 10, 0])
MASK = 3


class Always:
    """Context-free: always the same distribution; counts the sentences it reads."""

    def __init__(self, p, time="none"):
        self.p, self.time, self.read = torch.tensor([*p, 0.0]), time, 0

    def __call__(self, ids, attention, t, masked):
        assert (ids[masked] == MASK).all()
        self.read += len(ids)
        return self.p.log().expand(int(masked.sum()), -1)


@pytest.mark.parametrize(("kind", "stride"), [("base", 1), ("base", 5), ("spindle", 1), ("spindle", 7)])
def test_the_reverse_process_of_the_true_posterior_gives_the_data_back(kind, stride):
    schedule = Schedule(32, kind, 0.3, COUNTS)
    ids = torch.zeros(6000, 2, dtype=torch.long)
    ones = torch.ones_like(ids)
    # with a base schedule a context-free denoiser of the right frequencies is exact
    model = Always([0.6, 0.3, 0.1])
    got, calls, way = sample(
        model, ids, ones, ones, schedule, mask_id=MASK, stride=stride, top_k=0, temperature=1.0,
        generator=torch.Generator().manual_seed(0), keep=True,
    )  # fmt: skip
    assert (got != MASK).all() and calls == model.read <= 2 * len(ids)
    shares = torch.bincount(got.flatten(), minlength=4) / got.numel()
    assert torch.allclose(shares[:3], model.p[:3], atol=0.02 if kind == "base" else 0.12)
    for before, after in itertools.pairwise(way):
        assert (after[before != MASK] == before[before != MASK]).all()  # what is written stays


def test_what_does_not_take_part_is_kept_and_top_k_limits_words():
    schedule = Schedule(8, "base", 0.0, COUNTS)
    ids = torch.tensor([[2, 0, 0]] * 50)
    noised = torch.tensor([[0, 1, 1]] * 50)
    got, _, _ = sample(
        Always([0.5, 0.3, 0.2]), ids, torch.ones_like(ids), noised, schedule, mask_id=MASK, stride=2, top_k=1,
        temperature=1.0, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert got.tolist() == [[2, 0, 0]] * 50


def test_gibbs_draws_from_the_conditionals():
    ids = torch.zeros(3000, 2, dtype=torch.long)
    ones = torch.ones_like(ids)
    got, calls = gibbs(
        Always([0.6, 0.3, 0.1]), ids, ones, ones, mask_id=MASK, sweeps=2, top_k=0, temperature=1.0,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert calls == 3000 * 2 * 2
    assert torch.allclose(
        torch.bincount(got.flatten(), minlength=4)[:3] / 6000, torch.tensor([0.6, 0.3, 0.1]), atol=0.03
    )


@pytest.fixture
def lm():
    return tiny_bert(vocab_size=12, width=16, layers=2, heads=2, positions=16, seed=0).eval()


@pytest.mark.parametrize("time", ["none", "layer", "prefix"])
def test_denoisers_never_predict_what_is_forbidden_and_heed_time_only_if_told(lm, time):
    allowed = torch.ones(12, dtype=torch.bool)
    allowed[[0, 4]] = False
    denoiser = Denoiser(lm, allowed, time=time, steps=8).eval()
    if time == "layer":  # it starts without effect; give it one
        for timer in denoiser.timers:
            torch.nn.init.normal_(timer[2].weight)
    ids = torch.tensor([[2, 5, 4, 6, 3], [2, 4, 4, 3, 0]])
    attention, masked = (ids != 0).long(), ids == 4
    early, late = (denoiser(ids, attention, torch.tensor([t, t]), masked) for t in (1, 8))
    assert early.shape == (3, 12)
    assert torch.isinf(early[:, [0, 4]]).all()
    assert torch.allclose(early.exp().sum(1), torch.ones(3), atol=1e-5)
    assert torch.allclose(early, late) == (time == "none")


def test_padding_and_neighbours_do_not_change_a_sentence(lm):
    denoiser = Denoiser(lm, torch.ones(12, dtype=torch.bool)).eval()
    alone = torch.tensor([[2, 5, 4, 3]])
    together = torch.tensor([[2, 5, 4, 3, 0, 0], [2, 4, 4, 7, 8, 3]])
    one = denoiser(alone, torch.ones_like(alone), torch.ones(1), alone == 4)
    two = denoiser(together, (together != 0).long(), torch.ones(2), together == 4)
    assert torch.allclose(one[0], two[0], atol=1e-5)


def test_the_started_head_predicts_unigrams_where_the_body_says_nothing(lm):
    counts = torch.arange(12)
    start_head(lm, counts)
    assert torch.allclose(lm.cls.predictions.transform.dense.weight, torch.eye(16))
    bias = lm.cls.predictions.bias.detach().exp()
    assert bias[11] / bias[1] == pytest.approx(11.0, rel=1e-4)
    start_bias(lm, counts.flip(0))
    assert lm.cls.predictions.bias.argmax() == 0


WORDS = ["a", "man", "dog", "runs", "in", "the", "park", "red"]


def sentences(count, seed):
    g = torch.Generator().manual_seed(seed)
    return [
        [WORDS[i] for i in torch.randint(len(WORDS), (int(n),), generator=g)]
        for n in torch.randint(4, 9, (count,), generator=g)
    ]


def test_bleu_equals_the_librarys_with_all_references():
    samples, references = sentences(25, 0), sentences(40, 1)
    smooth = SmoothingFunction().method1
    expected = [sentence_bleu(references, s, smoothing_function=smooth) for s in samples]
    assert bleu_against(samples, references).tolist() == pytest.approx(expected)
    expected = [
        sentence_bleu(samples[:i] + samples[i + 1 :], s, smoothing_function=smooth) for i, s in enumerate(samples)
    ]
    assert self_bleu(samples).tolist() == pytest.approx(expected)


def test_copies_of_one_sample_have_the_highest_self_bleu():
    assert self_bleu([["a", "man", "runs", "in"]] * 3).tolist() == pytest.approx([1.0] * 3)
    assert Counter(bleu_against([["red", "red"]], [["a", "dog"]]).tolist()) == {0.0: 1}


def test_two_writers_are_compared_where_both_are_equally_diverse():
    ours, baseline = equal_diversity_weights([0.2, 0.6], [0.5, 0.4, 0.8], knots=3)
    # at 0.4, 0.5 and 0.6 ours takes the second setting by half, three quarters and whole
    assert ours.tolist() == pytest.approx([0.25, 0.75])
    # the other writer: all of 0.4; all of 0.5; a third of the way from 0.5 to 0.8
    assert baseline.tolist() == pytest.approx([(1 + 2 / 3) / 3, 1 / 3, 1 / 9])
    # a writer whose BLEU is its self-BLEU is as good as any other of the kind
    assert ours @ [0.2, 0.6] == pytest.approx(baseline @ [0.5, 0.4, 0.8]) == pytest.approx(0.5)
    assert equal_diversity_weights([0.2, 0.3], [0.4, 0.5]) is None
