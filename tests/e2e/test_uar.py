"""The flow `uar` by its command, on the built-in texts."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_smoke_run(connected):
    done = connected.run("run", "uar", "--profile", "smoke")
    assert done.returncode == 0, done.stderr
    (path,) = (connected.root / "runs").glob("*/report.json")
    report = json.loads(path.read_text())
    claims = {c["id"]: c for c in report["claims"]}
    assert len(claims) == 2 * 7 + 3 and "decision_is_free" in claims
    metrics = report["metrics"]
    assert metrics["accuracy.always.test"] == metrics["accuracy.never.unseen"] == 0.5, "half of a mix wants a retrieval"
    assert metrics["accuracy.uar.test"] == claims["beats_skr_test"]["ours"]
    assert metrics["answers.retrieved.always"] == 1 and metrics["answers.retrieved.never"] == 0
    assert metrics["answers.right.never"] < metrics["answers.right.always"] and metrics["answers.found"] > 0.5
    assert 0 < metrics["decision.milliseconds"] < 1000 and metrics["passages"] == 400
    known = load_file(path.parent / "artifacts" / "knowledge" / "knowledge.safetensors")
    assert known["states"].shape[1] == 384 and 0 < known["right"].mean() < 1
    assert np.isfinite(load_file(path.parent / "artifacts" / "heads" / "heads.safetensors")["linear.weight"]).all()
    refused = connected.run("run", "uar", "--profile", "smoke", "--set", "asking=2")
    assert refused.returncode == 2 and "asking" in refused.stderr
