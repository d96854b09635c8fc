from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperflows.components.decoding.configurations import (
    GREEDY,
    Configuration,
    as_rows,
    check_grid,
    draw,
    grid_words,
    make,
    parse_words,
)
from paperflows.components.decoding.pruning import shortlist, walk
from paperflows.components.errors import InputError

GRID = {"temperature": [0, 0.7, 1.3], "top_p": [0.8, 1.0], "top_k": [5, 0], "repetition_penalty": [1.0, 1.3]}
configurations = st.builds(
    lambda *values: make(dict(zip(GRID, values, strict=True))), *(st.sampled_from(values) for values in GRID.values())
)


@given(configurations)
def test_what_is_written_is_read_back(configuration):
    read, valid = parse_words(configuration.words(GRID), GRID)
    assert valid
    assert read.effective() == configuration.effective()


@given(st.lists(st.sampled_from([*grid_words(GRID), "<temperature=9>", "<top_p=0.1>", "the", "<pad>"]), max_size=6))
def test_anything_said_becomes_a_legal_configuration(words):
    read, valid = parse_words(words, GRID)
    for name, values in GRID.items():
        default = getattr(Configuration(), name)
        assert min(values) <= getattr(read, name) <= max(values) or getattr(read, name) == default
    assert valid == (len(words) == 4 and read.words(GRID) == words) or read.temperature == 0


def test_words_out_of_order_missing_or_out_of_range_are_invalid():
    good = Configuration(0.7, 0.8, 5, 1.3)
    assert parse_words(good.words(GRID), GRID) == (good, True)
    assert parse_words(good.words(GRID)[::-1], GRID) == (good, False)
    assert parse_words(good.words(GRID)[:3], GRID) == (Configuration(0.7, 0.8, 5, 1.0), False)
    assert parse_words(["<temperature=9>", *good.words(GRID)[1:]], GRID) == (Configuration(1.3, 0.8, 5, 1.3), False)


def test_greedy_has_one_spelling():
    assert Configuration(0.0, 0.8, 5, 1.0).words(GRID) == GREEDY.words(GRID)


def test_random_settings_are_even_over_each_settings_own_values():
    """Greedy is one temperature of three, though it has fewer different configurations than the others."""
    drawn = draw(GRID, 6000, [0, 1])
    assert Counter(c.temperature for c in drawn) == {t: pytest.approx(2000, abs=150) for t in GRID["temperature"]}
    sampled = Counter(c for c in drawn if c.temperature > 0)
    assert len(sampled) == 2 * 2 * 2 * 2
    assert all(count == pytest.approx(250, abs=60) for count in sampled.values())
    assert {c for c in drawn if c.temperature == 0} == {GREEDY, Configuration(0.0, 1.0, 0, 1.3)}
    assert drawn == draw(GRID, 6000, [0, 1]) != draw(GRID, 6000, [0, 2])


@pytest.mark.parametrize(
    "wrong", [{"temperature": [-1]}, {"top_p": [0.0]}, {"top_k": [2.5]}, {"repetition_penalty": []}, {"beams": [2]}]
)
def test_a_grid_that_cannot_be_names_the_setting(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        check_grid({**GRID, **wrong})


def test_rows_hold_the_settings_in_order():
    rows = as_rows([GREEDY, Configuration(0.7, 0.8, 5, 1.3)])
    assert rows.temperature.tolist() == pytest.approx([0.0, 0.7])
    assert rows.top_k.tolist() == [0, 5]


def test_the_walk_finds_the_best_of_a_separable_score_and_asks_once_each():
    best, asked = Configuration(1.3, 0.8, 5, 1.3), []

    def score(some):
        asked.extend(some)
        return [
            -abs(c.temperature - best.temperature) - abs(c.top_p - best.top_p)
            - abs(c.top_k - best.top_k) - abs(c.repetition_penalty - best.repetition_penalty)
            for c in some
        ]  # fmt: skip

    seen = walk(score, GRID, Configuration(0.7, 1.0, 0, 1.0))
    assert max(seen, key=lambda c: seen[c]) == best
    assert len(asked) == len(set(asked)) == len(seen)
    assert len(seen) <= 1 + sum(len(values) for values in GRID.values())


def test_the_walk_sees_what_needs_both_a_temperature_and_a_cut_though_greedy_beats_every_temperature_alone():
    def score(some):
        return [
            0.6 + 0.1 * (c.repetition_penalty == 1.3) if c.temperature == 0
            else {0.7: 0.5, 1.3: 0.1}[c.temperature] + 0.3 * (c.top_p == 0.8)
            for c in some
        ]  # fmt: skip

    seen = walk(score, GRID, Configuration(1.3, 1.0, 0, 1.0))
    best = max(seen, key=lambda c: seen[c])
    assert (best.temperature, best.top_p) == (0.7, 0.8)
    assert seen[Configuration(0.0, 1.0, 0, 1.3)] == pytest.approx(0.7)  # greedy is walked too
    assert len(seen) == 3 + 1 + 1 + 1 + 1  # temperatures, then what is new in top_p, top_k, penalty, greedy's penalty


def test_a_walk_without_greedy_or_with_greedy_alone_has_one_branch():
    for temperatures, expected in (([0.7, 1.3], 2 + 1 + 1 + 1), ([0], 2)):
        start = Configuration(temperatures[0], 1.0, 0, 1.0)
        assert len(walk(lambda some: [0.0] * len(some), {**GRID, "temperature": temperatures}, start)) == expected


def test_the_shortlist_keeps_each_familys_best_with_greedy_and_the_default():
    one, two, three = Configuration(0.7), Configuration(1.3), Configuration(1.3, 0.8)
    kept = shortlist({"a": {one: 0.9, two: 0.1}, "b": {two: 0.2, three: 0.8}}, keep=1)
    assert set(kept) == {GREEDY, Configuration(), one, three}
