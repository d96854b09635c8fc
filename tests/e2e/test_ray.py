"""The same flow on a Ray cluster."""

import json
import subprocess
import sys

import pytest

from .ray_cluster import started_cluster

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture
def cluster(connected):
    with started_cluster(connected) as address:
        yield address


def test_flow_on_ray_gives_the_same_numbers(connected, cluster):
    probe = """
import importlib.util as u, json, ray, sys
from paperflows.tasks.environment import prepare
from paperflows.tasks.runner import runner
prepare()
runner(sys.argv[1])
@ray.remote
def look(): return [n for n in ("kernels", "flows", "tasks", "components") if u.find_spec(n)]
print(json.dumps(ray.get(look.remote())))
"""
    environment = {**connected.environment, "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, "-c", probe, cluster], cwd=connected.root, env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", f"top-level packages in a Ray worker: {done.stdout} {done.stderr[-500:]}"

    small = ["run", "hag", "--profile", "smoke"]
    here = connected.run(*small)
    assert here.returncode == 0, here.stderr
    results = connected.root / ".state" / "results"
    swept = [path for path in results.iterdir() if path.name.startswith(("prune_grid", "sweep"))]
    assert len(swept) > 3
    for path in swept:
        path.unlink()
    there = connected.run(*small, "--set", f"ray.address={cluster}")
    assert there.returncode == 0, there.stderr
    reports = [json.loads(p.read_text()) for p in sorted((connected.root / "runs").glob("*/report.json"))]
    assert reports[0]["metrics"].keys() == reports[1]["metrics"].keys()
    assert all(path.exists() for path in swept), "they were computed again, there"
    for name, value in reports[0]["metrics"].items():
        assert reports[1]["metrics"][name] == pytest.approx(value, abs=1e-3), name
