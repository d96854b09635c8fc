"""The twentieth paper, exactly as docs/add-a-paper.md gives it."""

import json
import re

import pytest
import yaml

from ..conftest import REPOSITORY

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_the_documented_paper_works_and_nothing_else_is_edited(connected):
    project = connected
    text = (REPOSITORY / "docs" / "add-a-paper.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", text, re.S))
    assert list(blocks) == ["components/evaluation/overlap.py", "tasks/overlap.py", "flows/overlap.py", "params.yaml"]
    for path, content in blocks.items():
        with (project.root / path).open("a", encoding="utf-8") as file:
            file.write(content)
    before = yaml.safe_load((project.root / "dvc.yaml").read_text())["stages"]["claif"]

    assert "overlap" in project.run("list").stdout
    assert project.run("sync").returncode == 0
    stages = yaml.safe_load((project.root / "dvc.yaml").read_text())["stages"]
    assert stages["claif"] == before
    deps = set(stages["overlap"]["deps"])
    assert {"components/evaluation/overlap.py", "tasks/overlap.py", "flows/overlap.py"} <= deps
    assert not any("contrastive" in d or "llm" in d or "annotation" in d for d in deps)
    deployments = yaml.safe_load((project.root / "prefect.yaml").read_text())["deployments"]
    entries = [d["entrypoint"] for d in deployments]
    assert "paperflows.flows.overlap:overlap" in entries and len(entries) == len(stages)

    done = project.run("run", "overlap")
    assert done.returncode == 0, done.stderr
    report = json.loads((project.root / "reports" / "overlap.json").read_text())
    (claim,) = report["claims"]
    assert claim["ours"] == report["metrics"]["spearman.weighted"] and claim["n"] == 1500
    assert "didn't change, skipping" in project.dvc("repro", "overlap").stdout
    page = (project.root / "reports" / "index.html").read_text()
    assert "A Statistical Interpretation of Term Specificity" in page and "of 20 papers run" in page
    wrong = project.run("run", "overlop")
    assert wrong.returncode == 2 and "did you mean overlap?" in wrong.stderr
