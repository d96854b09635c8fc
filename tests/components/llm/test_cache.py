"""What is remembered between calls, clients and processes."""

import os
import signal
import subprocess
import sys
import time

import pytest

from paperflows.components.errors import ServiceError
from paperflows.components.llm.cache import CompletionCache

from .conftest import ask_for

CHILD = """
import sys
from pathlib import Path
from paperflows.components.llm.backends import LLMSettings, open_llm
from paperflows.components.llm.request import Message, Request
url, path = sys.argv[1:]
llm = open_llm(LLMSettings(kind="endpoint", model="m", base_url=url, cache_path=Path(path), concurrency=4))
llm.run([Request(model="m", messages=(Message(role="user", content=f"q{i}"),)) for i in range(60)])
print("done")
"""


def start_child(server, tmp_path):
    command = [sys.executable, "-c", CHILD, server.url, str(tmp_path / "shared.sqlite")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_ask_each_question_once(server, tmp_path):
    server.delay = 0.02
    children = [start_child(server, tmp_path) for _ in range(2)]
    assert [child.communicate(timeout=60)[0] for child in children] == ["done\n", "done\n"]
    assert set(server.per_text.values()) == {1} and len(server.per_text) == 60


def test_killed_process_loses_only_the_calls_in_flight(server, tmp_path):
    server.delay = 0.05
    child = start_child(server, tmp_path)
    end = time.monotonic() + 60
    while len(server.bodies) < 20 and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait(10)
    time.sleep(0.1)
    before = len(server.bodies)
    assert 20 <= before < 60
    server.delay = 0.0
    assert start_child(server, tmp_path).communicate(timeout=60)[0] == "done\n"
    assert len(server.per_text) == 60
    repeated = sum(count - 1 for count in server.per_text.values())
    assert repeated <= 4, "at most the four in flight were asked for again"


def test_unreadable_cache_row_counts_as_missing(client, server, tmp_path):
    llm = client()
    llm.run([ask_for("q")])
    llm.cache._db.execute("UPDATE completions SET value = '{\"text\": 1'")
    llm.cache._db.execute("DELETE FROM completions WHERE 0")
    assert llm.cache.get([ask_for("q").key(llm.backend.name, 0)]) == {}


def test_cache_path_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ServiceError, match="completion cache"):
        CompletionCache(tmp_path / "file" / "c.sqlite")
