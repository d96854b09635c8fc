"""The flow `llatrieval` by its command, on the built-in documents."""

import json

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_smoke_run(connected):
    done = connected.run("run", "llatrieval", "--profile", "smoke")
    assert done.returncode == 0, done.stderr
    (path,) = (connected.root / "runs").glob("*/report.json")
    report = json.loads(path.read_text())
    claims = {c["id"]: c for c in report["claims"]}
    metrics = report["metrics"]
    assert len(claims) == 2 * 5 and metrics["citation_recall.shuffled"] == 0, "a control, which no claim rests on"
    assert 1 <= metrics["rounds"] <= 4 and metrics["verifier.calls"] == metrics["rounds"]
    for method in ("bm25", "dense", "hybrid", "rerank", "single", "verified"):
        assert metrics[f"passage_recall.{method}"] > 0
        # a statement is supported only by a passage that states its answer, and that was retrieved
        assert metrics[f"citation_recall.{method}"] == 0 or metrics[f"answer_recall.{method}"] > 0
    trace = [
        json.loads(line) for line in (path.parent / "artifacts" / "trace" / "trace.jsonl").read_text().splitlines()
    ]
    assert len(trace) == sum(metrics[f"questions.{k}"] for k in {line["kind"] for line in trace})
    for line in trace:
        assert len(line["passages"]) == 5 and line["statements"]
        assert {str(c) for s in line["statements"] for c in s["citations"]} <= line["passages"].keys()
        assert [step["verified"] for step in line["trace"][:-1]] == [False] * (line["rounds"] - 1)
