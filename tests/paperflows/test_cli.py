"""The installed command, each time in a process of its own."""

import gzip
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
COMMAND = Path(sys.executable).parent / "paperflows"


def call(*arguments, cwd=ROOT):
    environment = {k: v for k, v in os.environ.items() if k != "PAPERFLOWS_ROOT"}
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=60, cwd=cwd, env=environment)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "metric_bais"], "unknown flow 'metric_bais'; did you mean metric_bias?"),
        (["run", "claif", "--set", "student.widht=3"], "did you mean width?"),
        (["run", "claif", "--set", "student.width=wide"], "claif.student.width"),
        (["run", "claif", "--data", "/no/such/folder"], "'/no/such/folder' is neither builtin, hub nor a folder"),
        (["run", "claif", "--profile", "labtop"], "did you mean laptop"),
        (["data", "check", "/no/such/folder"], "/no/such/folder is not a folder"),
        (["report", "--save", "nothing"], "no run 'nothing'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(arguments, message):
    done = call(*arguments)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.strip().count("\n") == 0


def test_outside_of_a_project(tmp_path):
    done = call("run", "claif", cwd=tmp_path)
    assert done.returncode == 2 and "no params.yaml in" in done.stderr


def test_unknown_command_and_option():
    assert call("fly").returncode == 2
    assert call("run", "claif", "--fast").returncode == 2


def test_list_names_every_flow():
    from paperflows.flows.registry import slugs

    done = call("list")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == slugs()


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['paperflows', '--help']\n"
        "from paperflows.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'prefect', 'mlflow', 'transformers', 'numpy', 'pydantic'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().endswith("[]"), done.stdout[-200:]


@pytest.fixture
def datasets(tmp_path):
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.mkdir()
    bad.mkdir()
    rows = [{"text": f"text {i}", "label": i % 2} for i in range(4)]
    with gzip.open(good / "train.jsonl.gz", "wt") as file:
        file.write("".join(json.dumps(r) + "\n" for r in rows))
    (bad / "train.jsonl").write_text('{"text": "a", "label": "x"}\n{"text": "", "label": "x"}\n{"text" "b"}\n')
    return tmp_path


def test_data_check_names_file_line_and_field(datasets):
    done = call("data", "check", str(datasets))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "ok  good" in done.stdout and "classification" in done.stdout and "train 4" in done.stdout
    assert "BAD bad" in done.stdout
    assert "train.jsonl:2" in done.stdout and "text" in done.stdout and "train.jsonl:3" in done.stdout
    assert call("data", "check", str(datasets / "good")).returncode == 0
    (datasets / "sheet").mkdir()
    (datasets / "sheet" / "train.csv").write_text("text,label\n")
    told = call("data", "check", str(datasets)).stdout
    assert re.search(r"--  sheet +not read: no <split>.jsonl, but train.csv", told)
    alone = call("data", "check", str(datasets / "sheet"))
    assert alone.returncode == 2 and "found none but train.csv" in alone.stderr


@pytest.mark.skipif("PAPERFLOWS_DATA" not in os.environ, reason="PAPERFLOWS_DATA names no folder of datasets")
def test_data_check_accepts_the_public_datasets():
    done = call("data", "check", os.environ["PAPERFLOWS_DATA"])
    assert done.returncode == 0, done.stdout


def test_a_taken_port_is_one_clear_error():
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        started = time.monotonic()
        done = call("serve", "--port", str(port))
    assert done.returncode == 3 and f"port {port} is taken" in done.stderr
    assert time.monotonic() - started < 30
