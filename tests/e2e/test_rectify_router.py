"""The flow `rectify_router` by its command, on real Ray workers."""

import json

import pytest

from .ray_cluster import started_cluster

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_smoke_run_here_and_on_a_cluster(connected):
    done = connected.run("run", "rectify_router", "--profile", "smoke")
    assert done.returncode == 0, done.stderr
    (path,) = (connected.root / "runs").glob("*/report.json")
    report = json.loads(path.read_text())
    assert [c["id"] for c in report["claims"]] == ["rectified_beats_top1", "overhead"]
    metrics = report["metrics"]
    assert metrics["dropped.top1"] > 0 and metrics["padded.top1"] > 0, "an untrained router is unbalanced"
    assert metrics["skipped.both"] == metrics["padded.both"] == 0 < metrics["skipped.top1"]
    assert metrics["test.skipped.both"] == metrics["test.padded.both"] == 0 < metrics["test.skipped.top1"]
    assert metrics["test.rectified.both"] == metrics["test.dropped.both"] > 0
    assert any("not the likelihood of an autoregressive model" in note for note in report["notes"])
    tried = {tuple(name.split(".")[1:]): value for name, value in metrics.items() if name.startswith("validation.")}
    assert {variant for _, variant in tried} == {"top1", "both"} and min(tried.values()) > 0
    assert metrics["useful.both"] == 1 > metrics["useful.top1"]
    assert metrics["rectified.both"] > 0 and metrics["bytes_sent.both"] > 0
    drawn = {p.name for p in (path.parent / "plots").iterdir()}
    assert {"load_top1.png", "load_both.png", "loss_seconds.png", "loss_flops.png", "dropped.png", "padded.png"} < drawn

    refused = connected.run("run", "rectify_router", "--profile", "smoke", "--set", "passages.length=8000")
    assert refused.returncode == 2 and "fewer than one batch of 4" in refused.stderr, refused.stderr

    # on a cluster, what is forgotten here is computed there, its experts spread over the cluster: the same to the bit
    (result,) = (r for r in (connected.root / ".state" / "results").glob("train_moe-*") if trained(r)["name"] == "both")
    before = trained(result)
    result.unlink()
    with started_cluster(connected) as address:
        there = connected.run("run", "rectify_router", "--profile", "smoke", "--set", f"ray.address={address}")
    assert there.returncode == 0, there.stderr
    after = trained(result)
    assert [after[name] for name in ("bits", "validation", "test_shares")] == [
        before[name] for name in ("bits", "validation", "test_shares")
    ]


def trained(result):
    return json.loads(json.loads(result.read_text())["result"])
