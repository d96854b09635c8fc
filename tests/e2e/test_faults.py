"""Runs that are killed: nothing that was finished is computed again, nothing is corrupt, the numbers agree."""

import json
import os
import signal
import sqlite3
import subprocess
import sys

import psutil
import pytest

from ..conftest import copy_project, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
LONGER = {"student": {"steps": 250}, "training": {"steps": 5}, "annotation": {"sentences": 300}}


def slow_enough(project):
    """Checkpoints and shards often enough to be killed between two of them."""
    project.make_laptop_small(**LONGER)
    project.edit("tasks/training.py", "CHECKPOINT_SECONDS = 10.0", "CHECKPOINT_SECONDS = 0.2")
    project.edit("tasks/training.py", "CHECKPOINT_SHARE = 0.05", "CHECKPOINT_SHARE = 1.0")
    project.edit("tasks/annotate.py", "SHARD = 1000", "SHARD = 60")


def family_of(process):
    return [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]


def kill(process):
    for member in family_of(process):  # DVC gives a stage's command a process group of its own
        member.kill()
    process.wait(20)
    process.stdout.close()
    process.stderr.close()


def found(project, pattern):
    return sorted((project.root / ".state").glob(pattern))


def test_killed_interrupted_and_killed_again_then_to_the_end(connected, tmp_path):
    project = connected
    slow_enough(project)
    whole = copy_project(tmp_path / "undisturbed")
    whole.environment["PREFECT_API_URL"] = project.environment["PREFECT_API_URL"]
    slow_enough(whole)

    # by DVC, killed in the middle of the first training
    repro = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "claif"], cwd=project.root, env=project.environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    wait_until(lambda: found(project, "checkpoints/train_masked_lm-*/step-*.safetensors"), 120)
    kill(repro)
    assert not (project.root / "dvc.lock").exists() and not (project.root / "reports" / "claif.json").exists()

    # by hand, interrupted in the training that goes on: recorded as such, and the newest checkpoint then damaged
    steps = "checkpoints/train_masked_lm-*/step-*.safetensors"
    before = found(project, steps)[-1].name
    running = project.start("run", "claif")
    wait_until(lambda: len(now := found(project, steps)) >= 2 and now[-1].name > before, 120)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does
    _, error = running.communicate(timeout=60)
    assert running.returncode == 130 and "Traceback" not in error
    assert "stopped; start again to go on from the last checkpoint" in error
    statuses = sqlite3.connect(project.root / "mlflow.db").execute("select name, status from runs").fetchall()
    parents = sorted(status for name, status in statuses if name.startswith("claif-"))
    assert parents == ["KILLED", "RUNNING"], "by Ctrl-C; without a chance to say so"
    newest = found(project, steps)[-1]
    step = int(newest.name.split("-")[1])
    newest.write_bytes(newest.read_bytes()[:-100])  # as if the machine had lost power while it was written

    # killed in the middle of the annotation
    running = project.start("run", "claif")
    wait_until(lambda: len(found(project, "checkpoints/annotate_pairs-*/shard-*.jsonl")) >= 2, 120)
    for member in family_of(running):
        member.kill()
    _, error = running.communicate(timeout=20)
    assert f"{newest.name} is damaged" in error
    assert "going on from step" in error and f"going on from step {step} " not in error
    trained = found(project, "results/train_masked_lm-*")
    assert len(trained) == 1, "the first training was finished"
    shards = found(project, "checkpoints/annotate_pairs-*/shard-*.jsonl")
    assert 2 <= len(shards) < 10
    finished = trained[0].stat().st_mtime_ns

    # to the end
    done = project.run("run", "claif")
    assert done.returncode == 0, done.stderr
    assert "going on with an earlier run's work" in done.stderr
    assert found(project, "results/train_masked_lm-*")[0].stat().st_mtime_ns == finished
    assert found(project, "checkpoints/*/*") == [] and found(project, "build/*") == []
    assert list(project.root.rglob("*.tmp*")) == []

    assert whole.run("run", "claif").returncode == 0
    reports = [json.loads((p.root / "reports" / "claif.json").read_text()) for p in (project, whole)]
    assert reports[0]["metrics"] == reports[1]["metrics"], "to the last bit"
    assert "didn't change, skipping" in project.dvc("repro", "claif").stdout

    # MLflow still shows the killed ones as running: doctor finds and closes them
    doctor = project.run("doctor", "--fix")
    assert doctor.stdout.count("dead run") >= 2 and ": closed" in doctor.stdout
    runs = sqlite3.connect(project.root / "mlflow.db").execute("select name, status from runs").fetchall()
    assert {status for name, status in runs if name.startswith("claif-")} == {"FINISHED", "KILLED"}
    assert {status for _, status in runs} == {"FINISHED", "KILLED"}, "the training that Ctrl-C broke off too"


def test_bad_data_is_one_line_and_leaves_nothing(connected, tmp_path):
    project = connected
    folder = tmp_path / "data" / "mine"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text('{"text": "a", "text_pair": "b", "score": 1}\n{"text": "a", "score": "x"}\n')
    names = ["datasets.folder.unlabelled=[mine]", "datasets.folder.similarity=[mine]"]
    sets = [part for name in names for part in ("--set", name)]
    done = project.run("run", "claif", "--profile", "smoke", "--data", str(folder.parent), *sets)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "train.jsonl:2" in done.stderr
    assert not (project.root / "reports").exists() and not list((project.root / "runs").glob("*"))


def test_dead_endpoint_is_exit_code_three(connected):
    project = connected
    kind = [
        "annotation.judge.kind=endpoint",
        "annotation.judge.model=m",
        "annotation.judge.base_url=http://127.0.0.1:9/v1",
    ]
    sets = [part for name in kind for part in ("--set", name)]
    done = project.run("run", "claif", "--profile", "smoke", *sets)
    assert done.returncode == 3 and "Traceback" not in done.stderr
    assert "http://127.0.0.1:9/v1 cannot be reached" in done.stderr
