"""What a user's own attributes and scores meet, and which pairs and metrics are counted where."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from paperflows.components.data.jsonl import write_jsonl
from paperflows.components.errors import InputError
from paperflows.flows.metric_bias import without_variants
from paperflows.tasks import bias
from paperflows.tasks.data import DatasetArtifact
from paperflows.tasks.generation_metrics import PAIRS, PairsToScore
from paperflows.tasks.remarks import noting
from paperflows.tasks.store import OUTPUTS, new_artifact

ALL = ["age", "gender", "physical-appearance", "race", "religion", "socioeconomic"]


def recorded(*scores):
    rows = [{"id": i, "pair": i // 2, "candidate": "c", "reference": "r"} for i in range(len(scores))]
    rows = [row | ({"scores": {"BLEU": s}} if s is not None else {}) for row, s in zip(rows, scores, strict=True)]
    with new_artifact() as (folder, artifact):
        write_jsonl(folder / "age.jsonl", rows)
    return DatasetArtifact(
        **artifact, name="mine", source="folder", task="minimal pairs", content="", rows={"age": len(rows)}, warnings=[]
    )  # fmt: skip


def test_recorded_bias_is_of_the_first_pairs_that_are_asked_for(in_project):
    data = recorded(0.0, 1.0, 0.5, 0.5)
    assert bias.recorded_bias.fn(data)["bleu"]["bias"] == {"age": 50.0}
    assert bias.recorded_bias.fn(data, 1)["bleu"]["bias"] == {"age": 100.0}
    assert bias.recorded_bias.fn(recorded(None, None)) == {}


def test_a_row_without_the_scores_that_others_have_is_named(in_project):
    with pytest.raises(InputError, match=r"'mine', split age, row 3: scores has no 'BLEU'"):
        bias.recorded_bias.fn(recorded(0.0, 1.0, 0.5, None))


def test_families_of_metrics_are_told_by_their_names():
    ngram = ["bleu", "bleu-4", "sacrebleu", "rouge-l", "rouge1", "rougel", "ter", "chrf++", "nist", "meteor"]
    models = ["bleurt-bert-tiny", "bertscore-roberta-base", "bartscore-bart-base-f", "moverscore", "prism-f", "comet"]
    with noting() as notes:
        assert bias.metric_families([*models, *ngram]) == (ngram, models) and not notes
        assert bias.metric_families(["length"]) == ([], [])
    assert "length" in notes[0]


def test_a_variant_is_not_counted_beside_its_metric():
    assert without_variants(["bleu", "bleu-whitespace", "chrf"]) == ["bleu", "chrf"]
    assert without_variants(["bleu-whitespace", "chrf"]) == ["bleu-whitespace", "chrf"]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([["gendre"]], "no attribute 'gendre'"),
        ([["age"], ["age"]], "'age' stands there 2 times"),
        ([ALL], "no word list"),
    ],
)
def test_held_out_groups_that_cannot_be_are_refused(groups, message):
    with pytest.raises(InputError, match=rf"adapters\.held_out: .*{message}"):
        bias.held_out_groups(groups, ALL)


def test_held_out_attributes_that_the_data_has_not_are_left_out_and_named():
    groups = [["age", "gender", "religion"], ["race"]]
    with noting() as notes:
        assert bias.held_out_groups(groups, ["gender", "nationality"]) == [["gender"]]
    assert any("age, religion, race" in note for note in notes) and any("nationality" in note for note in notes)
    assert bias.held_out_groups([["nationality"]], ["nationality"]) == [["nationality"]]


def test_counterfactuals_do_not_need_the_attributes_of_the_data(in_project):
    with new_artifact() as (folder, sentences):
        write_jsonl(folder / "sentences.jsonl", [{"text": f"The man of number {i} waits."} for i in range(9)])
    assert bias.augment_counterfactually.fn(sentences, ["gender"], 3, 0)["path"]
    with new_artifact() as (folder, things):
        write_jsonl(folder / "sentences.jsonl", [{"text": "The table is green."}])
    with pytest.raises(InputError, match=r"datasets\.sentences"):
        bias.augment_counterfactually.fn(things, [], 3, 0)


def test_neutral_pairs_have_no_word_of_a_list_on_either_side():
    texts = [("A cat sleeps.", "A cat lies."), ("He sleeps.", "A cat lies."), ("A cat.", "Her middle-aged cat.")]
    assert bias.neutral_pairs([{"text": a, "text_pair": b} for a, b in texts]) == [texts[0]]


def test_words_are_told_apart_by_digits_and_number_and_pairs_left_out_are_counted(in_project):
    texts = [
        "He was only 18.", "He was only 30.",
        "A young one.", "An old one.",
        "old young old", "old young young",
        "a cat and dog", "a dog and cat",
    ]  # fmt: skip
    with new_artifact() as (folder, artifact):
        write_jsonl(folder / PAIRS, [{"group": "age", "candidate": t, "reference": "r"} for t in texts])
    pairs = PairsToScore(**artifact, groups=["age"], human=[])
    with new_artifact() as (folder, artifact):
        save_file({"age": np.array([8.0, 2.0, 4.0, 1.0])}, folder / OUTPUTS)
    found = bias.split_by_list.fn(pairs, artifact)
    assert found["unlisted"] == 8.0 and found["unlisted.pairs"] == 1
    assert found["listed"] == 3.0 and found["listed.pairs"] == 2
    assert found["left_out"] == 1.0 and found["left_out.pairs"] == 1
