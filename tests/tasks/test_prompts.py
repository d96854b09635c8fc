"""The handful of examples that all few-shot flows draw, and what is refused before anything is trained."""

import json
from collections import Counter

import pytest

from paperflows.components.errors import InputError
from paperflows.components.models.tiny_bert import tiny_bert
from paperflows.flows.prompts import notes_on_shots
from paperflows.tasks.prompts import check_layers, draw_shots
from paperflows.tasks.store import new_artifact, open_artifact

TEMPLATE = {
    "t": {"pattern": "{text} {mask}", "words": {"a": "good", "b": "bad"}, "sentences": {"a": "good", "b": "bad"}}
}


def dataset(**splits):
    """So many rows of the labels a and b in each split, or rows of these labels."""
    with new_artifact() as (folder, artifact):
        for split, labels in splits.items():
            labels = "ab" * labels if isinstance(labels, int) else labels
            rows = [{"text": f"{split} {i}", "label": label} for i, label in enumerate(labels)]
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = {split: 0 for split in splits}
    return {**artifact, "name": "t", "content": "x", "rows": rows, "task": "classification"}


def drawn(shots):
    files = {split: open_artifact(shots) / f"{split}.jsonl" for split in ("train", "dev", "test")}
    return {split: [json.loads(line) for line in file.read_text().splitlines()] for split, file in files.items()}


def test_both_come_from_train_where_that_is_enough(in_project):
    shots = draw_shots.fn(dataset(train=9, validation=9, test=4), 3, 99, TEMPLATE, 0)
    some = drawn(shots)
    assert {row["text"].split()[0] for split in ("train", "dev") for row in some[split]} == {"train"}
    assert Counter(row["label"] for row in some["dev"]) == {"a": 3, "b": 3}
    assert shots["short"] == {} and notes_on_shots([[shots]]) == []


def test_validation_gives_dev_where_train_has_too_few_for_both(in_project):
    some = drawn(shots := draw_shots.fn(dataset(train=5, validation=9, test=4), 4, 99, TEMPLATE, 0))
    assert [len(some[split]) for split in ("train", "dev")] == [8, 8]
    assert {row["text"].split()[0] for row in some["train"]} == {"train"}
    assert {row["text"].split()[0] for row in some["dev"]} == {"validation"}
    assert shots["short"] == {}


def test_the_report_says_what_each_class_has_for_training_and_dev(in_project):
    shots = draw_shots.fn(dataset(train=5, test=4), 4, 99, TEMPLATE, 0)
    (note,) = notes_on_shots([[shots]])
    assert note.startswith("t: fewer examples than `shots` asks for: ")
    assert "a has 2 in train and 3 in dev" in note and "b has 2 in train and 3 in dev" in note


@pytest.mark.parametrize(
    "splits",
    [{"train": "abc" * 9, "test": 4}, {"train": 9, "test": "abc"}, {"train": 3, "validation": "abc" * 3, "test": 4}],
)
def test_a_label_without_a_word_is_named_with_its_dataset_before_any_training(in_project, splits):
    with pytest.raises(InputError, match=r"dataset 't': its label 'c' is not in its template.*templates\.t"):
        draw_shots.fn(dataset(**splits), 2, 99, TEMPLATE, 0)


def test_layers_that_are_not_there_are_named(in_project):
    with new_artifact() as (folder, encoder):
        tiny_bert(vocab_size=50, width=8, layers=3, heads=2, positions=16, seed=0).save_pretrained(folder)
    check_layers(encoder, [1, 2])
    for layer in (0, 3):
        with pytest.raises(InputError, match=f"layer {layer}: the encoder has layers 1 to 2"):
            check_layers(encoder, [1, layer])
