import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paperflows.components.early_exit import self_sampling, word_curves
from paperflows.components.early_exit.encoder import ExitEncoder
from paperflows.components.early_exit.flops import layer_flops
from paperflows.components.early_exit.policies import entropy
from paperflows.components.early_exit.token_exit import (
    MultiExitTagger,
    WindowRule,
    layer_threshold,
    of_sentence,
    replay_words,
    run_words,
    window_max,
)
from paperflows.components.early_exit.words import WordTable, layers_of_pieces, pieces_of
from paperflows.components.errors import InputError
from paperflows.components.models.pretrained import load_tokenizer

from .conftest import small

LABELS = ["A", "B", "C"]
REACHES = (0, 1, 2)
THRESHOLDS = (0.05, 0.1, 0.2, 0.35)


class Pieces:
    """A tokenizer of words to pieces: one piece a character, ids 5 and up; 2 starts a sentence, 3 ends it."""

    pad_token_id, sep_token_id = 0, 3

    def __call__(self, sentences, *, is_split_into_words, truncation, max_length):
        rows, words = [], []
        for sentence in sentences:
            ids = [(5 + ord(c) % 50, w) for w, word in enumerate(sentence) for c in word if c != "_"][: max_length - 2]
            rows.append([2, *(i for i, _ in ids), 3])
            words.append([None, *(w for _, w in ids), None])

        class Told(dict):
            def word_ids(self, row):
                return words[row]

        return Told(input_ids=rows)


def table(seed=0, count=9, max_length=40):
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        words = [
            "".join(chr(random.integers(97, 123)) for _ in range(random.integers(1, 4)))
            for _ in range(random.integers(1, 8))
        ]
        rows.append({"tokens": words, "tags": [LABELS[random.integers(3)] for _ in words]})
    return WordTable(rows, Pieces(), LABELS, max_length=max_length)


def tagger(frozen="renorm"):
    torch.manual_seed(4)
    model = MultiExitTagger(ExitEncoder(small(num_hidden_layers=4), frozen=frozen), outputs=3).eval()
    with torch.no_grad():
        for one in model.exits:
            one.weight.mul_(4)
    return model


def test_pieces_words_and_words_without_a_piece():
    rows = [{"tokens": ["ab", "_", "cd", "e"], "tags": ["A", "B", "C", "A"]}, {"tokens": ["f"], "tags": ["B"]}]
    words = WordTable(rows, Pieces(), LABELS, max_length=6)
    batch = words.batch(np.array([0, 1]))
    assert batch["word_of"].tolist() == [[-1, 0, 0, 2, 2, -1], [-1, 0, -1, -1, -1, -1]]
    assert batch["first"].tolist() == [[1, 0, 3, 0], [1, 0, 0, 0]]
    assert batch["real"].tolist() == [[True, False, True, False], [True, False, False, False]]
    assert batch["tags"].tolist() == [[0, -100, 2, -100], [1, -100, -100, -100]]
    said = words.said(np.array([0, 1]), torch.full((2, 4), 2), batch["real"], fallback=1)
    assert said == [["C", "B", "C", "B"], ["C"]], "cut words count, with the most frequent tag"
    exits = torch.tensor([[1, 0, 2, 0], [3, 0, 0, 0]])
    assert layers_of_pieces(exits, batch["word_of"], batch["mask"], 4).tolist() == [
        [4, 1, 1, 2, 2, 4],
        [4, 3, 4, 0, 0, 0],
    ]
    active = torch.tensor([[True, False, False, False], [False] * 4])
    running = pieces_of(active, batch["word_of"], active.any(1)) & batch["mask"].bool()
    assert running.tolist() == [[True, True, True, False, False, True], [False] * 6]


def test_a_real_tokenizer_reads_the_first_piece():
    rows = [{"tokens": ["Unbelievably", "good", "DeConcini"], "tags": ["A", "B", "C"]}]
    tokenizer = load_tokenizer("minilm")
    batch = WordTable(rows, tokenizer, LABELS, max_length=32).batch(np.array([0]))
    pieces = tokenizer.convert_ids_to_tokens(batch["tokens"][0])
    firsts = [pieces[i] for i in batch["first"][0]]
    assert not any(p.startswith("##") for p in firsts) and firsts[1] == "good" and batch["real"].all()
    assert sorted(set(batch["word_of"][0].tolist())) == [-1, 0, 1, 2]


def test_unknown_tag_is_named():
    with pytest.raises(InputError, match="'Z'"):
        WordTable([{"tokens": ["a"], "tags": ["Z"]}], Pieces(), LABELS, max_length=9)


def test_window_by_hand():
    values = torch.tensor([[0.1, 0.9, 0.2, 0.3, -torch.inf]])
    torch.testing.assert_close(window_max(values, 1), torch.tensor([[0.9, 0.9, 0.9, 0.3, 0.3]]))
    assert torch.equal(window_max(values, 0), values)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.integers(0, 4))
def test_window_against_a_loop(values, reach):
    tensor = torch.tensor([values])
    expected = [max(tensor[0, max(0, t - reach) : t + reach + 1]) for t in range(len(values))]
    assert window_max(tensor, reach)[0].tolist() == [float(v) for v in expected]


def test_thresholds_double_in_the_upper_half_up_to_a_half():
    assert [layer_threshold(0.1, layer, 6) for layer in range(6)] == [0.1] * 3 + [0.2] * 3
    assert layer_threshold(0.4, 5, 6) == 0.5 and layer_threshold(0.7, 5, 6) == 0.7


def test_who_leaves_by_hand():
    u = torch.tensor([[0.05, 0.3, 0.05, 0.05, 0.9]])
    real = torch.tensor([[True, True, True, True, False]])
    active = torch.tensor([[True, False, True, True, False]])  # the uncertain neighbour left before

    def leaving(**fields):
        return WindowRule(0.1, **fields).leaving(u, real, active, 0, 6)[0].tolist()

    assert leaving(reach=1) == [True, False, True, True, False]
    assert leaving(reach=1, over="all") == [False, False, False, True, False]
    assert leaving(reach=2, over="all") == [False, False, False, False, False]
    assert leaving(sentence=True) == [False] * 5
    assert WindowRule(0.4, sentence=True).leaving(u, real, real, 0, 6)[0].tolist() == [True] * 4 + [False]


@pytest.mark.parametrize("frozen", ["renorm", "copy"])
@given(
    seed=st.integers(0, 300), threshold=st.floats(0.05, 0.99), reach=st.integers(0, 2),
    over=st.sampled_from(["active", "all"]), sentence=st.booleans(), copied=st.booleans(),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_skipping_says_what_masking_says_in_any_batch(frozen, seed, threshold, reach, over, sentence, copied):
    words, model = table(seed), tagger(frozen)
    rule = WindowRule(threshold, reach, over, sentence, copied)
    batch = words.batch(np.arange(9))
    tags, exits, pieces = run_words(model, batch, rule)
    masked = run_words(model, batch, rule, masked=True)
    assert torch.equal(tags, masked[0]) and torch.equal(exits, masked[1]) and torch.equal(pieces, masked[2])
    assert (exits[batch["real"]] >= 1).all() and (exits[~batch["real"]] == 0).all()
    for row in range(0, 9, 4):
        alone = run_words(model, words.batch(np.array([row])), rule)
        width = alone[0].shape[1]
        assert torch.equal(alone[0][0], tags[row, :width]) and torch.equal(alone[1][0], exits[row, :width])
        assert torch.equal(alone[2][0], pieces[row])


def test_sentee_is_its_replay():
    words, model = table(1), tagger()
    stored, batch = self_sampling.stored_exits(model, words), words.batch(np.arange(9))
    for threshold in (0.3, 0.6, 0.8, 0.95):
        rule = WindowRule(threshold, sentence=True)
        tags, exits, _ = run_words(model, batch, rule)
        expected = replay_words(stored["uncertainty"], batch["real"], rule)
        assert torch.equal(exits, expected)
        said = stored["said"].gather(-1, (expected.clamp(min=1) - 1).unsqueeze(-1))[..., 0]
        assert torch.equal(tags[batch["real"]], said[batch["real"]])


@pytest.mark.parametrize("mean", [False, True])
def test_replayed_sentences_are_what_runs_say_and_cost(mean):
    model, words = tagger(), table(seed=4, count=12)
    stored = self_sampling.stored_exits(model, words)
    rules = word_curves.sentence_rules(stored, words, mean=mean, count=7)
    assert len(rules) == 7 and all(a.threshold < b.threshold for a, b in itertools.pairwise(rules))
    sizes = {"width": model.encoder.width, "inner": model.encoder.inner}
    replayed = word_curves.replay_sentences(stored, words, rules, fallback=0, **sizes)
    run = word_curves.sweep_words(model, words, rules, fallback=0)
    assert replayed.costs == pytest.approx(run.costs) and len(set(replayed.costs)) > 2
    assert np.array_equal(replayed.columns, run.columns) and replayed.settings == run.settings


def test_a_sentence_is_as_uncertain_as_its_worst_word_or_their_mean():
    uncertainty, real = torch.tensor([[0.1, 0.5, 0.9], [0.2, 0.4, 0.9]]), torch.tensor([[1, 1, 1], [1, 1, 0]]).bool()
    assert of_sentence(uncertainty, real, mean=False).tolist() == pytest.approx([0.9, 0.4])
    assert of_sentence(uncertainty, real, mean=True).tolist() == pytest.approx([0.5, 0.3])


def test_a_second_stage_reads_on_where_the_first_stopped():
    words = table(count=9)
    whole = self_sampling.joint_objective(words, batch_size=2, seed=3)
    rest = self_sampling.joint_objective(words, batch_size=2, seed=3, before=3)
    stored = self_sampling.stored_exits(tagger(), words)
    sampled = self_sampling.self_sampling_objective(
        words, stored, batch_size=2, seed=3, before=3, reaches=REACHES, thresholds=THRESHOLDS
    )
    for step in range(4):
        for objective in (rest, sampled):
            assert torch.equal(objective.batch_at(step)["tokens"], whole.batch_at(3 + step)["tokens"])
    assert not torch.equal(whole.batch_at(0)["tokens"], rest.batch_at(0)["tokens"])


def test_costs_by_hand_and_at_the_extremes():
    words, model = table(2), tagger()
    sizes = {"width": 16, "inner": 32}
    full = word_curves.full_flops(words, depth=4, **sizes)
    lengths = words.table.lengths
    np.testing.assert_allclose(full, 4 * layer_flops(lengths, lengths, **sizes) + 2 * words.word_lengths * 16 * 3)
    never, first = word_curves.sweep_words(model, words, [WindowRule(0.0), WindowRule(1.1)], fallback=0).costs
    (bare,) = word_curves.sweep_words(model, words, [WindowRule(0.0, copied=False)], fallback=0).costs
    assert bare == pytest.approx(never), "all pieces stay"
    kept, dropped = (
        word_curves.sweep_words(model, words, [WindowRule(0.85, copied=copied)], fallback=0).costs[0]
        for copied in (True, False)
    )
    assert dropped < kept, "keys and values of words that left are not computed"
    heads = 2 * words.word_lengths * 16 * 3
    assert never == pytest.approx((full + 3 * heads).mean() / full.mean())
    assert first == pytest.approx((layer_flops(lengths, lengths, **sizes) + heads).mean() / full.mean())


def test_control_keeps_the_histogram_and_given_exits_are_run():
    words, model = table(3), tagger()
    batch, rule = words.batch(np.arange(9)), WindowRule(0.8)
    tags, exits, pieces = run_words(model, batch, rule)
    again, counted = word_curves.run_given(model, batch, exits)
    assert torch.equal(again[batch["real"]], tags[batch["real"]]) and torch.equal(counted, pieces)
    dealt = self_sampling.random_exits(exits, batch["real"], np.random.default_rng(0))
    assert torch.equal(dealt[batch["real"]].sort()[0], exits[batch["real"]].sort()[0]) and not torch.equal(dealt, exits)


def test_stage_two_counts_the_exit_layer_and_divides_by_all_words():
    losses = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])  # one sentence, two words, two layers
    real, exits = torch.tensor([[True, True]]), torch.tensor([[1, 2]])
    counted = exits.unsqueeze(-1) > torch.arange(2)
    assert counted.tolist() == [[[True, False], [True, True]]]
    # layer 1: (1 + 3) / 2, layer 2: 4 / 2; weights 1/3 and 2/3
    assert self_sampling.depth_weighted(losses, real, counted).item() == pytest.approx((2 + 2 * 2) / 3)
    assert self_sampling.depth_weighted(losses, real).item() == pytest.approx((2 + 2 * 3) / 3)


def test_sampled_exits_follow_stage_one_and_the_sandwich():
    words, model = table(4, count=10), tagger()
    stored, batch = self_sampling.stored_exits(model, words), words.batch(np.arange(10))
    uncertainty = stored["uncertainty"] * 0.3
    exits = self_sampling.sample_exits(
        uncertainty, batch["real"], np.random.default_rng(0), reaches=REACHES, thresholds=THRESHOLDS
    )
    assert (exits[-4:][batch["real"][-4:]] == 4).all() and (exits[:6][batch["real"][:6]] < 4).any()
    seen = {tuple(replay_words(uncertainty[5:6], batch["real"][5:6], WindowRule(t, k))[0].tolist())
            for t in THRESHOLDS for k in REACHES}  # fmt: skip
    assert tuple(exits[5].tolist()) in seen


def test_flooding_stops_at_what_stage_one_reached():
    words, model = table(5), tagger()
    stored = self_sampling.stored_exits(model, words)
    flooded = self_sampling.self_sampling_objective(
        words, stored, batch_size=9, seed=0, reaches=REACHES, thresholds=THRESHOLDS
    )
    plain = self_sampling.self_sampling_objective(
        words, stored, batch_size=9, seed=0, reaches=REACHES, thresholds=THRESHOLDS, flooding=False
    )
    batch = flooded.batch_at(0)
    full = {**batch, "exits": torch.where(batch["real"], 4, 0)}
    assert flooded.loss_fn(model, full).item() == pytest.approx(0.0, abs=1e-5)
    assert plain.loss_fn(model, full).item() > 0.1
    again = flooded.batch_at(0)
    assert torch.equal(batch["exits"], again["exits"]), "a batch is a function of its step"


def test_losses_and_uncertainty_ignore_what_is_no_word():
    words, model = table(6), tagger()
    batch = words.batch(np.arange(9))
    losses = self_sampling.word_losses(model(batch), batch["tags"])
    assert (losses[~batch["real"]] == 0).all() and losses.shape[-1] == 4
    assert entropy(model(batch)[0]).max() <= 1 + 1e-6
