"""The flow `aor` by its command, on the built-in chains."""

import json

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_smoke_run(connected):
    done = connected.run("run", "aor", "--profile", "smoke")
    assert done.returncode == 0, done.stderr
    (path,) = (connected.root / "runs").glob("*/report.json")
    report = json.loads(path.read_text())
    assert [c["id"].partition("_world")[0] for c in report["claims"]] == [
        "aor_beats_majority", "aor_beats_weighted", "aor_beats_best", "minority", "cheaper",
    ]  # fmt: skip
    metrics = report["metrics"]
    assert metrics["accuracy.world_chains.any_right"] >= metrics["accuracy.world_chains.aor"]
    assert metrics["accuracy.world_chains.majority"] > metrics["accuracy.world_chains.one_chain"]
    assert metrics["chains.world_chains.aor"] < 40 and 0 < metrics["one_answer.world_chains"] < 1
    trace = path.parent / "artifacts" / "choices_world_chains" / "trace.jsonl"
    assert len(trace.read_text().splitlines()) == 200, "of 300 questions"
    assert metrics["chains.world_chains.aor_no_sampling"] == 20 <= metrics["chains.world_chains.aor"]
    (examples,) = report["tables"].values()
    assert examples and {"question", "gold", "chosen", "scores"} < examples[0].keys()
    refused = connected.run("run", "aor", "--profile", "smoke", "--set", "selection.keep=0")
    assert refused.returncode == 2 and "selection.keep" in refused.stderr
