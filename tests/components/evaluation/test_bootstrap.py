import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from paperflows.components.errors import InputError
from paperflows.components.evaluation.bootstrap import Paired, decide, paired_bootstrap
from paperflows.components.evaluation.statistics import (
    accuracy_f1,
    f1,
    macro_f1,
    mean_statistic,
    median,
    ratio_of_sums,
    spearman,
)
from paperflows.components.evaluation.sts import cosine_scores, sts_all, transfer_correct


def simulate(rng, *, truth=0.1, seeds=3, examples=200, seed_noise=0.05):
    """Scores of two systems whose true difference of means is `truth`; training adds noise by seed."""
    difficulty = rng.normal(0, 1, examples)
    base = difficulty + rng.normal(0, seed_noise, (seeds, 1)) + rng.normal(0, 0.3, (seeds, examples))
    ours = difficulty + truth + rng.normal(0, seed_noise, (seeds, 1)) + rng.normal(0, 0.3, (seeds, examples))
    return Paired(np.zeros(examples), ours, base)


def naive_interval(data, rng, resamples=400):
    """What one would write first: resample the three seeds as if they were many."""
    effects = (data.ours - data.baseline).mean(1)
    rows = np.array([rng.integers(0, data.ours.shape[1], data.ours.shape[1]) for _ in range(resamples)])
    difference = data.ours - data.baseline
    draws = [difference[rng.integers(0, len(effects), len(effects))][:, row].mean() for row in rows]
    return np.quantile(draws, [0.025, 0.975])


def test_coverage_is_that_of_the_stated_interval():
    rng = np.random.default_rng(0)
    trials, ours, naive = 300, 0, 0
    for _ in range(trials):
        data = simulate(rng)
        low, high = paired_bootstrap([data], mean_statistic, resamples=400).ci95
        ours += low <= 0.1 <= high
        low, high = naive_interval(data, rng)
        naive += low <= 0.1 <= high
    assert 0.92 <= ours / trials <= 0.995, f"covers {ours / trials:.3f}"
    assert naive / trials < 0.90, "the naive interval would do: then the Student draw is not needed"


def test_no_effect_is_rarely_called_one():
    rng = np.random.default_rng(1)
    verdicts = [
        decide(paired_bootstrap([simulate(rng, truth=0.0)], mean_statistic, resamples=300).ci95, 0.0)
        for _ in range(200)
    ]
    assert verdicts.count("holds") <= 200 * 0.05
    assert verdicts.count("undecided") >= 200 * 0.90


def test_single_seed_covers_over_examples():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        data = simulate(rng, seeds=1, seed_noise=0.0)
        low, high = paired_bootstrap([data], mean_statistic, resamples=400).ci95
        hits += low <= 0.1 <= high
    assert 0.90 <= hits / 200 <= 0.99


def test_examples_that_belong_together_are_no_further_evidence():
    rng = np.random.default_rng(3)
    covered, naive = 0, 0
    for _ in range(150):
        topic = rng.normal(0, 1, 40)  # each topic has 5 questions that share its fate
        groups = rng.permutation(np.repeat(np.arange(40), 5))
        ours = 0.1 + topic[groups] + rng.normal(0, 0.3, 200)
        for grouped in (True, False):
            data = Paired(np.zeros(200), ours[None], np.zeros((1, 200)), groups if grouped else None)
            low, high = paired_bootstrap([data], mean_statistic, resamples=200).ci95
            covered += grouped and low <= 0.1 <= high
            naive += not grouped and low <= 0.1 <= high
    assert 0.89 <= covered / 150 <= 0.99, f"covers {covered / 150:.3f}"
    assert naive / 150 < 0.75, "examples alone would do: then groups need no resampling of their own"


def test_a_group_is_drawn_whole():
    seen = []

    def record(gold, output):
        seen.append(output)
        return output.mean(-1)

    values = np.array([[1.0, 10.0, 100.0, 1.0]])  # the ones belong together
    paired_bootstrap([Paired(np.zeros(4), values, values * 0, np.array([7, 3, 5, 7]))], record, resamples=50)
    drawn = [d[0] for d in seen[2::2]]  # after the two of the point estimate, every other is the baseline's
    assert {len(d) for d in drawn} > {3, 4}, "resamples are as long as their groups are"
    assert all((d == 1).sum() % 2 == 0 for d in drawn)
    with pytest.raises(ValueError, match="groups"):
        Paired(np.zeros(4), values, values, np.zeros(3))


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(-1, 1)), min_size=3, max_size=40))
def test_spearman_equals_scipy(pairs):
    gold, output = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    if len(set(gold)) < 2 or len(set(output)) < 2:
        return
    assert spearman(gold, output) == pytest.approx(scipy.stats.spearmanr(gold, output).statistic, abs=1e-9)


def test_effect_is_the_mean_over_seeds_then_datasets():
    one = Paired(np.zeros(2), np.array([[1.0, 3.0], [3.0, 5.0]]), np.zeros((2, 2)))
    two = Paired(np.zeros(3), np.ones((2, 3)), np.zeros((2, 3)))
    effect = paired_bootstrap([one, two], mean_statistic)
    assert (effect.ours, effect.baseline, effect.effect, effect.n) == (2.0, 0.0, 2.0, 5)


@pytest.mark.parametrize(
    ("interval", "margin", "verdict"),
    [((0.1, 0.3), 0.0, "holds"), ((0.1, 0.3), 0.1, "undecided"), ((-0.3, -0.1), 0.0, "fails"),
     ((-0.1, 0.1), 0.0, "undecided"), ((-0.1, 0.0), 0.0, "fails"), ((0.01, 0.02), 0.05, "fails")],
)  # fmt: skip
def test_verdicts(interval, margin, verdict):
    assert decide(interval, margin) == verdict


@pytest.mark.parametrize(
    ("interval", "margin", "verdict"),
    [((-0.3, -0.1), 0.0, "holds"), ((0.1, 0.3), 0.0, "fails"), ((0.9, 1.05), 1.1, "holds"), ((1.05, 1.2), 1.1, "undecided"),
     ((1.1, 1.2), 1.1, "fails"), ((0.0, 0.1), 0.0, "fails")],
)  # fmt: skip
def test_verdicts_where_less_is_better(interval, margin, verdict):
    assert decide(interval, margin, lower_is_better=True) == verdict


def test_unequal_seeds_and_shapes_are_refused():
    with pytest.raises(ValueError, match="paired scores need"):
        Paired(np.zeros(3), np.zeros((1, 4)), np.zeros((1, 4)))
    data = [Paired(np.zeros(2), np.zeros((s, 2)), np.zeros((s, 2))) for s in (1, 2)]
    with pytest.raises(ValueError, match="same seeds"):
        paired_bootstrap(data, mean_statistic)


def test_constant_output_is_an_error_not_a_number():
    with pytest.raises(ValueError, match="not finite"):
        paired_bootstrap([Paired(np.arange(5.0), np.ones((1, 5)), np.ones((1, 5)))], spearman)


def test_sts_all_concatenates_sources():
    sources = {"b": [{"score": 2}], "a": [{"score": 1}]}
    assert [row["score"] for row in sts_all(sources)] == [1, 2]
    assert [row["score"] for row in sts_all({**sources, "test": [{"score": 9}]})] == [9]
    with pytest.raises(InputError, match="needs a split test"):
        sts_all({"train": [{"score": 1}], "validation": [{"score": 2}]})


def test_cosine_scores_embed_in_one_call():
    import torch

    calls = []

    def embed(texts):
        calls.append(list(texts))
        return torch.tensor([[float(len(t)), 1.0] for t in texts])

    scores = cosine_scores(embed, [{"text": "a", "text_pair": "a"}, {"text": "aa", "text_pair": "aaaa"}])
    assert len(calls) == 1
    assert scores == pytest.approx([1.0, (2 * 4 + 1) / (5**0.5 * 17**0.5)], abs=1e-6)


def test_transfer_learns_a_separable_task_and_not_noise():
    import torch

    rng = np.random.default_rng(0)
    table = {f"t{i}": rng.normal(0, 1, 8) + (2.0 if i % 2 else -2.0) for i in range(300)}
    rows = [{"text": t, "label": i % 2} for i, t in enumerate(table)]

    def embed(texts):
        return torch.tensor(np.stack([table[t] for t in texts]), dtype=torch.float32)

    assert transfer_correct(embed, rows[:100], rows[100:150], rows[150:]).mean() > 0.98
    noise = [{**row, "label": int(rng.integers(2))} for row in rows]
    assert 0.3 < transfer_correct(embed, noise[:100], noise[100:150], noise[150:]).mean() < 0.7


def test_statistics_of_counts_by_hand():
    entities = np.array([[2.0, 3.0, 2.0], [0.0, 1.0, 2.0]])  # hits, said, true of two sentences
    assert f1(np.zeros(2), entities) == pytest.approx(2 * 2 / (4 + 4))
    assert accuracy_f1(np.zeros(2), np.array([[1.0, 1, 1, 1], [0.0, 0, 1, 0]])) == pytest.approx((0.5 + 2 / 3) / 2)
    assert ratio_of_sums(np.zeros(2), np.array([[3.0, 4.0], [1.0, 6.0]])) == pytest.approx(0.4)


def test_counts_are_resampled_by_example():
    rng = np.random.default_rng(0)
    ours = rng.integers(0, 3, (2, 80, 3)).astype(float)
    effect = paired_bootstrap([Paired(np.zeros(80), ours, ours)], f1)
    assert effect.effect == 0 and effect.ci95 == (-3 / 80, 3 / 80) and effect.n == 80
    better = ours + np.array([0.3, 0.0, 0.0])
    assert paired_bootstrap([Paired(np.zeros(80), better, ours)], f1).ci95[0] > 0


def test_ratio_of_times():
    rng = np.random.default_rng(1)
    fast = rng.uniform(0.9, 1.1, (1, 30))
    slow = 2 * fast + rng.uniform(-1e-4, 1e-4, (1, 30))
    effect = paired_bootstrap([Paired(np.zeros(30), slow, fast)], median, compare="ratio")
    assert effect.effect == pytest.approx(2.0, abs=1e-3) and effect.ci95 == pytest.approx((2.0, 2.0), abs=1e-3)
    assert effect.ours == pytest.approx(2 * effect.baseline, rel=1e-3)


@pytest.mark.parametrize(("n", "bound"), [(1, 3.0), (10, 0.3), (1000, 0.003)])
def test_examples_that_all_agree_leave_three_in_n_open(n, bound):
    """Ten examples on which two systems agree do not show that they agree on the eleventh."""
    right = np.ones((2, n))
    effect = paired_bootstrap([Paired(np.zeros(n), right, right)], mean_statistic)
    assert effect.effect == 0 and effect.ci95 == (pytest.approx(-bound), pytest.approx(bound))
    assert decide(effect.ci95, -0.01) == ("holds" if n == 1000 else "undecided")
    halves = paired_bootstrap([Paired(np.zeros(n), 20 * right, 40 * right)], mean_statistic, compare="ratio")
    assert halves.ci95 == (pytest.approx(0.5 - bound), pytest.approx(0.5 + bound))


def test_repeats_of_a_measurement_that_all_agree_leave_nothing_open():
    bytes_kept = np.full((1, 2), 5e6)
    pairs = [Paired(np.zeros(2), bytes_kept, 2 * bytes_kept)]
    assert paired_bootstrap(pairs, median, compare="ratio", unseen=False).ci95 == (0.5, 0.5)
    assert paired_bootstrap(pairs, median, compare="ratio").ci95[1] > 1


def test_a_ratio_to_nothing_says_nothing():
    nothing, some = np.zeros((3, 50)), np.full((3, 50), 0.5)
    nothing_once = np.vstack([np.ones((2, 50)), np.zeros((1, 50))])
    for baseline in (nothing, nothing_once):
        effect = paired_bootstrap([Paired(np.zeros(50), some, baseline)], mean_statistic, compare="ratio")
        assert "no ratio" in effect.caveat and effect.ours == 0.5 and effect.ci95 == (0, 0)
    assert not paired_bootstrap([Paired(np.zeros(50), some, nothing)], mean_statistic).caveat, "a difference does"


def test_a_statistic_that_many_resamples_lack_says_so():
    """A rank correlation with one score that differs: a third of the resamples hold only equal ones."""
    gold = np.array([1.0] + [0.0] * 9)
    outputs = np.random.default_rng(0).normal(size=(1, 10))
    effect = paired_bootstrap([Paired(gold, outputs, outputs[:, ::-1])], spearman)
    assert "of the resamples have no such statistic" in effect.caveat and np.isfinite(effect.ci95).all()


def test_macro_f1_of_a_row_does_not_hang_on_its_neighbours():
    from sklearn.metrics import f1_score

    random = np.random.default_rng(0)
    gold = np.stack([random.integers(0, 2, 12), random.integers(0, 4, 12)])  # the first row lacks two classes
    output = random.integers(0, 4, (2, 12))
    found = macro_f1(gold, output)
    for row in range(2):
        assert found[row] == pytest.approx(macro_f1(gold[row], output[row]))
        labels = np.unique(gold[row])
        assert found[row] == pytest.approx(f1_score(gold[row], output[row], average="macro", labels=labels))
