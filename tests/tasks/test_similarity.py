import pytest

from paperflows.components.errors import InputError
from paperflows.tasks.similarity import _transfer_splits


def rows(count, name):
    return [{"text": f"{name}{i}", "label": "ab"[i % 2]} for i in range(count)]


def names(split):
    return [row["text"] for row in split]


def test_three_splits_are_used_as_they_are():
    train, validation, test = _transfer_splits("d", {s: rows(5, s) for s in ("train", "validation", "test")}, 3)
    assert names(train) == ["train0", "train1", "train2"] and len(validation) == 3 and len(test) == 5


def test_without_test_validation_is_never_used_to_choose():
    train, validation, test = _transfer_splits("d", {"train": rows(20, "train"), "validation": rows(4, "v")}, 20)
    assert names(test) == names(rows(4, "v")) and names(validation) == ["train18", "train19"] and len(train) == 18


def test_without_validation_the_end_of_train_stands_in():
    train, validation, test = _transfer_splits("d", {"train": rows(20, "train"), "test": rows(4, "t")}, 10)
    assert names(validation) == ["train9"] and len(train) == 9 and len(test) == 4
    assert not set(names(train)) & set(names(validation))


def test_nothing_to_test_on_is_named():
    with pytest.raises(InputError, match="'d': a transfer task needs"):
        _transfer_splits("d", {"train": rows(3, "train")}, 10)


def test_training_rows_of_one_label_are_refused():
    one = [row for row in rows(20, "train") if row["label"] == "a"]
    with pytest.raises(InputError, match="one label"):
        _transfer_splits("d", {"train": one, "test": rows(4, "t")}, 10)
