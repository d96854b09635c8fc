import pytest

from paperflows.components.data.world import build
from paperflows.components.decoding.families import Item, items_of
from paperflows.components.decoding.recorded import scores_by_configuration
from paperflows.components.decoding.scores import Fluency, distinct, score_outputs
from paperflows.components.errors import InputError

ASK = ("Work out {}",)


def test_sums_are_read_from_the_marks_of_worked_solutions_once_each():
    rows = [{"solution": "He has <<3+4=7>>7, then <<7*12=84>>84."}, {"solution": "<<3+4=7>>7 <<1.5*2=3>>3"}]
    items = items_of("sums", rows, target="", wordings=ASK, max_words=9, seed=0)
    assert sorted((i.prompt, i.answer) for i in items) == [("Work out 3+4", "7"), ("Work out 7*12", "84")]


def test_a_family_without_its_field_or_without_short_rows_is_named():
    with pytest.raises(InputError, match=r"family translation.*'de'.*text"):
        items_of("translation", [{"text": "a"}], target="de", wordings=ASK, max_words=9, seed=0)
    with pytest.raises(InputError, match="at most 2 words"):
        items_of(
            "captions", [{"captions": ["one two three", "four five six"]}], target="", wordings=ASK, max_words=2, seed=0
        )


def test_copying_a_caption_scores_nothing_and_saying_it_otherwise_does():
    item = Item("", "A dog runs.", "The dog is running.", ("The dog is running.", "A brown dog runs fast."))
    copied, other, empty = score_outputs("captions", [item] * 3, ["A dog runs.", "The dog is running.", ""], None)
    assert copied == pytest.approx(0.0, abs=1e-9)
    assert other > 0.3
    assert empty == 0.0


def test_sums_are_right_or_wrong():
    item = Item("", "3+4", "7", ("7",))
    said = [" 7 ", "8", "", "3+4 = 7.", "7 or 8"]
    assert score_outputs("sums", [item] * 5, said, None) == [1.0, 0.0, 0.0, 1.0, 0.0]


def test_repeating_and_nonsense_score_below_plain_text():
    known = ["the cat sat on the mat", "the dog sat on the mat", "a cat ran to the dog"] * 5
    item = Item("", "", "", ("",))
    good, repeated, nonsense, empty = score_outputs(
        "continuation", [item] * 4,
        ["the cat sat on the mat", "the mat the mat the mat the mat", "xq zz vv kk jj", ""], Fluency(known, known),
    )  # fmt: skip
    assert good > repeated
    assert good > nonsense
    assert empty == 0.0


def test_distinct_bigrams_by_hand():
    assert distinct(["a", "b", "a", "b", "a"], 2) == 0.5  # ab ba ab ba
    assert distinct(["a", "b"], 4) == 1.0
    assert distinct([], 2) == 0.0


def test_trigram_probabilities_sum_to_one_over_the_vocabulary():
    model = Fluency(["a b a c", "b a"], ["a b"])
    # the words that can follow, the end, and one unknown word for the add-one mass
    total = sum(model._probability(("a", "b", word)) for word in ("a", "b", "c", "</s>", "unknown"))
    assert total == pytest.approx(1.0)


def test_recorded_chains_are_cut_to_what_every_question_has():
    def chain(style, temperature, answer):
        return {"style": style, "temperature": temperature, "answer": answer}

    rows = [
        {"answer": "7", "chains": [chain("cot", 0.4, "7"), chain("cot", 0.4, "8"), chain("pot", 0.4, "7")] * 2},
        {"answer": "1", "chains": [chain("cot", 0.4, "1"), chain("pot", 0.4, None)] * 2},
    ]
    names, scores = scores_by_configuration(rows)
    assert names == ["cot T=0.4", "pot T=0.4"]
    assert scores.tolist() == [[[1, 0], [1, 1]], [[1, 1], [0, 0]]]
    with pytest.raises(InputError, match="two of each"):
        scores_by_configuration([{"answer": "1", "chains": [chain("cot", 0.4, "1")]}])


def test_the_built_in_sums_are_right_and_no_input_is_in_two_splits():
    splits = build("world_sums")
    for rows in splits.values():
        for item in items_of("sums", rows, target="", wordings=ASK, max_words=5, seed=0):
            assert eval(item.source) == int(item.answer)
    sources = [{row["solution"] for row in rows} for rows in splits.values()]
    assert not sources[0] & sources[1] | sources[0] & sources[2] | sources[1] & sources[2]
    assert all(len(set(row["captions"])) == 5 for row in build("world_tellings")["test"])
