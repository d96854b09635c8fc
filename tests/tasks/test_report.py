import json
import subprocess
import sys

import pytest

from paperflows.components.errors import InputError
from paperflows.tasks import plots
from paperflows.tasks.report import CONTRACT, claim_rows, markdown, number, read_report, write_json
from paperflows.tasks.versions import dvc_md5

CLAIM = {
    "id": "a_beats_b", "statement": "A beats B | truly", "metric": "accuracy", "ours": 0.8123, "baseline": 0.7,
    "baseline_name": "B", "effect": 0.1123, "margin": 0.0, "ci95": [0.05, 0.17], "n": 100, "seeds": 3,
    "paper": {"ours": 0.9, "baseline": None, "where": "table 2"}, "verdict": "holds",
}  # fmt: skip
REPORT = {
    "paper": "x", "title": "A title", "profile": "smoke", "data": {"source": "builtin", "datasets": {"d": "ab" * 32}},
    "model": "tiny", "device": "cpu", "seeds": [0, 1], "git": "abc", "seconds": 1.5, "claims": [CLAIM],
    "metrics": {"accuracy.d.ours": 0.8123, "pairs.kept": 12345.0}, "artifacts": [{"path": "artifacts/x", "md5": "1.dir"}],
}  # fmt: skip


def test_report_is_written_whole_and_read_back(tmp_path):
    write_json(tmp_path / "r.json", REPORT)
    assert read_report(tmp_path / "r.json") == REPORT
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_nan_is_refused_and_the_old_report_stays(tmp_path):
    write_json(tmp_path / "r.json", REPORT)
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "r.json", {**REPORT, "seconds": float("nan")})
    assert read_report(tmp_path / "r.json") == REPORT


@pytest.mark.parametrize("missing", CONTRACT)
def test_a_report_without_a_field_is_named(tmp_path, missing):
    write_json(tmp_path / "r.json", {k: v for k, v in REPORT.items() if k != missing})
    with pytest.raises(InputError, match=rf"r\.json: not a report, {missing} missing"):
        read_report(tmp_path / "r.json")


def test_markdown_holds_every_claim_and_metric():
    text = markdown({**REPORT, "notes": ["A note."]})
    assert (
        "| A beats B \\| truly | accuracy | 0.812 | 0.700 (B) | +0.112 | [+0.050, +0.170] | > +0.000 | holds | 3 |"
        in text
    )
    assert "| pairs.kept | 12,345 |" in text and "A note." in text and "`abababababab`" in text
    assert claim_rows(REPORT)[0]["paper"] == "0.900 / – (table 2)"


def test_a_ratio_is_no_signed_difference_and_what_it_must_clear_is_shown():
    ratio = {"compare": "ratio", "effect": 0.975, "margin": 0.97, "ci95": [0.94, 1.005], "lower_is_better": True}
    (row,) = claim_rows({"claims": [CLAIM | ratio | {"caveat": "no ratio", "kind": "check"}]})
    assert (row["effect"], row["95 % interval"], row["must be"]) == ("× 0.975", "[0.940, 1.005]", "< 0.970")
    assert row["claim"] == "A beats B | truly; no ratio; a check"


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (float("nan"), "NaN"), (0.12345, "0.123"), (12.34, "12.3"), (1234567, "1,234,567")])  # fmt: skip
def test_numbers(value, text):
    assert number(value) == text


def test_plots_are_pictures_and_equal_for_equal_numbers(tmp_path):
    for copy in ("a", "b"):
        folder = tmp_path / copy
        plots.draw_claims([CLAIM], folder / "claims.png")
        plots.draw_bars({"d": {"ours": [0.5, 0.6], "base": [0.4]}}, folder / "bars.png", ylabel="accuracy")
        plots.draw_lines({"ours": [(1, 0.1), (2, 0.3)]}, folder / "lines.png", xlabel="step", ylabel="loss")
        plots.draw_histogram({"scores": [0.1, 0.5, 0.5]}, folder / "histogram.png", xlabel="score")
    for name in ("claims", "bars", "lines", "histogram"):
        one, two = (tmp_path / copy / f"{name}.png" for copy in ("a", "b"))
        assert one.read_bytes().startswith(b"\x89PNG") and one.stat().st_size > 3000
        assert one.read_bytes() == two.read_bytes(), "no dates inside: DVC would see a change"


def test_md5_of_a_folder_is_the_one_dvc_gives(tmp_path):
    folder = tmp_path / "out"
    (folder / "sub").mkdir(parents=True)
    (folder / "b.txt").write_text("b")
    (folder / "sub" / "a.json").write_text(json.dumps({"ä": 1}))
    (folder / "sub-x.txt").write_text("")
    for command in (["init", "--no-scm", "-q"], ["add", "-q", "out"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=tmp_path, check=True)
    assert f"md5: {dvc_md5(folder)}" in (tmp_path / "out.dvc").read_text()


def test_the_leaderboard_is_a_table_by_dataset_the_best_first():
    row = {
        "dataset": "d",
        "method": "a",
        "score": 0.01,
        "area": None,
        "front_share": 0.25,
        "points": 4,
        "clamped": 1,
        "parameters": None,
    }
    rows = [row, {**row, "method": "b|c", "score": 0.2, "area": 0.1, "parameters": 22_500_000}]
    text = markdown({**REPORT, "leaderboard": rows})
    assert text.index("| d | b\\|c | +0.2000 | +0.1000 | 25% | 4 (1) | 22.5 M |") < text.index(
        "| d | a | +0.0100 | – | 25% | 4 (1) | – |"
    )
    assert "ELUE score" not in markdown(REPORT)
