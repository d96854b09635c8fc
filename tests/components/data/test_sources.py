import dataclasses

import pytest

from paperflows.components.data.jsonl import write_jsonl
from paperflows.components.data.registry import HUB, HubDataset, answer_texts, contexts_to_passages, final_answer
from paperflows.components.data.sources import load
from paperflows.components.errors import InputError, ServiceError

ROWS = [{"id": number, "text": f"text {number}", "label": "ab"[number % 2]} for number in range(4)]


@pytest.fixture
def root(tmp_path):
    for name in ("sst2", "cr"):
        (tmp_path / "data" / name).mkdir(parents=True)
        write_jsonl(tmp_path / "data" / name / "train.jsonl", ROWS)
        write_jsonl(tmp_path / "data" / name / "test.jsonl.gz", ROWS[:2])
    write_jsonl(tmp_path / "secret.jsonl", ROWS)
    return tmp_path / "data"


def test_load_from_a_folder(root):
    found = load(root, "sst2")
    assert (found.name, found.source, found.task) == ("sst2", str(root / "sst2"), "classification")
    assert dict(found.splits) == {"test": ROWS[:2], "train": ROWS}
    assert found.warnings == ("2 different texts of test also occur in train",)
    assert load(root / "sst2", "sst2").sha256 == found.sha256
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.name = "other"


def test_only_the_wanted_splits_are_read(root):
    (root / "sst2" / "train.jsonl").write_text("not JSON")
    assert list(load(root, "sst2", splits=["test"]).splits) == ["test"]
    with pytest.raises(InputError, match=r"train\.jsonl:1: not JSON"):
        load(root, "sst2")
    with pytest.raises(InputError, match=r"split 'tset' is not in .*; did you mean 'test'.* There are: test, train"):
        load(root, "sst2", splits=["tset"])


@pytest.mark.parametrize(
    "name",
    ["../secret", "..", ".", "", "/etc", "a/../../secret", "sst2/../../secret", "a\\b", "sst2\0", "sst2/", "sst2\n"],
)
def test_names_that_leave_the_folder_are_refused(root, name):
    for source in (root, "builtin", "hub"):
        with pytest.raises(InputError, match="expected a plain name"):
            load(source, name)


def test_a_link_out_of_the_root_is_refused(root, tmp_path):
    (tmp_path / "outside").mkdir()
    write_jsonl(tmp_path / "outside" / "train.jsonl", ROWS)
    (root / "inside").symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match="a link out of"):
        load(root, "inside")


@pytest.mark.parametrize(
    ("source", "name", "near"),
    [("builtin", "world_st", "'world_sts'"), ("hub", "gsmk8", "'gsm8k'"), ("root", "sst", "'sst2'")],
)
def test_unknown_names_are_answered_with_near_ones(root, source, name, near):
    with pytest.raises(InputError, match=f"did you mean .*{near}.* There are: "):
        load(root if source == "root" else source, name)


def test_sources_do_not_stand_in_for_one_another(root):
    with pytest.raises(InputError, match="is not in builtin"):
        load("builtin", "sst2")
    with pytest.raises(InputError, match="is not in "):
        load(root, "world_sts")
    with pytest.raises(InputError, match="there is none"):
        load(root / "nowhere", "sst2")


@pytest.fixture
def local_hub(tmp_path):
    from datasets import Dataset

    folder = tmp_path / "hub"
    folder.mkdir()
    columns = {"sentence": ["good", "bad", "", "unlabelled"], "label": [1, 0, 1, -1], "idx": [0, 1, 2, 3]}
    Dataset.from_dict(columns).to_parquet(str(folder / "train.parquet"))
    Dataset.from_dict({"sentence": ["fine"], "label": [1], "idx": [9]}).to_parquet(str(folder / "test.parquet"))
    return HubDataset(
        id=str(folder),
        columns={"id": "idx", "text": "sentence", "label": "label"},
        splits={"train": "train", "test": "test"},
        labels=("negative", "positive"),
    )


def test_load_through_datasets(local_hub, tmp_path):
    found = load("hub", "mine", hub_registry={"mine": local_hub}, hub_cache=tmp_path / "cache")
    assert found.splits["train"] == [
        {"id": 0, "text": "good", "label": "positive"},
        {"id": 1, "text": "bad", "label": "negative"},
    ]
    assert found.splits["test"] == [{"id": 9, "text": "fine", "label": "positive"}]
    assert (found.source, found.task) == (f"hub:{local_hub.id}", "classification")
    assert any((tmp_path / "cache").iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"splits": {"train": "training"}}, "expected a split 'training', got"),
        ({"columns": {"text": "sentences", "label": "label"}}, "expected columns ['sentences'], got"),
    ],
)
def test_a_registry_that_does_not_fit_the_hub_is_named(local_hub, tmp_path, change, message):
    entry = dataclasses.replace(local_hub, **change)
    with pytest.raises(InputError) as caught:
        load("hub", "mine", hub_registry={"mine": entry}, hub_cache=tmp_path / "cache")
    assert message in str(caught.value)


def test_a_dataset_that_is_not_there_says_which_and_where(tmp_path):
    entry = HubDataset(id=str(tmp_path / "absent"), columns={"text": "text"}, unverified=True)
    with pytest.raises(ServiceError) as caught:
        load("hub", "mine", hub_registry={"mine": entry}, hub_cache=tmp_path / "cache")
    for part in (str(tmp_path / "absent"), str(tmp_path / "cache"), "hf download", "could not be confirmed"):
        assert part in str(caught.value)


def test_row_functions():
    assert final_answer({"solution": "2+2=4\n#### 1,234"})["answer"] == "1234"
    assert answer_texts({"answers": {"text": ["a", "b", "a"], "answer_start": [1, 2, 3]}})["answers"] == ["a", "b"]
    splits = contexts_to_passages({"test": [{"question": "q", "context": "c"}, {"question": "r", "context": "c"}]})
    assert splits["passages"] == [{"id": "p0", "text": "c"}]
    assert [row["passages"] for row in splits["test"]] == [["p0"], ["p0"]]


def test_registry_maps_to_fields_of_one_task_each():
    from paperflows.components.data.task_types import RowType, detect

    made_by = {"final_answer": {"answer"}}
    for name, entry in HUB.items():
        fields = {*entry.columns} - {"context"} | made_by.get(getattr(entry.convert, "__name__", ""), set())
        assert isinstance(detect(fields), RowType), name
        assert entry.labels is None or "label" in entry.columns, name
