"""Ctrl-C of `paperflows serve` and of `paperflows run`."""

import os
import signal

import psutil
import pytest

from paperflows.components.ports import free_port

from ..conftest import wait_until

pytestmark = pytest.mark.e2e


def test_ctrl_c_stops_every_process_that_serve_started(project):
    process = project.start("serve", "--port", str(free_port(row=3)))
    announced = project.root / ".state" / "served.json"
    wait_until(lambda: announced.exists() or process.poll() is not None, 180)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 3
    os.kill(process.pid, signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in error
    assert "Ctrl-C stops everything" in out and "stopping" in out
    assert not announced.exists()
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []
