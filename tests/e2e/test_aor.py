"""The flow `aor` by its command, on the built-in chains."""

import json
import re
from collections import Counter

import pytest

from paperflows.components.data.world import build

from ..components.llm.conftest import FaultServer

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
    assert "Progressive-hint prompting was not run on world_chains" in " ".join(report["notes"])
    assert not [name for name in metrics if "progressive_hints" in name or "model_vote" in name or "simulated" in name]


def test_trained_judges_and_the_plot_of_their_quality_whose_simulation_nothing_else_uses(connected):
    pool = "{dataset: world_chains, answer: letters, judge: verifier, first: 5, most: 10}"
    small = "layers: 1, max_length: 40, folds: 2, steps: 2, batch_size: 4, learning_rate: 1e-4"
    reading = [f"verifier.cross_encoder={{model: minilm, {small}}}", "verifier.cross_encoded=[world_chains, typo]"]
    sets = [f"pools.builtin=[{pool}]", "verifier.curve=[0.3,1.0]", "ablations=[]", *reading]
    done = connected.run("run", "aor", "--profile", "smoke", *[part for one in sets for part in ("--set", one)])
    assert done.returncode == 0, done.stderr
    (path,) = (connected.root / "runs").glob("*/report.json")
    report = json.loads(path.read_text())
    assert (path.parent / "plots" / "judge_world_chains.png").stat().st_size > 5000
    assert [note for note in report["notes"] if "simulation" in note and "sees the answers" in note]
    assert not [name for name in report["metrics"] if name.startswith("accuracy.") and "simulat" in name]
    assert "simulat" not in json.dumps(report["claims"])
    metrics, claims = report["metrics"], {c["id"]: c for c in report["claims"]}
    aor, weighted = (claims[f"cross_encoder_{how}_world_chains"] for how in ("aor", "weighted"))
    assert aor["ours"] == metrics["accuracy.world_chains.cross_encoder.aor"]
    assert weighted["ours"] == metrics["accuracy.world_chains.cross_encoder.weighted_vote"]
    assert claims["cross_encoder_adds_world_chains"]["baseline_name"] == "pairwise, equal folds"
    assert metrics["judge_auc.world_chains.cross_encoder"] != metrics["judge_auc.world_chains.trees"]
    assert [note for note in report["notes"] if "cross_encoded names typo" in note]


def test_a_language_model_answers_and_judges_and_every_method_reads_its_chains(connected):
    gold = {row["question"]: row["answer"] for row in build("world_chains")["test"]}
    asked, hinted, server = Counter(), Counter(), FaultServer()
    server.honours["n"] = False

    def reply(text):
        solutions = re.findall(r"Solution (\d+)(?: \(result: \w+\))?:\n(.*)", text)
        question = next((q for q in gold if q in text), None)
        if question is None:
            return "{}"  # whether replies can be asked for as JSON
        if "Hint: the answer is near to" in text:
            hinted[question] += 1  # the first hint is right or not: it takes one more call or two until two agree
            return f"On second thought, the answer is {gold[question]}."
        if not solutions:
            asked[question] += 1  # two in three wrong: the vote loses, the judge knows better
            return f"It is plain. The answer is {gold[question] if asked[question] % 3 == 0 else 'zz'}."
        good = {"validity": 3, "consistency": 3, "completeness": 2, "knowledge": 2}
        rated = [(int(n), dict.fromkeys(good, 1) if " zz." in said else good) for n, said in solutions]
        return json.dumps({"scores": [{"chain": n, "reasoning": "read", **points} for n, points in rated]})

    server.reply = reply
    served = f"{{kind: endpoint, model: m, base_url: '{server.url}'}}"
    pool = "{dataset: world_chains, answer: letters, judge: llm, first: 6, most: 6}"
    sets = [f"pools.builtin=[{pool}]", f"llm.judge={served}", f"llm.sampler={served}", "max_questions=12"]
    given = [part for one in sets for part in ("--set", one)]
    try:
        done = connected.run("run", "aor", "--profile", "smoke", *given, OPENAI_API_KEY="k")
    finally:
        server.close()
    assert done.returncode == 0, done.stderr
    (path,) = (connected.root / "runs").glob("*/report.json")
    report = json.loads(path.read_text())
    metrics, claims = report["metrics"], [c["id"].partition("_world")[0] for c in report["claims"]]
    assert claims == [
        "aor_beats_majority", "aor_beats_weighted", "aor_beats_best", "weighted_beats_majority", "minority", "cheaper",
    ]  # fmt: skip
    assert report["claims"][-1]["verdict"] == "fails", "six of six chains are read"
    assert sum(asked.values()) == metrics["sampler.requests.world_chains"] == 12 * 6
    assert metrics["accuracy.world_chains.one_chain"] == pytest.approx(1 / 3), "of the model's chains, not the recorded"
    assert metrics["accuracy.world_chains.majority"] == 0 and metrics["accuracy.world_chains.aor"] == 1
    assert metrics["accuracy.world_chains.progressive_hints"] == 1
    assert metrics["calls.world_chains.progressive_hints"] == pytest.approx(1 + sum(hinted.values()) / 12)
    assert metrics["hints.requests.world_chains"] == sum(hinted.values()) >= 12
    assert "not run" not in " ".join(report["notes"])
    kept = path.parent / "artifacts" / "hints_world_chains"
    assert len((kept / "hints.jsonl").read_text().splitlines()) == 12
    assert len((kept / "hints.completions.jsonl").read_text().splitlines()) == sum(hinted.values())
