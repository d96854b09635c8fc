"""The table of studies that `paperflows sync` writes into the README."""

import json
import shutil
from pathlib import Path

import pytest

from paperflows.components.errors import InputError
from paperflows.sync import studies, with_studies

RESULTS = Path(__file__).parent.parent.parent / "docs" / "results"
MARKS = "before\n<!-- studies: written by `paperflows sync` -->\nstale\n<!-- end of studies -->\nafter\n"


def test_a_study_is_a_row_with_its_first_claim_and_its_verdicts(tmp_path):
    folder = tmp_path / "docs" / "results"
    folder.mkdir(parents=True)
    shutil.copy(RESULTS / "claif.json", folder)
    report = json.loads((RESULTS / "claif.json").read_text(encoding="utf-8"))
    report["claims"] = report["claims"][:4]
    report["claims"][0] |= {"kind": "check", "statement": "Published numbers fit together"}
    for claim, verdict in zip(report["claims"][1:], ("fails", "holds", "fails"), strict=True):
        claim |= {"statement": "It helps", "ours": 0.5, "baseline": 0.25, "baseline_name": "none", "verdict": verdict}
        claim |= {"effect": 0.25, "ci95": [0.125, 0.5]}
    (folder / "claif.json").write_text(json.dumps(report), encoding="utf-8")
    row = studies(tmp_path).splitlines()[-1]
    assert row == (
        "| [claif](docs/results/claif.md) | It helps | 0.500 | 0.250 (none) | +0.250 [+0.125, +0.500] | > +0.000 "
        "| fails | 1, 2, 0 |"
    ), "a check is no finding"
    text = with_studies(MARKS, tmp_path)
    assert text.startswith("before\n") and text.endswith("<!-- end of studies -->\nafter\n")
    assert row in text and "stale" not in text and with_studies(text, tmp_path) == text


def test_a_readme_without_a_place_for_it_is_refused(tmp_path):
    with pytest.raises(InputError, match="marks"):
        with_studies("no marks here", tmp_path)
