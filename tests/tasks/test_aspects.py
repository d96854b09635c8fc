"""Which aspects and treebank sentences are read, on hand-made rows."""

import json

import pytest
from safetensors.numpy import load_file

from paperflows.components.errors import InputError
from paperflows.tasks.aspects import collect_aspects, measure_trees
from paperflows.tasks.store import GOLD, GROUPS, new_artifact, open_artifact
from paperflows.tasks.syntax import collect_treebank, control_trees, train_parser


def dataset(**splits):
    with new_artifact() as (folder, artifact):
        for split, rows in splits.items():
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {**artifact, "name": "mine", "content": "x", "rows": {s: len(r) for s, r in splits.items()}, "task": "t"}


def aspect(text, term, label="good"):
    start = text.index(term)
    return {"text": text, "aspect": term, "from": start, "to": start + len(term), "label": label}


TRAIN = [
    aspect("the food was fine", "food"),
    aspect("the food was fine", "fine", "bad"),
    aspect("a slow waiter", "waiter", "bad"),
]
HELD = [aspect("nice wine here", "wine")]
ALL = {"train": 9, "validation": 9, "test": 9}


def test_aspects_of_a_sentence_stay_in_one_split(in_project):
    held = [*HELD, aspect("a slow waiter", "slow", "bad")]
    found = collect_aspects.fn(dataset(train=TRAIN, validation=held, test=[aspect("bad wine", "wine", "bad")]), 9, ALL)
    assert found["counts"]["left_out.shared"] == 1, "the waiter is of validation, so train must do without"
    rows = [json.loads(line) for line in (open_artifact(found) / "aspects.jsonl").open()]
    by_split = {split: {tuple(r["words"]) for r in rows if r["split"] == split} for split in ALL}
    assert not by_split["train"] & by_split["validation"] and found["counts"]["train"] == 2


def test_aspects_of_a_sentence_are_one_group(in_project):
    test = [
        aspect("good wine bad food", "wine"),
        aspect("awful soup", "soup"),
        aspect("good wine bad food", "food", "bad"),
    ]
    found = collect_aspects.fn(dataset(train=TRAIN, validation=HELD, test=test), 9, ALL)
    groups, gold = (load_file(open_artifact(found) / file)["mine"] for file in (GROUPS, GOLD))
    assert groups[0] == groups[2] != groups[1] and [found["labels"][int(g)] for g in gold] == ["good", "good", "bad"]
    chains = control_trees.fn(found, "left_chain", 0)
    closeness = measure_trees.fn(found, chains, "left_chain")
    kept = load_file(open_artifact(closeness) / GROUPS)["mine"]
    assert kept.tolist() == groups.tolist() and len(kept) == closeness["count"], "all have a sentiment word"


def test_only_the_first_sentences_get_trees_with_all_their_aspects(in_project):
    some = {"train": 1, "validation": 9, "test": 9}
    found = collect_aspects.fn(dataset(train=TRAIN, validation=HELD, test=[aspect("bad wine", "wine", "bad")]), 9, some)
    assert (found["counts"]["train"], found["counts"]["train.with_trees"]) == (3, 2)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"validation": [aspect("odd wine", "wine", "mixed")]}, "label 'mixed' of a validation aspect"),
        ({"validation": [aspect("far too many words about one wine", "wine")]}, "no aspect of validation"),
        ({"train": []}, "no aspect of train"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused_at_once(in_project, changed, said):
    splits = {"train": TRAIN, "validation": HELD, "test": [aspect("bad wine", "wine", "bad")]} | changed
    with pytest.raises(InputError, match=said):
        collect_aspects.fn(dataset(**splits), 5, ALL)


def test_sentences_of_a_treebank_are_drawn_from_all_of_it(in_project):
    rows = [{"tokens": ["a", "b", str(i)], "heads": [0, 1, 1]} for i in range(100)]
    found = collect_treebank.fn(dataset(test=rows), 9, 10)
    numbers = [int(json.loads(line)["words"][2]) for line in (open_artifact(found) / "sentences.jsonl").open()]
    assert len(numbers) == 10 and numbers == sorted(numbers) and numbers[-1] > 50
    with pytest.raises(InputError, match="the train split needs `heads`"):
        train_parser.fn(dataset(train=[{"tokens": ["a", "b"]}]), "minilm", 8, 1, 1, 0.1, 5, 0, "cpu")
