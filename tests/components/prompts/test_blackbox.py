import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from paperflows.components.prompts.blackbox import ForwardOnly, fingerprint, hinge
from paperflows.components.prompts.encoder import PromptEncoder
from paperflows.components.prompts.projections import clipped_std, projections, state_stds, uniform_projections
from paperflows.components.prompts.search import Candidates, RandomCandidates, keep_best, search_layers
from paperflows.components.prompts.verbalizer import LabelHead, Template, wrap

from .conftest import small

WORDS = {"0": "bad", "1": "good"}


@pytest.fixture
def texts(tokenizer):
    words = ["it", "was", "good", "bad", "yes", "no", "maybe", "the", "film", "a"]
    random = np.random.default_rng(0)
    rows = [{"text": " ".join(random.choice(words, size=1 + i % 7)), "label": str(i % 2)} for i in range(6)]
    return wrap(rows, Template("{text}", WORDS, WORDS), tokenizer, max_length=16)


@pytest.fixture
def model(texts):
    torch.manual_seed(4)
    encoder = PromptEncoder(small().base_model)
    start = {0: torch.randn(2, 16)} | {layer: torch.zeros(2, 16) for layer in range(1, 4)}
    return ForwardOnly(encoder, LabelHead(torch.randn(2, 16)), texts.groups(4), start)


@pytest.mark.parametrize("layer", range(4))
def test_stored_prefixes_give_the_full_forward(model, layer):
    for at in range(4):
        model.fix(at, torch.randn(2, 16))
    candidates = torch.randn(5, 2, 16)
    fast, slow = model.logits(layer, candidates), model.logits(layer, candidates, stored=False)
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=0)
    # and each candidate is what a forward of its own gives
    for candidate, row in zip(candidates, fast, strict=True):
        alone = []
        for batch in model.batches:
            stream = model.encoder.start(batch["tokens"], batch["mask"])
            last = model.encoder.advance(stream, {**model.prompts, layer: candidate})
            alone.append(model.head(last.text, last.text_mask, batch["place"]))
        torch.testing.assert_close(row, torch.cat(alone), atol=1e-5, rtol=0)


@settings(max_examples=15)
@given(order=st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=8))
def test_in_whatever_order_layers_change_nothing_stale_is_read(order):
    torch.manual_seed(0)
    ids = torch.randint(5, 40, (3, 6))
    batch = {
        "tokens": ids,
        "mask": torch.ones_like(ids),
        "place": torch.zeros(3, dtype=torch.long),
        "target": torch.tensor([0, 1, 1]),
    }
    start = {layer: torch.randn(2, 16) for layer in range(4)}
    model = ForwardOnly(PromptEncoder(small().base_model), LabelHead(torch.randn(2, 16)), [batch], start)
    for layer, change in order:
        candidates = torch.randn(2, 2, 16)
        torch.testing.assert_close(
            model.logits(layer, candidates), model.logits(layer, candidates, stored=False), atol=1e-5, rtol=0
        )
        if change:
            model.fix(layer, candidates[0])


def test_sweeps_run_each_layer_for_those_at_and_below_it(model):
    for layer in range(4):
        model.losses(layer, torch.randn(20, 2, 16))
        model.fix(layer, torch.randn(2, 16))
    assert model.calls == 80, "a population counts as many calls as it has members"
    below = 3  # the texts' own pass through layers 0, 1, 2, once
    assert model.layers_run == 20 * (4 + 3 + 2 + 1) + below


def test_losses_are_those_of_torch_and_the_hinge_is_the_one_worked_by_hand(model):
    candidates = torch.randn(3, 2, 16)
    logits = model.logits(1, candidates)
    expected = [F.cross_entropy(one, model.target) for one in logits]
    torch.testing.assert_close(model.losses(1, candidates), torch.stack(expected), atol=1e-6, rtol=0)
    # right logit 3: gaps to 1.5 and 4 are 1.5 and -1, short of a margin of 2 by 0.5 and 3
    assert hinge(torch.tensor([[3.0, 1.5, 4.0]]), torch.tensor([0]), margin=2.0).tolist() == [1.75]


def test_a_search_asks_for_no_gradient_and_changes_no_weight(model):
    before = fingerprint(model.encoder, model.head)
    asked = []
    plain = model.encoder.advance
    model.encoder.advance = lambda *a, **k: asked.append(torch.is_grad_enabled()) or plain(*a, **k)
    matrices = projections([0.1, 0.5, 0.5, 0.5], vectors=2, width=16, dimensions=6, alpha=1.0, sigma=1.0, seed=0)
    start = [model.prompts[layer] for layer in range(4)]
    searches = [Candidates(6, population=8, sigma=1.0, seed=s) for s in range(4)]
    steps = list(search_layers(model, matrices, start, searches=searches, budget=96))
    assert asked and not any(asked) and fingerprint(model.encoder, model.head) == before
    assert [s.layer for s in steps] == [0, 1, 2, 3] * 3 and steps[-1].calls == 96 == model.calls
    losses = [s.loss for s in steps]
    assert losses == sorted(losses, reverse=True)
    standing = model.losses(0, model.prompts[0][None])
    assert float(standing) == pytest.approx(losses[-1], abs=1e-5), "the reported loss is that of the prompts that stand"
    with torch.no_grad():
        next(model.encoder.parameters()).add_(1e-3)
    assert fingerprint(model.encoder, model.head) != before


def test_a_loss_that_a_gradient_could_be_taken_of_is_refused(model, monkeypatch):
    monkeypatch.setattr(ForwardOnly, "logits", ForwardOnly.logits.__wrapped__)
    with pytest.raises(RuntimeError, match="gradients are on"):
        model.losses(0, torch.randn(3, 2, 16))


def test_every_search_draws_from_a_generator_of_its_own():
    def asked(seed, between=None):
        np.random.seed(3)
        before = np.random.get_state()[1].tolist()
        search, told = Candidates(3, population=5, sigma=1.0, seed=seed, bound=2.0), []
        for _ in range(3):
            told.append(search.ask())
            search.tell(told[-1].square().sum(1).tolist())
            if between:
                between.tell(between.ask().sum(1).tolist())
        assert np.random.get_state()[1].tolist() == before, "NumPy's global stream is not touched"
        return torch.cat(told)

    alone = asked(0)
    assert torch.equal(alone, asked(0, between=Candidates(4, population=6, sigma=1.0, seed=1)))
    assert not torch.allclose(alone, asked(1))


def test_cma_beats_random_candidates_on_a_bowl():
    target = torch.linspace(-1, 1, 10)
    ends = {}
    for name, search in (
        ("cma", Candidates(10, population=20, sigma=1.0, seed=0)),
        ("random", RandomCandidates(10, population=20, sigma=1.0, seed=0)),
    ):
        best = float("inf")
        for _ in range(40):
            losses = ((search.ask() - target) ** 2).sum(1)
            search.tell(losses.tolist())
            best = min(best, float(losses.min()))
        ends[name] = best
    assert ends["cma"] < 0.01 < ends["random"]


def test_the_best_on_dev_is_what_stays(model):
    scores = iter([0.5, 0.9, 0.3])
    start = [model.prompts[0]]
    matrices = projections([0.5], vectors=2, width=16, dimensions=4, alpha=1.0, sigma=1.0, seed=0)
    seen = []
    steps = search_layers(model, matrices, start, searches=[Candidates(4, population=5, sigma=1.0, seed=0)], budget=20)
    best, history = keep_best(
        model, steps, score=lambda: seen.append(model.prompts[0].clone()) or next(scores), every=10
    )
    assert best == 0.9 and torch.equal(model.prompts[0], seen[1])
    assert [h["step"] for h in history] == [10, 20] and [h["score"] for h in history] == [0.9, 0.3]


def test_projections_have_the_scale_of_their_layer(texts):
    encoder = PromptEncoder(small().base_model)
    stds = state_stds(encoder, texts, table=False)
    states = encoder.encoder(
        input_ids=texts.batch(np.arange(6))["tokens"], attention_mask=texts.batch(np.arange(6))["mask"],
        output_hidden_states=True,
    ).hidden_states  # fmt: skip
    mask = texts.batch(np.arange(6))["mask"].bool()
    as_in_the_paper = state_stds(encoder, texts, table=True)
    assert as_in_the_paper[0] == pytest.approx(float(encoder.encoder.embeddings.word_embeddings.weight.detach().std()))
    assert as_in_the_paper[1:] == stds[1:]
    for layer in range(4):
        assert stds[layer] == pytest.approx(clipped_std(states[layer][mask].detach()), rel=1e-3)
    made = projections([0.1, 2.0], vectors=50, width=16, dimensions=400, alpha=0.5, sigma=0.2, seed=0)
    z = 0.2 * torch.randn(20, 400, generator=torch.Generator().manual_seed(0))
    assert (z @ made[0]).std() == pytest.approx(0.05, rel=0.05) and (z @ made[1]).std() == pytest.approx(1.0, rel=0.05)


def test_uniform_projections_are_one_a_layer_at_one_scale():
    made = uniform_projections(3, vectors=5, width=16, dimensions=100, seed=0)
    assert [m.shape for m in made] == [(100, 80)] * 3 and not torch.equal(made[0], made[1])
    for matrix in made:
        assert matrix.abs().max() <= 0.1 and matrix.std() == pytest.approx(0.1 / 3**0.5, rel=0.05)


def test_clipping_takes_an_outlier_out():
    values = torch.cat([torch.randn(1000, generator=torch.Generator().manual_seed(0)), torch.tensor([500.0])])
    assert clipped_std(values) < 1.2 < float(values.std())
