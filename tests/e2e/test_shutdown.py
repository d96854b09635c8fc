"""Ctrl-C of `paperflows serve` and of `paperflows run`."""

import os
import signal

import psutil
import pytest

from ..conftest import _free_port, _is_free, wait_until

pytestmark = pytest.mark.e2e


def test_ctrl_c_stops_every_process_that_serve_started(project):
    port = next(p for p in (_free_port() for _ in range(20)) if all(_is_free(p + i) for i in range(3)))
    process = project.start("serve", "--port", str(port))
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
