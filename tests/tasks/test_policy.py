"""Caching of tasks, in real flows on Prefect's own engine; each run is a process of its own."""

import textwrap

import pytest

from .. import warm
from ..conftest import own_environment

PROGRAM = """
from paperflows.tasks.environment import prepare
prepare()
from pathlib import Path
from prefect import flow
from paperflows.components.errors import ServiceError
from paperflows.components.llm.request import BudgetExceeded
from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import new_artifact, open_artifact
CALLS = Path("calls.txt")

@cached_task(name="write")
def write(text: str):
    CALLS.open("a").write(f"write {text}\\n")
    with new_artifact() as (folder, artifact):
        (folder / "t").write_text(text)
    return artifact

@cached_task(name="length")
def length(source: dict, factor: int = 1):
    CALLS.open("a").write("length\\n")
    return len((open_artifact(source) / "t").read_text()) * factor

@cached_task(name="model")
def model():
    return object()

@cached_task(name="flaky", retries=2, retry_on=(OSError, ServiceError))
def flaky(kind: str):
    CALLS.open("a").write(f"flaky {kind}\\n")
    if kind == "budget":
        raise BudgetExceeded("max_requests = 7 reached")
    if kind == "value":
        raise ValueError("bad input")
    if CALLS.read_text().count(f"flaky {kind}") < 3:
        raise OSError("try again")
    return 1

@flow
def body():
    BODY

print("RESULT", body())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, prefect_api):
    path = tmp_path_factory.mktemp("policy")
    (path / "params.yaml").write_text("{}\n")
    (path / "server").write_text(prefect_api)
    return path


def run(folder, body, **more):
    (folder / "calls.txt").write_text("")
    (folder / "program.py").write_text(PROGRAM.replace("    BODY", textwrap.indent(body, "    ")))
    environment = {
        **own_environment(), "PAPERFLOWS_ROOT": str(folder), "PREFECT_API_URL": (folder / "server").read_text(), **more
    }  # fmt: skip
    done = warm.run([], root=folder, environment=environment, timeout=120, program="program.py")
    return done, (folder / "calls.txt").read_text().split("\n")[:-1]


def test_a_second_process_finds_results(folder):
    body = "return length(write('abc'))"
    done, calls = run(folder, body)
    assert "RESULT 3" in done.stdout, done.stderr
    assert calls == ["write abc", "length"]
    done, calls = run(folder, body)
    assert "RESULT 3" in done.stdout and calls == []
    _, calls = run(folder, "return length(write('abc'), factor=2)")
    assert calls == ["length"], "only the task whose input changed"
    _, calls = run(folder, "return length(write('abcd'))")
    assert calls == ["write abcd", "length"]


def test_damaged_artifacts_and_results_are_computed_again(folder):
    body = "return length(write('damage'))"
    run(folder, body)
    target = next(p for p in (folder / ".state" / "store").rglob("t") if p.read_text() == "damage")
    target.write_text("damagE")
    done, calls = run(folder, body)
    assert "RESULT 6" in done.stdout and calls == ["write damage"]
    for record in (folder / ".state" / "results").glob("write-*"):
        record.write_text(record.read_text()[:40])
    done, calls = run(folder, body)
    assert "RESULT 6" in done.stdout and calls == ["write damage"]
    assert "unreadable" in done.stderr


def test_damage_is_seen_where_prefect_keeps_its_results_elsewhere(folder, tmp_path):
    body, elsewhere = "return length(write('elsewhere'))", {"PREFECT_LOCAL_STORAGE_PATH": str(tmp_path / "kept")}
    done, calls = run(folder, body, **elsewhere)
    assert "RESULT 9" in done.stdout and calls == ["write elsewhere", "length"], done.stderr
    next(p for p in (folder / ".state" / "store").rglob("t") if p.read_text() == "elsewhere").write_text("elsewherE")
    done, calls = run(folder, body, **elsewhere)
    assert "RESULT 9" in done.stdout and calls == ["write elsewhere"]


def test_objects_are_refused_as_results_and_inputs(folder):
    done, _ = run(folder, "return model()")
    assert done.returncode != 0 and "task model: its result cannot be kept as JSON" in done.stderr
    done, _ = run(folder, "return length(write('a'), factor=object())")
    assert done.returncode != 0


def test_only_what_can_pass_is_tried_again(folder):
    program = "return flaky('os')"
    done, calls = run(folder, program)
    assert "RESULT 1" in done.stdout and calls == ["flaky os"] * 3
    for never in ("value", "budget"):
        done, calls = run(folder, f"return flaky('{never}')")
        assert done.returncode != 0 and calls == [f"flaky {never}"]
