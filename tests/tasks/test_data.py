"""What was edited is read again: a dataset by either way to name its folder, its media, a model's files."""

import os
from unittest.mock import patch

import pytest

from paperflows.components.errors import InputError
from paperflows.tasks.data import _load_dataset, _state_of, load_dataset
from paperflows.tasks.policy import _stable
from paperflows.tasks.remarks import noting


@pytest.mark.parametrize("source", [".", "tickets"], ids=["folder of datasets", "the dataset itself"])
@pytest.mark.parametrize("name", ["train.jsonl", "png/a.png"])
def test_an_edited_file_of_a_dataset_changes_its_state(tmp_path, source, name):
    dataset = tmp_path / "tickets"
    (dataset / "png").mkdir(parents=True)
    (dataset / "train.jsonl").write_text('{"text": "a"}\n')
    (dataset / "png" / "a.png").write_bytes(b"1")
    before = _state_of(str(tmp_path / source), "tickets")
    assert _state_of(str(tmp_path / source), "tickets") == before != ""
    (dataset / name).write_text('{"text": "b"}\n')
    os.utime(dataset / name, ns=(1, 1))
    assert _state_of(str(tmp_path / source), "tickets") != before
    assert _state_of("builtin", "tickets") == _state_of(str(tmp_path), "bugs") == ""


def test_the_report_tells_what_may_be_meant_so(in_project, tmp_path):
    dataset = tmp_path / "data" / "tickets"
    dataset.mkdir(parents=True)
    for split in ("train", "test"):
        (dataset / f"{split}.jsonl").write_text('{"text": "a"}\n')
    with noting() as remarks:
        loaded = _load_dataset.fn(str(tmp_path / "data"), "tickets", [], "")
        assert loaded["warnings"] == ["1 different texts of test also occur in train"] and not remarks
        with patch("paperflows.tasks.data._load_dataset", lambda *_: loaded):
            load_dataset(str(tmp_path / "data"), "tickets")
    assert remarks == ["tickets: 1 different texts of test also occur in train."]


def test_a_split_that_a_flow_reads_is_missed_at_once(in_project, tmp_path):
    dataset = tmp_path / "data" / "tickets"
    dataset.mkdir(parents=True)
    (dataset / "train.jsonl").write_text('{"text": "a"}\n')
    with patch("paperflows.tasks.data._load_dataset", _load_dataset.fn):
        assert load_dataset(str(tmp_path / "data"), "tickets", splits=["train"])["rows"] == {"train": 1}
        with pytest.raises(
            InputError, match=r"'tickets' has no split validation and no split test \(it has train\); this"
        ):
            load_dataset(str(tmp_path / "data"), "tickets", splits=["train", "validation", "test"])


def test_new_weights_in_a_models_folder_are_another_input(tmp_path):
    model = tmp_path / "encoder"
    model.mkdir()
    settings = {"start": {"model": str(model)}, "kinds": ["minilm", "bert/base"]}
    plain = _stable(settings, "t")
    assert plain == settings, "a folder that holds no model is a name like any other"
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"1")
    first = _stable(settings, "t")
    (model / "model.safetensors").write_bytes(b"22")
    second = _stable(settings, "t")
    assert plain != first != second and first["kinds"] == second["kinds"] == settings["kinds"]
    for text in ("a\0/b", "/" * 5000, "他/她" * 100, "and/or " * 40 + "a" * 300):
        assert _stable({"text": text}, "t") == {"text": text}, "no name of a file, and no error"
