"""Interrupted tasks, and addresses at which no Ray cluster answers; one that answers is in tests/e2e/test_ray.py."""

import pytest

from paperflows.components.errors import InputError, ServiceError
from paperflows.components.ports import free_port
from paperflows.tasks.runner import runner

from .. import warm
from ..conftest import own_environment

PROGRAM = """
from paperflows.tasks.environment import prepare
prepare()
import os, signal, time
from prefect import flow, task
from paperflows.tasks.progress import progress
from paperflows.tasks.runner import runner

@task
def train():
    with progress("train") as report:
        for step in range(6000):
            time.sleep(0.1)
            report(step, 6000)
            if step == 5:
                os.kill(os.getpid(), signal.SIGNAL)

@flow(task_runner=runner())
def body():
    train.submit().result()

body()
"""


@pytest.mark.parametrize("signal", ["SIGINT", "SIGTERM"])
def test_a_submitted_task_ends_with_its_interrupted_flow(tmp_path, prefect_api, signal):
    (tmp_path / "params.yaml").write_text("{}\n")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.replace("SIGNAL", signal))
    environment = {**own_environment(), "PAPERFLOWS_ROOT": str(tmp_path), "PREFECT_API_URL": prefect_api}
    # the task would take ten minutes
    assert warm.run([], root=tmp_path, environment=environment, timeout=120, program=str(program)).returncode != 0


@pytest.mark.parametrize("address", ["nonsense", "host:port", "ray://"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(InputError, match=r"ray.address: .* is not HOST:PORT"):
        runner(address)


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_nobody_there_is_said_at_once(form):
    with pytest.raises(ServiceError, match=r"Ray at .* cannot be reached: .*refused"):
        runner(form.format(free_port("127.0.0.1")))
