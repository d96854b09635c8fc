"""The early-exit papers by the installed command, on the built-in corpora: everything runs, nothing is learnt."""

import json

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def run(project, slug, *sets):
    done = project.run("run", slug, "--profile", "smoke", *[part for s in sets for part in ("--set", s)])
    assert done.returncode == 0, done.stderr
    (path,) = (project.root / "runs").glob(f"{slug}-*/report.json")
    report = json.loads(path.read_text())
    for claim in report["claims"]:
        assert claim["verdict"] in done.stdout
        assert all(word in done.stdout for word in claim["statement"].split()), claim["statement"]
    assert {name for name in report["metrics"] if name.endswith(".different")}, "the skipping run was compared"
    assert all(v == 0 for name, v in report["metrics"].items() if name.endswith(".different"))
    methods = {row["method"] for row in report["leaderboard"]}
    page = (project.root / "reports" / "index.html").read_text()
    assert "ELUE leaderboard" in page and all(f"<td>{method}</td>" in page for method in methods)
    return report, {claim["id"]: claim for claim in report["claims"]}, path.parent


def test_elue(connected):
    report, claims, folder = run(connected, "elue")
    assert list(claims) == [
        "joint_equals_truncated", "entropy_keeps_quality", "dynamic_beats_static", "entropy_beats_random",
        "exits_in_pretraining", "speed_batch1", "speed_batch8",
    ]  # fmt: skip
    assert claims["speed_batch8"]["margin"] == pytest.approx(0.8 * report["metrics"]["batch8.flops_speedup"])
    scores = {row["method"]: row["score"] for row in report["leaderboard"]}
    assert scores["elastic static"] == pytest.approx(0.0) and {"pabee", "deebert", "berxit"} <= scores.keys()
    assert (folder / "artifacts" / "elastic" / "exits.safetensors").is_file()
    assert {p.stem for p in (folder / "plots").glob("*.png")} == {"claims", "world_questions"}
    refused = connected.run("run", "elue", "--profile", "smoke", "--set", "datasets.builtin.tasks=[world_sts]")
    assert refused.returncode == 2 and "world_sts" in refused.stderr and "Traceback" not in refused.stderr


def test_hashee(connected):
    report, claims, folder = run(connected, "hashee")
    assert {
        "consistent_beats_inconsistent",
        "frequency_beats_entropy",
        "model_difficulty_not_learnable",
        "speed_batch8",
    } <= set(claims)
    arms = [name for name in report["metrics"] if name.endswith("equal.speedup")]
    assert len(arms) == 7
    assert claims["language_model"]["statement"].startswith("A language model")
    assert (folder / "artifacts" / "frequency" / "hash.safetensors").is_file()
    for predictor in ("words", "embeddings", "fine-tuned", "majority"):
        assert 0 <= report["metrics"][f"difficulty.model.{predictor}.accuracy"] <= 1
    rows = [json.loads(line) for line in (folder / "artifacts" / "continuations" / "continuations.jsonl").open()]
    assert len(rows) > 10 and all(row["prompt"] and row["text"] for row in rows)
    assert 0 <= report["metrics"]["lm.hashed.chrf"] <= 100 and "lm.full.chrf" in report["metrics"]


def test_seq_label_exit(connected):
    report, claims, folder = run(connected, "seq_label_exit")
    assert {"tokee_keeps_quality_2x", "tokee_beats_sentee_3x", "tokee_beats_static_2x", "self_sampling_helps"} <= set(
        claims
    )
    assert claims["tokee_beats_truncated_3x"]["statement"].endswith("a model of 2 layers that was trained for it")
    assert "world_names.joint.exit6" in report["metrics"]
    assert (folder / "artifacts" / "tagger" / "exits.safetensors").is_file()
