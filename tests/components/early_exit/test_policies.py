import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paperflows.components.early_exit import curves, sentences
from paperflows.components.early_exit.curves import Sizes
from paperflows.components.early_exit.dynamic import run_early
from paperflows.components.early_exit.encoder import ExitEncoder
from paperflows.components.early_exit.exits import MultiExitClassifier
from paperflows.components.early_exit.policies import (
    POLICIES,
    entropy,
    entropy_policy,
    fixed_policy,
    learned_policy,
    patience_policy,
    replay,
)
from paperflows.components.errors import InputError
from paperflows.components.training.batching import TokenTable

from .conftest import small


def said(*classes, width=3):
    """(1, L, C) logits that name these classes."""
    return torch.nn.functional.one_hot(torch.tensor([classes]), width).float() * 9


def test_entropy_is_normalised_and_survives_saturated_logits():
    told = entropy(torch.tensor([[0.0, 0.0, 0.0], [1e4, 0.0, 0.0]]))
    assert told.tolist() == pytest.approx([1.0, 0.0]) and torch.isfinite(told).all()
    p = torch.tensor([0.7, 0.3])
    assert entropy(p.log()).item() == pytest.approx(-(0.7 * math.log(0.7) + 0.3 * math.log(0.3)) / math.log(2))


@pytest.mark.parametrize(
    ("patience", "classes", "layer"),
    [
        (1, (0, 0, 1, 1), 2),
        (1, (0, 1, 0, 1), 4),
        (2, (0, 0, 0, 1), 3),
        (2, (0, 0, 1, 1, 1, 1), 5),
        (3, (2, 2, 2, 2, 1), 4),
    ],
)
def test_patience_needs_one_prediction_more_than_agreements(patience, classes, layer):
    logits = said(*classes)
    assert replay(patience_policy(patience), logits, torch.zeros(1, len(classes))).tolist() == [layer]


def test_patience_of_a_regression_is_a_small_step():
    logits = torch.tensor([1.0, 1.5, 1.55, 1.56]).view(1, 4, 1)
    assert replay(patience_policy(1, tolerance=0.1), logits, torch.zeros(1, 4)).tolist() == [3]
    with pytest.raises(InputError, match="regression"):
        replay(entropy_policy(0.5), logits, torch.zeros(1, 4))


def test_learned_and_fixed():
    confidence = torch.tensor([[0.2, 0.8, 0.9], [0.9, 0.1, 0.1], [0.1, 0.1, 0.99]])
    logits = torch.zeros(3, 3, 2)
    assert replay(learned_policy(0.5), logits, confidence).tolist() == [2, 1, 3]
    assert replay(fixed_policy(torch.tensor([3, 1, 2])), logits, confidence).tolist() == [3, 1, 2]


def model_and_texts(seed):
    torch.manual_seed(3)
    model = MultiExitClassifier(ExitEncoder(small(num_hidden_layers=4)), outputs=3, pooling="mean").eval()
    with torch.no_grad():
        for one in model.exits:
            one.classifier.weight.mul_(6)
    random = np.random.default_rng(seed)
    rows = [random.integers(5, 60, random.integers(1, 12)).tolist() for _ in range(17)]
    return model, sentences.LabelledTexts(TokenTable(rows, pad_id=0), torch.from_numpy(random.integers(0, 3, 17)))


@given(
    seed=st.integers(0, 1000),
    rule=st.sampled_from(sorted(POLICIES)),
    place=st.floats(0.05, 0.95),
    size=st.integers(1, 17),
)
@settings(max_examples=20, deadline=None)
def test_the_run_that_skips_says_what_the_replay_says(seed, rule, place, size):
    """Any rule, setting and batch size: identical predictions and exit layers."""
    model, texts = model_and_texts(seed)
    signals = sentences.exit_signals(model, texts)
    settings_ = curves.settings_of(rule, signals)
    policy = POLICIES[rule](settings_[int(place * len(settings_))] + (1e-4 if rule != "patience" else 0))
    expected = replay(policy, signals["logits"], signals["confidence"])
    logits, exits = [], []
    for start in range(0, 17, size):
        one, layers = run_early(model, *texts.table.pad(np.arange(start, min(17, start + size))), policy)
        logits.append(one)
        exits.append(layers)
    assert torch.equal(torch.cat(exits), expected)
    chosen = signals["logits"][torch.arange(17), expected - 1]
    torch.testing.assert_close(torch.cat(logits), chosen, atol=1e-5, rtol=1e-4)


def test_finished_rows_are_not_computed(monkeypatch):
    model, texts = model_and_texts(0)
    seen = []
    step = model.encoder.step
    monkeypatch.setattr(
        model.encoder,
        "step",
        lambda index, hidden, *rest: (seen.append(hidden.shape[:2]), step(index, hidden, *rest))[1],
    )
    exits = torch.tensor([1] * 9 + [2] * 4 + [4] * 4)
    order = iter(exits[exits > n] for n in range(4))
    run_early(model, *texts.table.pad(np.arange(17)), lambda layer, signal, memory: (next(order) <= layer + 1, memory))
    assert [rows for rows, _ in seen] == [17, 8, 4, 4]
    assert seen[1][1] == texts.table.lengths[9:].max() and seen[2][1] == texts.table.lengths[13:].max()


def test_budgets_are_kept_on_validation_and_the_control_keeps_the_histogram():
    model, texts = model_and_texts(1)
    signals, sizes = sentences.exit_signals(model, texts), Sizes(width=16, inner=32, depth=4)
    for budget in (0.5, 0.8):
        setting = curves.setting_at("entropy", signals, sizes, budget)
        cost, columns, exits = curves.policy_point(signals, entropy_policy(setting), sizes)
        assert cost <= budget and columns.shape == (17, 4)
        control = curves.control_curve(signals, signals, sizes, [budget], seed=0)
        dealt = exits[torch.from_numpy(np.random.default_rng(0).permutation(17))]
        wanted = (signals["logits"].argmax(-1)[torch.arange(17), dealt - 1] == signals["target"]).double().numpy()
        assert control.columns[0, :, 0].tolist() == wanted.tolist()
    static = curves.static_curve(signals, sizes)
    assert static.costs[-1] == pytest.approx(1.0) and np.all(np.diff(static.costs) > 0)
    right = (signals["logits"].argmax(-1) == signals["target"][:, None]).double().mean(0)
    assert static.qualities().tolist() == pytest.approx(right.tolist())


def test_columns_give_glue_measure_of_a_positive_class():
    from sklearn.metrics import accuracy_score, f1_score

    from paperflows.components.evaluation.statistics import accuracy_f1

    logits, target = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 2
    said_ = logits.argmax(-1)
    expected = (accuracy_score(target, said_) + f1_score(target, said_)) / 2
    assert accuracy_f1(np.zeros(1), curves.columns_of(logits, target, positive=1)) == pytest.approx(expected)
    assert accuracy_f1(np.zeros(1), curves.columns_of(logits, target)) == pytest.approx(accuracy_score(target, said_))
