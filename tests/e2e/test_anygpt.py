"""The flow `anygpt` by its command, on the built-in media."""

import json

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_smoke_run(connected):
    done = connected.run("run", "anygpt", "--profile", "smoke")
    assert done.returncode == 0, done.stderr
    (path,) = (connected.root / "runs").glob("*/report.json")
    report = json.loads(path.read_text())
    ids = [claim["id"] for claim in report["claims"]]
    assert ids[:2] == ["near_specialist_picture_to_text", "above_chance_picture_to_text"]
    assert {"adding_music_text_to_speech", "chain_speech_to_picture", "conversions_recognised"} <= set(ids)
    metrics = report["metrics"]
    assert metrics["synthesis.files"] == metrics["synthesis.decoded"] > 0 and metrics["synthesis.kept"] == 20
    assert metrics["judge.reconstructed.music"] == metrics["judge.real.music"], "events are music without loss"
    yields = {(row["step"], row["what"]): row["number"] for row in report["tables"]["Yield of the synthesis"]}
    assert yields["write", "kept"] == yields["filter", "in"] and yields["filter", "kept"] == yields["convert", "in"]
    previews = path.parent / "plots" / "previews"
    assert {file.suffix for file in previews.iterdir()} == {".png", ".wav", ".abc"}
    page = (connected.root / "reports" / "index.html").read_text()
    assert page.count("<audio controls") >= 2 and "what it shows, says and plays" in page
    rows = [json.loads(r) for r in (path.parent / "artifacts" / "conversations" / "conversations.jsonl").open()]
    shown = json.dumps([row["turns"] for row in rows])
    assert "<picture" not in shown and "media/000000" in shown, "messages hold files, not their descriptions"
    mixed = connected.run("run", "anygpt", "--profile", "smoke", "--set", "models.joint.modalities=[picture,drawing]")
    assert mixed.returncode == 2 and "drawing" in mixed.stderr
