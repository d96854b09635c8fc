"""The flow `hag` by its command, on the built-in families."""

import json

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_smoke_run(connected):
    done = connected.run("run", "hag", "--profile", "smoke")
    assert done.returncode == 0, done.stderr
    (path,) = (connected.root / "runs").glob("*/report.json")
    report = json.loads(path.read_text())
    assert [c["id"] for c in report["claims"]][:3] == ["hag_beats_default", "hag_beats_random", "hag_beats_global"]
    metrics = report["metrics"]
    methods = {name.rsplit(".", 1)[1] for name in metrics if name.startswith("raw.sums.")}
    assert methods == {"default", "greedy", "global", "family", "hag", "random", "selector"}
    said = next(c for c in report["claims"] if c["id"] == "valid_settings")
    assert metrics["valid"] == pytest.approx(said["ours"])
    walk = report["tables"]["Mean score on the way of the search"]
    assert {row["family"] for row in walk} == {"sums", "retelling", "story"}
    assert len({row["configuration"] for row in walk}) > 5
    assert (path.parent / "artifacts" / "tuned" / "model.safetensors").is_file()
