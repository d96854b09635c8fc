"""Servers that must not outlive what they were started for."""

import subprocess
import sys

import psutil
import pytest

PROGRAM = """
import time
from paperflows.processes import temporary_prefect, wait_for
from paperflows.tasks.environment import prepare
with temporary_prefect(prepare()) as (url, server):
    wait_for(f"{url}/health", server)
    print(server.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_temporary_server_answers_and_ends_with_a_caller_that_is_killed(in_project):
    caller = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    server = psutil.Process(int(caller.stdout.readline()))
    assert server.is_running()
    caller.kill()
    caller.wait()
    _, alive = psutil.wait_procs([server], timeout=30)
    assert alive == []
