import gzip
import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paperflows.components.data.check import check_folder, find_datasets, passed_over, split_files
from paperflows.components.data.jsonl import write_jsonl
from paperflows.components.data.sources import load
from paperflows.components.errors import InputError

CLASSIFIED = [{"id": number, "text": f"text {number}", "label": "ab"[number % 2]} for number in range(6)]
TRIPLES = {"head": "a", "relation": "r", "tail": "b"}
ENTITIES = [{"id": "a", "name": "A"}, {"id": "b", "name": "B"}]
GRAPH = {"text": "Ann sees Bob", "mentions": [{"start": 0, "end": 3, "entity": "a"}], "triples": [["a", "sees", "b"]]}

# good row, what to change in the second row, field and message wanted there
BAD_ROWS = {
    "label missing": (CLASSIFIED[0], {"label": ...}, "label", "expected, but missing"),
    "label misspelt": (CLASSIFIED[0], {"label": ..., "labl": "a"}, "label", "missing (got 'labl')"),
    "label of other type": (
        CLASSIFIED[0],
        {"label": 0},
        "label",
        "expected str as in the other rows of the dataset, got int",
    ),
    "label null": (CLASSIFIED[0], {"label": None}, "label", "expected a string or an integer, got None"),
    "label true": (CLASSIFIED[0], {"label": True}, "label", "got True"),
    "text empty": (CLASSIFIED[0], {"text": ""}, "text", "expected text that is not empty, got ''"),
    "text blank": (CLASSIFIED[0], {"text": " \t\u3000"}, "text", "expected text that is not empty"),
    "text a number": (CLASSIFIED[0], {"text": 3}, "text", "expected a string, got 3"),
    "optional misspelt": (CLASSIFIED[0], {"text_pari": "x"}, "text_pari", "expected 'text_pair'?"),
    "score a string": ({"text": "a", "text_pair": "b", "score": 1.5}, {"score": "1.5"}, "score", "expected a number"),
    "tags too few": ({"tokens": ["a", "b"], "tags": ["O", "O"]}, {"tags": ["O"]}, "tags", "expected 2 items"),
    "I- alone": ({"tokens": ["a", "b"], "tags": ["B-x", "I-x"]}, {"tags": ["O", "I-x"]}, "tags[1]", "follows O"),
    "I- of another": (
        {"tokens": ["a", "b"], "tags": ["B-x", "I-x"]},
        {"tags": ["B-y", "I-x"]},
        "tags[1]",
        "follows B-y",
    ),
    "head outside": (
        {"tokens": ["a", "b"], "tags": ["N", "V"], "heads": [2, 0], "deprels": ["x", "root"]},
        {"heads": [3, 0]},
        "heads[0]",
        "expected 0..2",
    ),
    "aspect elsewhere": (
        {"text": "good food", "aspect": "food", "from": 5, "to": 9, "label": "positive"},
        {"from": 4, "to": 8},
        "aspect",
        "expected text[4:8] = ' foo', got 'food'",
    ),
    "aspect beyond": (
        {"text": "good food", "aspect": "food", "from": 5, "to": 9, "label": "positive"},
        {"to": 10},
        "to",
        "expected from < to <= 9",
    ),
    "span beyond": (
        {"tokens": ["a"], "entities": [{"start": 0, "end": 1, "type": "X"}], "relations": []},
        {"entities": [{"start": 0, "end": 2, "type": "X"}]},
        "entities[0]",
        "expected start < end <= 1",
    ),
    "relation to nothing": (
        {"tokens": ["a"], "entities": [{"start": 0, "end": 1, "type": "X"}], "relations": []},
        {"relations": [{"head": 0, "tail": 1, "type": "r"}]},
        "relations[0]",
        "expected two different entities below 1",
    ),
    "head mention beyond": (
        {
            "tokens": ["a", "b"],
            "head": {"name": "a", "entity": "Q1", "mention": [0]},
            "tail": {"name": "b", "entity": "Q2", "mention": [1]},
            "label": "P1",
        },
        {"tail": {"name": "b", "entity": "Q2", "mention": [2]}},
        "tail.mention",
        "below 2, got 2",
    ),
    "choice beyond": (
        {"text": "x", "choices": ["a", "b"], "answer": 1},
        {"answer": 2},
        "answer",
        "expected a number below 2",
    ),
    "chain without model": (
        {"question": "q", "answer": "1", "chains": [{"model": "m", "text": "t", "answer": None}]},
        {"chains": [{"text": "t", "answer": None}]},
        "chains[0].model",
        "missing",
    ),
    "passages nowhere": ({"question": "q", "answers": ["a"]}, {"passages": ["p1"]}, "passages", "but there is none"),
    "correct not 0 or 1": ({"text": "a", "correct": [0, 1]}, {"correct": [0, 2]}, "correct[1]", "got 2"),
    "image outside": (
        {"image": "a.png", "text": "x"},
        {"image": "../../etc/passwd"},
        "image",
        "inside the dataset's folder",
    ),
    "image absent": ({"image": "a.png", "text": "x"}, {"image": "b.png"}, "image", "does not exist"),
    "image name too long": ({"image": "a.png", "text": "x"}, {"image": "b" * 5000}, "image", "File name too long"),
    "captions one": ({"captions": ["a", "b"]}, {"captions": ["a"]}, "captions", "at least 2"),
    "scores infinite": (
        {"pair": 0, "candidate": "a", "reference": "b", "scores": {"BLEU": 0.5}},
        {"scores": {"BLEU": "0.5"}},
        "scores",
        "expected a number",
    ),
}


def folder_in(root, name):
    (root / name).mkdir()
    return root / name


def dataset(folder: Path, **splits: list[dict]) -> Path:
    for split, rows in splits.items():
        write_jsonl(folder / f"{split}.jsonl", rows)
    return folder


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_row_is_named_with_file_line_and_field(tmp_path, case):
    good, change, field, message = BAD_ROWS[case]
    (tmp_path / "a.png").touch()
    bad = {key: value for key, value in (good | change).items() if value is not ...}
    folder = dataset(tmp_path, train=[good, bad] if "id" not in good else [good, bad | {"id": 1}])
    problem = check_folder(folder).problems[0]
    assert (problem.line, problem.field) == (2, field)
    assert message in problem.message
    assert str(problem).startswith(f"{folder}/train.jsonl:2: field '{field}': ")
    with pytest.raises(InputError) as caught:
        load(tmp_path, tmp_path.name)
    assert str(caught.value) == str(problem)


@pytest.mark.parametrize("good", [good for good, *_ in BAD_ROWS.values()], ids=list(BAD_ROWS))
def test_the_good_rows_of_the_table_are_accepted(tmp_path, good):
    (tmp_path / "a.png").touch()
    assert check_folder(dataset(tmp_path, train=[good])).problems == ()


def test_text_graph_and_triples_need_their_entities(tmp_path):
    (graph, triples) = (tmp_path / "graph", tmp_path / "triples")
    graph.mkdir(), triples.mkdir()
    assert "needs a split 'entities'" in str(check_folder(dataset(triples, train=[TRIPLES])).problems[0])
    assert check_folder(dataset(triples, entities=ENTITIES)).ok
    assert check_folder(dataset(graph, entities=ENTITIES, train=[GRAPH])).ok
    unknown = GRAPH | {"mentions": [{"start": 0, "end": 3, "entity": "c"}]}
    beyond = GRAPH | {"mentions": [{"start": 9, "end": 13, "entity": "b"}]}
    found = check_folder(dataset(graph, train=[GRAPH, unknown, beyond])).problems
    assert [(one.line, one.field) for one in found] == [(2, "mentions"), (3, "mentions[0]")]
    assert "expected an id of split 'entities', got 'c'" in found[0].message


def test_passages_that_questions_refer_to_must_exist(tmp_path):
    question = {"question": "q", "answers": ["a"], "passages": ["p1"]}
    dataset(tmp_path, passages=[{"id": "p1", "text": "t"}], test=[question])
    assert check_folder(tmp_path).ok
    dataset(tmp_path, test=[question, question | {"passages": ["p1", "p2"]}])
    assert "got 'p2'" in str(check_folder(tmp_path).problems[0])


def test_problems_are_collected_up_to_the_limit(tmp_path):
    rows = [row | ({"text": ""} if row["id"] % 2 else {}) for row in CLASSIFIED * 3]
    dataset(tmp_path, train=[row | {"id": number} for number, row in enumerate(rows)])
    assert [one.line for one in check_folder(tmp_path, max_errors=4).problems] == [2, 4, 6, 8]
    assert len(check_folder(tmp_path, max_errors=100).problems) == 9


def test_repeated_ids_are_listed(tmp_path):
    dataset(tmp_path, train=[*CLASSIFIED, CLASSIFIED[1] | {"text": "other"}, CLASSIFIED[4]])
    (problem,) = check_folder(tmp_path).problems
    assert (problem.line, problem.field) == (7, "id")
    assert "2 repeated: 1 in lines 2 and 7; 4 in lines 5 and 8" in problem.message


def test_rows_of_another_type_and_unknown_fields(tmp_path):
    dataset(tmp_path, train=CLASSIFIED, test=[{"text": "a", "text_pair": "b", "score": 1.0}])
    assert "expected rows of task type" in str(check_folder(tmp_path).problems[0])
    (other := tmp_path / "other").mkdir()
    dataset(other, train=[{"sentence": "x", "sentiment": 1}])
    problem = str(check_folder(other).problems[0])
    assert "no task type has the fields ['sentence', 'sentiment']. Such as: text and label" in problem
    dataset(other, train=[{"text_pair": "x", "score": 1}])
    assert "Nearest: pair regression, which lacks ['text']" in str(check_folder(other).problems[0])


def test_a_first_row_that_lacks_what_the_others_have_is_named_itself(tmp_path):
    dataset(tmp_path, train=[{"id": 9, "text": "x"}, *CLASSIFIED])
    problem = check_folder(tmp_path).problems[0]
    assert (problem.line, problem.field) == (1, "label")


def test_empty_split_and_empty_folder(tmp_path):
    (tmp_path / "train.jsonl").touch()
    assert "empty split" in str(check_folder(tmp_path).problems[0])
    (empty := tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="found none"):
        check_folder(empty)
    with pytest.raises(InputError, match="there is none"):
        check_folder(tmp_path / "nowhere")


def test_warnings_name_leaks_labels_and_unread_fields(tmp_path):
    test = [{"id": 0, "text": "text 0", "label": "c", "annotator": 7}]
    warnings = check_folder(dataset(tmp_path, train=CLASSIFIED, test=test)).warnings
    assert warnings == (
        "1 different texts of test also occur in train",
        "fields that no task reads: annotator",
        "labels that train does not have: c",
    )


def test_a_leak_is_one_whatever_its_case_and_into_validation_too(tmp_path):
    leaked = [{"id": 0, "text": "TEXT  0 ", "label": "a"}]
    warnings = check_folder(dataset(tmp_path, train=CLASSIFIED, validation=leaked, test=leaked)).warnings
    assert set(warnings) >= {f"1 different texts of {split} also occur in train" for split in ("validation", "test")}


def test_a_dataset_without_a_test_split_is_told(tmp_path):
    (note,) = check_folder(dataset(folder_in(tmp_path, "a"), train=CLASSIFIED)).warnings
    assert note.startswith("no split named test")
    assert not check_folder(dataset(folder_in(tmp_path, "b"), sources=CLASSIFIED)).warnings
    assert not check_folder(dataset(folder_in(tmp_path, "c"), train=[{"text": "only read"}])).warnings


def test_a_stray_file_among_datasets_hides_none_of_them(tmp_path):
    dataset(folder_in(tmp_path, "tickets"), train=CLASSIFIED)
    (tmp_path / "notes.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match=r"holds split files \(notes.jsonl\) and datasets \(tickets\)"):
        find_datasets(tmp_path)


def test_the_digest_is_of_the_content_not_of_its_form(tmp_path):
    plain = dataset(folder_in(tmp_path, "plain"), train=CLASSIFIED)
    before = check_folder(plain).sha256
    (packed := tmp_path / "packed").mkdir()
    lines = [json.dumps(dict(reversed(row.items())), indent=None) for row in CLASSIFIED]
    (packed / "train.jsonl.gz").write_bytes(gzip.compress(("\ufeff" + "\r\n".join(lines)).encode()))
    assert check_folder(packed).sha256 == before == load(plain, plain.name).sha256
    dataset(plain, train=[CLASSIFIED[0] | {"label": "b"}, *CLASSIFIED[1:]])
    assert check_folder(plain).sha256 != before


def test_links_and_double_splits_are_refused(tmp_path):
    (tmp_path / "outside.jsonl").write_text('{"text": "secret"}\n')
    (root := tmp_path / "root").mkdir()
    (data := root / "data").mkdir()
    (data / "train.jsonl").symlink_to(tmp_path / "outside.jsonl")
    assert "a link out of the dataset's folder" in str(check_folder(data).problems[0])
    (data / "train.jsonl").unlink()
    dataset(data, train=CLASSIFIED)
    write_jsonl(data / "train.jsonl.gz", CLASSIFIED)
    assert "also given by train.jsonl" in str(check_folder(data).problems[0])
    (root / "linked").symlink_to(tmp_path)
    with pytest.raises(InputError, match="a link out of"):
        find_datasets(root)


def test_splits_by_other_names_are_told(tmp_path):
    notes = check_folder(dataset(tmp_path, Train=CLASSIFIED, dev=CLASSIFIED, test=CLASSIFIED)).warnings
    assert {"split Train: flows read a split named train", "split dev: flows read a split named validation"} <= set(
        notes
    )
    (known := tmp_path / "known").mkdir()
    notes = check_folder(dataset(known, validation=CLASSIFIED, dev=CLASSIFIED, test=CLASSIFIED)).warnings
    assert not any("flows read" in note for note in notes), "both may be meant"


def test_other_forms_of_data_are_named(tmp_path):
    (tmp_path / "sheet").mkdir()
    (tmp_path / "sheet" / "train.csv").write_text("text,label\n")
    dataset(folder_in(tmp_path, "good"), train=CLASSIFIED)
    (tmp_path / "notes").mkdir()
    assert passed_over(tmp_path) == {"sheet": ["train.csv"]}
    with pytest.raises(InputError, match="found none but train.csv"):
        split_files(tmp_path / "sheet")
    with pytest.raises(InputError, match="found none but train.csv"):
        load(tmp_path, "sheet")


def test_find_datasets(tmp_path):
    for name in ("b", "a", "empty"):
        (tmp_path / name).mkdir()
    dataset(tmp_path / "a", train=CLASSIFIED)
    dataset(tmp_path / "b", train=CLASSIFIED)
    assert list(find_datasets(tmp_path)) == ["a", "b"]
    assert find_datasets(tmp_path / "a") == {"a": tmp_path / "a"}


LINES = [json.dumps(row, ensure_ascii=False).encode() for row in CLASSIFIED]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_mutated_line_is_accepted_unchanged_or_named(tmp_path, data):
    index = data.draw(st.integers(0, len(LINES) - 1))
    lines, row = list(LINES), CLASSIFIED[index]
    kind = data.draw(st.sampled_from(["delete", "duplicate", "type", "drop field", "insert", "cut", "flip"]))
    named = {index + 1}
    if kind == "delete":
        del lines[index]
    elif kind == "duplicate":
        lines.insert(index, lines[index])
        named = {index + 2}
    elif kind == "type":
        field = data.draw(st.sampled_from(list(row)))
        value = data.draw(st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.just([]) | st.just({}))
        lines[index] = json.dumps(row | {field: value}).encode()
    elif kind == "drop field":
        field = data.draw(st.sampled_from(list(row)))
        lines[index] = json.dumps({key: value for key, value in row.items() if key != field}).encode()
    else:
        place = data.draw(st.integers(0, len(lines[index]) - 1))
        new = b"" if kind == "cut" else data.draw(st.binary(min_size=1, max_size=3))
        rest = lines[index][place + (kind != "insert") :] if kind != "cut" else b""
        lines[index] = lines[index][:place] + new + rest
        named |= {index + 1 + extra for extra in range(lines[index].count(b"\n") + 1)}
    (tmp_path / "train.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    checked = check_folder(tmp_path, max_errors=100)
    lines_named = {problem.line for problem in checked.problems}
    if checked.problems:
        clash = f" {index + 1} and " if min(lines_named) > index + 1 else f" and {index + 1}"
        assert lines_named <= named or all(one.field == "id" and clash in one.message for one in checked.problems)
    else:
        rows = load(tmp_path, tmp_path.name).splits["train"]
        kept = [row for row in CLASSIFIED if row["id"] != CLASSIFIED[index]["id"]]
        assert [row for row in rows if row in kept] == kept


@pytest.mark.skipif("PAPERFLOWS_DATA" not in os.environ, reason="PAPERFLOWS_DATA names no folder of datasets")
def test_every_dataset_of_the_given_folder_passes():
    start = time.perf_counter()
    checks = [check_folder(path) for path in find_datasets(Path(os.environ["PAPERFLOWS_DATA"])).values()]
    assert checks
    assert {check.name: [str(problem) for problem in check.problems] for check in checks if not check.ok} == {}
    assert time.perf_counter() - start < 60
