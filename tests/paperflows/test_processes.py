"""Servers that must not outlive what they were started for."""

import os
import signal
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
PRINT_AND_SLEEP = PROGRAM[PROGRAM.index("    print(server.pid") :]
INTERRUPTED = """    try:
        print(server.pid, flush=True)
        time.sleep(600)
    except KeyboardInterrupt:
        wait_for(f"{url}/health", server)
        print("answers", server.poll(), flush=True)
"""


@pytest.mark.slow
def test_temporary_server_is_still_there_for_what_ctrl_c_leaves_to_do(in_project):
    program = PROGRAM.replace(PRINT_AND_SLEEP, INTERRUPTED)
    caller = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    server = psutil.Process(int(caller.stdout.readline()))
    os.killpg(caller.pid, signal.SIGINT)
    assert caller.stdout.readline() == "answers None\n"
    assert caller.wait(60) == 0
    _, alive = psutil.wait_procs([server], timeout=30)
    assert alive == []


@pytest.mark.slow
def test_temporary_server_answers_and_ends_with_a_caller_that_is_killed(in_project):
    caller = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    server = psutil.Process(int(caller.stdout.readline()))
    assert server.is_running()
    caller.kill()
    caller.wait()
    _, alive = psutil.wait_procs([server], timeout=30)
    assert alive == []
