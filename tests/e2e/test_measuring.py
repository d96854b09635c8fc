"""Metric bias, ABSA trees and Flames by the installed command, at the smoke profile."""

import csv
import json
import os
import signal
import time

import pytest

from ..components.llm.conftest import FaultServer, status
from ..conftest import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def report_of(project, done):
    assert done.returncode == 0, done.stderr
    path = max((project.root / "runs").glob("*/report.json"), key=lambda p: p.stat().st_mtime)
    return json.loads(path.read_text()), path.parent


def test_metric_bias(connected):
    report, folder = report_of(connected, connected.run("run", "metric_bias", "--profile", "smoke"))
    verdicts = {claim["id"]: claim for claim in report["claims"]}
    assert "published_table" not in verdicts, "the built-in pairs hold no recorded scores"
    assert {
        "plm_more_biased",
        "plm_more_biased_race",
        "adapters_cut_bias",
        "adapters_keep_correlation",
    } <= verdicts.keys()
    metrics = report["metrics"]
    # with one word exchanged BLEU cannot tell the groups apart, a language model can
    assert metrics["bias.race.bleu"] == 0 and metrics["bias.race.bertscore"] > 0
    assert abs(metrics["polarised.race.bertscore"]) <= metrics["bias.race.bertscore"]
    assert verdicts["adapters_cut_bias_held_out"]["n"] == 10, "one held-out attribute of ten pairs"
    assert verdicts["held_out_adapters_keep_correlation_1"]["seeds"] == 2, "one group of held-out attributes, two seeds"
    assert verdicts["adapters_cut_bias"]["n"] == 60 and verdicts["adapters_cut_bias"]["seeds"] == 2
    assert verdicts["adapters_cut_bias"]["paper"] is None, "the paper's figure is of gender alone"
    of_adapters = [v for n, v in metrics.items() if n.startswith("bias.") and n.endswith(".bertscore-adapters")]
    of_bertscore = [v for n, v in metrics.items() if n.startswith("bias.") and n.endswith(".bertscore")]
    cut = sum(of_bertscore) / 6 - sum(of_adapters) / 6
    assert cut == pytest.approx(verdicts["adapters_cut_bias"]["ours"]), "the mean over both seeds"
    assert (folder / "artifacts" / "adapters" / "adapters.safetensors").is_file()
    assert {"bias.png", "claims.png"} <= set(report["plots"])


def test_absa_trees(connected):
    report, folder = report_of(connected, connected.run("run", "absa_trees", "--profile", "smoke"))
    metrics = report["metrics"]
    assert metrics["world_reviews.neighbours.left_chain"] == 1.0
    assert metrics["world_reviews.neighbours.random"] < 0.9
    for kind in ("finetuned", "pretrained", "parser", "left_chain", "random"):
        assert metrics[f"world_reviews.asd.{kind}"] >= 1 and 0 <= metrics[f"world_reviews.f1.words.asgcn.{kind}"] <= 1
    assert metrics["treebank.uuas.left_chain"] > 0.3
    assert 0 <= metrics["world_reviews.f1.end_to_end"] <= 1 and 0 < metrics["world_reviews.accuracy.end_to_end"] <= 1
    assert {"states.mlp", "states.asgcn.parser", "states.asgcn.random", "words.mlp"} <= {
        n.partition(".f1.")[2] for n in metrics
    }
    claims = {claim["id"]: claim for claim in report["claims"]}
    assert claims["mlp_tied_with_asgcn_parser"]["seeds"] == 2 and claims["finetuned_nearer_than_left_chain"]["n"] > 0
    assert (folder / "artifacts" / "encoder-world_reviews" / "model.safetensors").is_file()


def test_flames_over_http_resumes_after_a_kill_and_people_overrule(connected):
    project, server = connected, FaultServer()
    server.reply = lambda text: "请不要这样做，这是不对的。" if len(text) % 2 else "好的，没问题。"
    subjects = json.dumps(
        [{"name": "served", "source": {"kind": "endpoint", "model": "m", "base_url": server.url}}, {"name": "blunt"}]
    )
    command = ["run", "flames", "--profile", "smoke", "--set", f"datasets.builtin.subjects={subjects}"]
    try:
        server.delay = 0.2
        process = project.start(*command, OPENAI_API_KEY="planted-key")
        end = time.monotonic() + 120
        while len(server.bodies) < 60 and time.monotonic() < end:
            time.sleep(0.05)
        assert 60 <= len(server.bodies) < 200
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        process.stdout.close()
        process.stderr.close()
        server.delay = 0.0
        wait_until(lambda: server.flying == 0, 10)  # answers to the killed run take nothing from the script
        server.script = [status(400)] * 12  # more than a twentieth: the task is tried again, and asks for these alone
        report, folder = report_of(project, project.run(*command, OPENAI_API_KEY="planted-key"))
    finally:
        server.close()
    assert len(server.per_text) == 200 and sum(server.per_text.values()) <= 200 + 8 + 12, (
        "those in flight and the refused"
    )
    metrics = report["metrics"]
    assert metrics["llm.served.failed"] == 0 and 0 <= metrics["served.overall"] <= 100
    assert metrics["blunt.overall.low"] <= metrics["blunt.overall"] <= metrics["blunt.overall.high"]
    rates = [metrics[f"blunt.rate.{d}"] for d in ("Fairness", "Safety", "Morality", "Legality", "Data protection")]
    assert metrics["blunt.overall"] == pytest.approx(sum(rates) / 5)
    assert 0 < metrics["p.served vs blunt"] <= 1 and metrics["review.human_scores"] == 0
    verdicts = {claim["id"]: claim["verdict"] for claim in report["claims"]}
    assert verdicts["published_identities"] == "holds"
    assert not any("have no score" in note for note in report["notes"]), "the built-in answers have all three"
    answers = [json.loads(line) for line in (folder / "artifacts" / "answers-0" / "answers.jsonl").open()]
    assert len({row["id"] for row in answers}) == len(answers) == 200 and all(row["answer"] for row in answers)

    sheet = folder / "artifacts" / "benchmark" / "review.csv"
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    filled = project.root / "filled.csv"
    with filled.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "human_score": "3"} for row in rows)
    second = project.root / "second.csv"
    second.write_bytes(filled.read_bytes())
    done = project.run(*command, "--set", f"reviews=[{filled}, {second}]", OPENAI_API_KEY="planted-key")
    again, _ = report_of(project, done)
    # two people who always say the same: no alpha, whose chance agreement would be 1
    assert again["metrics"]["review.human_scores"] == again["metrics"]["review.scored_by_two"] == 10
    assert "review.alpha" not in again["metrics"]
    assert again["metrics"]["served.overall"] + again["metrics"]["blunt.overall"] >= (
        metrics["served.overall"] + metrics["blunt.overall"]
    )
    changed = [name for name in metrics if name.endswith(".overall") and again["metrics"][name] != metrics[name]]
    assert changed or all(row["score"] == "3" for row in rows)
    done = project.run(*command, "--set", "reviews=[/no/such.csv]", OPENAI_API_KEY="planted-key")
    assert done.returncode == 2 and "/no/such.csv" in done.stderr and "Traceback" not in done.stderr


def test_flames_without_a_model_under_test_tests_the_scorer(connected):
    none = ["datasets.builtin.subjects=[]", 'datasets.builtin.scores={"1": 1, "2": 1, "3": 3}']
    done = connected.run("run", "flames", "--profile", "smoke", "--set", none[0], "--set", none[1])
    report, folder = report_of(connected, done)
    assert "scorer_beats_tfidf" in {claim["id"] for claim in report["claims"]}
    assert any("No model under test" in note for note in report["notes"])
    assert any("have no score 2, so it gives none" in note for note in report["notes"])
    assert {"scorer.f1.all.heads", "scorer.f1.all.encoder", "scorer.f1.all.tfidf"} <= report["metrics"].keys()
    assert not any(name.endswith(".overall") for name in report["metrics"])
    assert not (folder / "plots" / "radar.png").exists()
