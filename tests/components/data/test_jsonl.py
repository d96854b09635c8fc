import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperflows.components.data.jsonl import read_jsonl, write_jsonl
from paperflows.components.data.problems import DataError
from paperflows.components.errors import InputError

GOOD = b'{"text": "one"}\n{"text": "two"}\n'
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(max_codepoint=0x24F, min_codepoint=1)), inner, max_size=3)
    ),
    max_leaves=6,
)
ROWS = st.lists(st.dictionaries(st.sampled_from(["text", "id", "é", "标签"]), VALUES), max_size=5)


@given(rows=ROWS, suffix=st.sampled_from([".jsonl", ".jsonl.gz"]))
def test_what_is_written_is_read_back(tmp_path_factory, rows, suffix):
    path = tmp_path_factory.mktemp("rows") / f"train{suffix}"
    assert write_jsonl(path, rows) == len(rows)
    assert [row for _, row in read_jsonl(path)] == rows
    first = path.read_bytes()
    write_jsonl(path, rows)
    assert path.read_bytes() == first
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "content",
    [b"\xef\xbb\xbf" + GOOD, GOOD.replace(b"\n", b"\r\n"), GOOD.rstrip(), GOOD + b"\n \r\n\n"],
    ids=["BOM", "CRLF", "no last newline", "blank lines at the end"],
)
def test_accepted_variants_read_the_same(tmp_path, content):
    path = tmp_path / "train.jsonl"
    path.write_bytes(content)
    assert list(read_jsonl(path)) == [(1, {"text": "one"}), (2, {"text": "two"})]


REFUSED = {
    "trailing comma": (b'{"text": "x",}', "not JSON (col 14)"),
    "single quotes": (b"{'text': 1}", "not JSON (col 2)"),
    "two objects": (b'{"a": 1} {"b": 2}', "not JSON (col 10)"),
    "cut off": (b'{"text": "x', "not JSON (col 10)"),
    "NaN": (b'{"score": NaN}', "NaN is not JSON"),
    "Infinity": (b'{"score": -Infinity}', "-Infinity is not JSON"),
    "1e999": (b'{"score": 1e999}', "1e999 is too large"),
    "long integer": (b'{"score": ' + b"9" * 5000 + b"}", "too many digits"),
    "list": (b"[1, 2]", "expected a JSON object, got list"),
    "string": (b'"x"', "expected a JSON object, got str"),
    "key twice": (b'{"label": 1, "label": 2}', "key 'label' occurs twice"),
    "invalid UTF-8": (b'{"text": "\xff"}', "not UTF-8 (byte 10 of the line: 0xff)"),
    "surrogate": (b'{"text": "\\ud800"}', "field 'text': character U+D800"),
    "NUL": (b'{"a": {"b": ["\\u0000"]}}', "field 'a.b[0]': character U+0000"),
    "raw NUL": (b'{"text": "\0"}', "not JSON (col 11)"),
    "deep": (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
    "long line": (b'{"text": "' + b"x" * 5_000_000 + b'"}', "line longer than 4194304 bytes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_line_is_refused_with_its_number(tmp_path, case):
    line, message = REFUSED[case]
    path = tmp_path / "train.jsonl"
    path.write_bytes(GOOD + line + b"\n" + GOOD)
    with pytest.raises(InputError) as caught:
        list(read_jsonl(path))
    assert str(caught.value).startswith(f"{path}:3: ")
    assert message in str(caught.value)


def test_a_blank_line_between_rows_is_refused(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(b'{"a": 1}\n\n{"a": 2}\n')
    with pytest.raises(DataError, match=r"train\.jsonl:2: blank line"):
        list(read_jsonl(path))


def test_reading_goes_on_after_bad_lines_when_asked(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(b'{"a": 1}\nx\n{"a": 2}\n[]\n')
    errors = []
    rows = list(read_jsonl(path, on_error=errors.append))
    assert rows == [(1, {"a": 1}), (3, {"a": 2})]
    assert [error.problem.line for error in errors] == [2, 4]


@pytest.mark.parametrize("cut", [5, 12, 200, 400], ids=lambda cut: f"{cut} bytes")
def test_truncated_gzip_is_refused(tmp_path, cut):
    path = tmp_path / "train.jsonl.gz"
    rows = "".join(json.dumps({"text": str(number**3)}) + "\n" for number in range(200))
    path.write_bytes(gzip.compress(rows.encode())[:cut])
    with pytest.raises(InputError, match=r"damaged gzip file"):
        list(read_jsonl(path))


def test_plain_text_under_a_gzip_name_is_refused(tmp_path):
    path = tmp_path / "train.jsonl.gz"
    path.write_bytes(GOOD)
    with pytest.raises(InputError, match=r"train\.jsonl\.gz:1: damaged gzip"):
        list(read_jsonl(path))


@pytest.mark.parametrize("row", [{"x": float("nan")}, {"x": {1, 2}}, {"x": "\ud800"}], ids=["NaN", "set", "surrogate"])
def test_what_cannot_be_read_back_is_not_written_and_the_old_file_stays(tmp_path, row):
    path = tmp_path / "train.jsonl"
    path.write_bytes(GOOD)
    with pytest.raises(DataError, match="cannot be written"):
        write_jsonl(path, [{"x": 1}, row])
    assert path.read_bytes() == GOOD
    assert list(tmp_path.iterdir()) == [path]


def test_missing_file_and_other_names(tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        list(read_jsonl(tmp_path / "train.jsonl"))
    with pytest.raises(InputError, match=r"ends in \.jsonl"):
        list(read_jsonl(tmp_path / "train.json"))
