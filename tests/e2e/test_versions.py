"""DVC and the flow agree on what is up to date, however a run was started, and a change re-runs what depends on it."""

import json
import re

import pytest
import yaml

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def report(project):
    return json.loads((project.root / "reports" / "claif.json").read_text())


def computed(project, since):
    """Kinds of tasks whose results were written after the file `since`."""
    marks = since.stat().st_mtime
    new = [p for p in (project.root / ".state" / "results").iterdir() if p.stat().st_mtime > marks]
    return {p.name.rpartition("-")[0] for p in new if "-" in p.name}


def test_a_run_by_hand_is_what_dvc_would_have_made(connected):
    project = connected
    project.make_laptop_small()
    done = project.run("run", "claif")
    assert done.returncode == 0, done.stderr
    first = report(project)
    lock = yaml.safe_load((project.root / "dvc.lock").read_text())["stages"]["claif"]
    outs = {o["path"]: o for o in lock["outs"]}
    assert outs["artifacts/claif"]["md5"] == first["artifacts"][0]["md5"], "the reported hash is the one of dvc.lock"
    assert {p.name for p in (project.root / "reports" / "claif").iterdir()} == {
        "claims.png",
        "similarity.png",
        "validation.png",
    }
    again = project.dvc("repro", "claif")
    assert again.returncode == 0 and "didn't change, skipping" in again.stdout, again.stdout + again.stderr
    shown = project.dvc("metrics", "show", "--json")
    assert "spearman.mean.claif" in shown.stdout

    # other parameters: the reproducible outputs stay, the run is versioned beside them
    other = project.run("run", "claif", "--set", "training.steps=4")
    assert other.returncode == 0 and report(project) == first
    assert len(list((project.root / "runs").glob("*.dvc"))) == 1
    assert "up to date" in project.dvc("status", "claif").stdout

    # another paper's section, a comment: nothing to do
    params = (project.root / "params.yaml").read_text()
    (project.root / "params.yaml").write_text(params + "another_paper: {seeds: [1]}\n")
    (project.root / "components" / "unused.py").write_text('"""Used by no flow."""\n\nX = 1\n')
    assert "didn't change, skipping" in project.dvc("repro", "claif").stdout
    stages = (project.root / "dvc.yaml").read_text()
    assert project.run("sync").returncode == 0
    assert (project.root / "dvc.yaml").read_text() == stages

    # a component that CLAIF uses: its tasks run again, what comes before is remembered
    marker = project.root / "marker"
    marker.write_text("")
    project.edit("components/contrastive/losses.py", "return F.mse_loss(", "return 1.0 * F.mse_loss(")
    assert "changed" in project.dvc("status").stdout
    again = project.dvc("repro", "claif")
    assert again.returncode == 0, again.stdout + again.stderr
    kinds = computed(project, marker)
    assert "train_sentence_encoder" in kinds
    assert kinds == {"train_sentence_encoder"}, "nothing before the training; equal encoders are not scored again"
    assert report(project)["metrics"] == first["metrics"]

    # a comment in it, for which no task runs, and a parameter, for which those run that take it
    marker.write_text("again")
    project.edit(
        "components/contrastive/losses.py", "return 1.0 * F.mse_loss(", "# a comment\n    return 1.0 * F.mse_loss("
    )
    project.edit("params.yaml", "resamples: 100", "resamples: 120")
    assert project.dvc("repro", "claif").returncode == 0
    assert computed(project, marker) == {"judge_claim"}

    # by hand again, over the outputs that are there
    again = project.run("run", "claif")
    assert again.returncode == 0, again.stderr
    assert "didn't change, skipping" in project.dvc("repro", "claif").stdout


def test_two_runs_at_once_with_the_same_parameters(connected):
    project = connected
    project.make_laptop_small()
    both = [project.start("run", "claif") for _ in range(2)]
    outputs = [process.communicate(timeout=280) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert "didn't change, skipping" in project.dvc("repro", "claif").stdout
    import sqlite3

    rows = sqlite3.connect(project.root / "mlflow.db").execute("select name, status from runs").fetchall()
    parents = [status for name, status in rows if re.match(r"claif-\d{8}-", name)]
    assert parents == ["FINISHED", "FINISHED"]
    starts = [name for name, _ in rows if name == "masked_lm"]
    assert len(starts) == 1, "one of them trained it, the other found it done"
