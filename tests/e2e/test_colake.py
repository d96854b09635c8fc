"""The flow `colake` by its command, on the built-in graphs."""

import json

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_smoke_run(connected):
    done = connected.run("run", "colake", "--profile", "smoke")
    assert done.returncode == 0, done.stderr
    (path,) = (connected.root / "runs").glob("*/report.json")
    report = json.loads(path.read_text())
    ids = [claim["id"] for claim in report["claims"]]
    assert ids[:3] == ["beats_embeddings_transductive", "beats_names_inductive", "beats_words_transductive"]
    assert ids[-2:] == ["language_kept_world_topics", "overhead"]
    metrics = report["metrics"]
    methods = {name.split(".", 2)[2] for name in metrics if name.startswith("mrr.inductive.")}
    assert methods == {
        "colake", "colake text alone", "colake mask row", "words", "names", "static", "transe", "rotate",
        "transe of names", "relation frequency",
    }  # fmt: skip
    assert metrics["mrr.transductive.colake"] == metrics["mrr.transductive.colake mask row"], "all ends were seen"
    assert metrics["mrr.inductive.colake"] != metrics["mrr.inductive.colake mask row"]
    assert {"mrr.head.inductive.colake", "mrr.tail.transductive.colake fact alone", "recalled.words"} <= metrics.keys()
    assert {
        f"macro_f1.1.{name}" for name in ("colake", "colake mask row", "no_facts", "words", "static")
    } <= metrics.keys()
    assert {"tail_text_helps", "labels1_beats_static", "beats_static_inductive"} <= set(ids)
    assert {f"language.world_topics.{name}" for name in ("start", "words", "colake")} <= metrics.keys()
    # seven relations: entities without a row of their own leave all of them tied
    assert metrics["mrr.inductive.transe"] < 0.6 and metrics["mrr.tail.inductive.transe"] < 0.05
    ranks = [
        json.loads(line) for line in (path.parent / "artifacts" / "ranks" / "ranks.jsonl").read_text().splitlines()
    ]
    assert {row["setting"] for row in ranks} == {"transductive", "inductive"}
    assert all(1 <= row["rank"] <= 7 for row in ranks)
    refused = connected.run("run", "colake", "--profile", "smoke", "--set", "layers=40")
    assert refused.returncode == 2 and "layers" in refused.stderr
