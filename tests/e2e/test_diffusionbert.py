"""The flow `diffusionbert` by its command, on the built-in texts."""

import json

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_smoke_run(connected):
    done = connected.run("run", "diffusionbert", "--profile", "smoke")
    assert done.returncode == 0, done.stderr
    (path,) = (connected.root / "runs").glob("*/report.json")
    report = json.loads(path.read_text())
    ids = [claim["id"] for claim in report["claims"]]
    assert ids[:3] == ["pretrained_start", "beats_d3pm", "spindle"]
    metrics = report["metrics"]
    # without a spindle the two figures are the same thing; with one they are not
    assert metrics["bound.base"] == pytest.approx(metrics["official.base"], rel=1e-4)
    assert metrics["bound.diffusionbert"] != pytest.approx(metrics["official.diffusionbert"], rel=1e-3)
    assert metrics["calls.diffusionbert.4"] <= 4.0
    assert 0 < metrics["bound.autoregressive"] < 12 and metrics["word_perplexity.autoregressive"] > 1
    assert {"paraphrase_bleu", "paraphrase_diversity", "minimum_risk_helps"} <= set(ids)
    assert 0 < metrics["paraphrase.div4.diffusionbert"] <= 1
    assert {row["writer"] for row in report["tables"]["Paraphrases of the first seed"]} == {
        "diffusionbert", "autoregressive",
    }  # fmt: skip
    way = report["tables"]["How one text is written"]
    assert "[MASK]" in way[0]["text"] and "[MASK]" not in way[-1]["text"]
    samples = (path.parent / "artifacts" / "samples" / "samples.jsonl").read_text().splitlines()
    assert len(samples) == 8 and all(json.loads(line)["text"] for line in samples)
    refused = connected.run("run", "diffusionbert", "--profile", "smoke", "--set", "layers=40")
    assert refused.returncode == 2 and "layers" in refused.stderr
