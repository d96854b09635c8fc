"""The same flow on a Ray cluster, started as a user would."""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
RAY = str(Path(sys.executable).parent / "ray")


@pytest.fixture
def cluster(connected, tmp_path):
    environment = {**connected.environment, "RAY_USAGE_STATS_ENABLED": "0"}
    # short, for its sockets; new, for Ray would join a killed cluster whose state stands there
    state = tempfile.mkdtemp(prefix="ray")
    command = [
        RAY, "start", "--head", "--port", "0", "--num-cpus", "2", "--include-dashboard", "false",
        "--object-store-memory", "100000000", "--temp-dir", state,
    ]  # fmt: skip
    started = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert started.returncode == 0, started.stdout + started.stderr
    address = re.search(r"ray start --address='([\d.]+:\d+)'", started.stdout)[1]
    yield address
    subprocess.run([RAY, "stop", "--force"], env=environment, capture_output=True)
    shutil.rmtree(state, ignore_errors=True)


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

    # the experts of rectify_router are spread over the same cluster
    done = connected.run("run", "rectify_router", "--profile", "smoke", "--set", f"ray.address={cluster}")
    assert done.returncode == 0, done.stderr
    (path,) = (connected.root / "runs").glob("rectify_router-*/report.json")
    metrics = json.loads(path.read_text())["metrics"]
    assert metrics["skipped.both"] == metrics["padded.both"] == 0 and metrics["bytes_sent.both"] > 0
