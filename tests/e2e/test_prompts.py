"""The papers on prompts by the installed command, on the built-in corpora: everything runs, nothing is learnt."""

import json

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def run(project, slug, *sets):
    done = project.run("run", slug, "--profile", "smoke", *[part for s in sets for part in ("--set", s)])
    assert done.returncode == 0, done.stderr
    (path,) = (project.root / "runs").glob(f"{slug}-*/report.json")
    report = json.loads(path.read_text())
    return report, {claim["id"]: claim for claim in report["claims"]}, path.parent


def test_lpt(connected):
    report, claims, folder = run(connected, "lpt")
    assert list(claims) == [
        "late_beats_input", "generated_beats_free", "late_keeps_full", "late_beats_probe", "step_speed", "step_memory",
    ]  # fmt: skip
    metrics = report["metrics"]
    against_probe = claims["late_beats_probe"]
    assert against_probe["ours"] == pytest.approx(metrics["world_questions.late.accuracy"])
    assert against_probe["baseline"] == pytest.approx(metrics["world_questions.probe.accuracy"])
    # kinds and rates at layer 3, then the layers: the best on dev, and of equals the first
    dev = {n: metrics[f"world_questions.layer{n}.dev"] for n in (3, 2, 4)}
    layer = max(dev, key=dev.get)
    assert metrics["world_questions.late.layer"] == layer
    assert metrics["world_questions.late.accuracy"] == metrics[f"world_questions.layer{layer}.accuracy"]
    assert any(f"world_questions: npg at layer {layer} was chosen on dev" in note for note in report["notes"])
    # half of six layers' activations or fewer, and the stored states change no answer
    assert metrics["stored.different"] == 0 and claims["step_memory"]["effect"] < 0.9
    assert metrics["step.late.megabytes"] < metrics["step.input.megabytes"] < metrics["step.full.megabytes"]
    assert metrics["trained.input"] == 2 * 384 and metrics["trained.full"] > 2e7
    assert all(metrics[f"world_questions.layer{n}.bits"] >= 0 for n in (2, 3, 4))
    assert {p.stem for p in (folder / "plots").glob("*.png")} == {"accuracy", "claims", "information", "layers"}
    refused = connected.run(
        "run", "lpt", "--profile", "smoke", "--set",
        "datasets.builtin={tasks: [world_pairs_class], timed: world_pairs_class}", "--set",
        "templates={world_pairs_class: {pattern: '{text} {mask}', words: {paraphrase: good}}}",
    )  # fmt: skip
    assert refused.returncode == 2 and "'not_paraphrase' is not in its template" in refused.stderr


def test_bbtv2(connected):
    report, claims, folder = run(connected, "bbtv2")
    assert list(claims) == [
        "layers_beat_input", "layers_beat_random", "input_beats_random", "layers_beat_manual", "keeps_gradient",
        "prefix_speed",
    ]  # fmt: skip
    metrics = report["metrics"]
    assert metrics["bbtv2.calls"] == metrics["bbt.calls"] == metrics["random.calls"] == 24
    # six populations of four, each from its own layer up; BBT passes all six layers
    assert metrics["bbt.layers_a_call"] == 6.0 and 3.5 <= metrics["bbtv2.layers_a_call"] < 4.0
    assert metrics["prefix.layers_ratio"] == pytest.approx(12 / 7) and metrics["prefix.largest_difference"] < 1e-3
    assert 0 <= metrics["masked_lm.accuracy"] < 0.5 and "world_questions.manual_words.accuracy" in metrics
    assert {p.stem for p in (folder / "plots").glob("*.png")} == {"accuracy", "claims", "search"}


def test_mp2(connected):
    report, claims, folder = run(connected, "mp2")
    assert list(claims) == [
        "english_modular_beats_scratch", "english_modular_beats_single", "english_modular_beats_full",
        "english_modular_beats_untrained", "english_modular_beats_uniform",
        "english_router_search_beats_scratch", "english_router_search_beats_input",
    ]  # fmt: skip
    metrics = report["metrics"]
    arms = ["none", "modular", "modular_untrained", "uniform", "single", "scratch", "full"]
    searches = ["search_router", "search_both", "search_input", "search_scratch"]
    assert {f"world_questions.{arm}.accuracy" for arm in arms + searches} <= metrics.keys()
    assert [metrics[f"world_questions.{arm}.calls"] for arm in searches] == [16.0] * 4
    assert 0 < metrics["english.upstream.reader"] < 1 and "english.upstream.modular" in metrics
    assert metrics["english.upstream.world_nli.chance"] == pytest.approx(1 / 3)
    assert {"english.upstream.world_nli.accuracy", "english.upstream.world_nli.majority"} <= metrics.keys()
    assert 0 <= metrics["english.masked_lm.accuracy"] <= 1 and metrics["english.masked_lm.most_frequent"] > 0
    assert metrics["english.upstream.gates_apart"] > 0
    assert any("about prompts." in note for note in report["notes"]) == (metrics["english.upstream.gain"] < 0.02)
    assert {p.stem for p in (folder / "plots").glob("*.png")} == {
        "claims", "english", "english_router", "english_upstream",
    }  # fmt: skip
    refused = connected.run(
        "run", "mp2", "--profile", "smoke", "--set", "datasets.builtin.english.downstream=[world_reviews]"
    )
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
