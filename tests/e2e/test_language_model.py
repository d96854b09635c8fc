"""CLAIF with a language model behind a real HTTP endpoint as writer and judge, and its recorded replies replayed."""

import json
import sqlite3

import pytest

from ..components.llm.conftest import FaultServer

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
KEY = "sk-" + "planted-4711"  # in two parts: the copied project holds this file too


def reply(text):
    if "Sentence 1:" in text:
        first, second = (text.split(f"Sentence {i}: ")[1].split("\n")[0] for i in (1, 2))
        shared = len(set(first.split()) & set(second.split())) / max(1, len(set(first.split()) | set(second.split())))
        return json.dumps({"explanation": "shared words, not 0.99", "score": round(shared, 2)})
    sentence = text.rpartition("Sentence: ")[2]
    return sentence.replace("<mask>", "something") + " indeed"


def settings(**values):
    return [
        part
        for role in ("writer", "judge")
        for key, value in values.items()
        for part in ("--set", f"annotation.{role}.{key}={value.format(role=role)}")
    ]


def test_annotation_by_an_endpoint_and_its_replay(connected):
    project = connected
    server = FaultServer()
    server.reply = reply
    try:
        endpoint = settings(kind="endpoint", model="m", base_url=server.url, api_key_variable="MY_KEY")
        prices = ["--set", "annotation.judge.price_in=2.0"]
        done = project.run("run", "claif", "--profile", "smoke", *endpoint, *prices, MY_KEY=KEY)
        assert done.returncode == 0, done.stderr
        sent = len(server.bodies)
    finally:
        server.close()
    (path,) = (project.root / "runs").glob("*/report.json")
    report = json.loads(path.read_text())
    metrics = report["metrics"]
    assert metrics["pairs.written"] == 80 and metrics["pairs.empty"] == 0
    assert metrics["llm.writer.requests"] == 80 and metrics["llm.judge.requests"] <= 80
    assert metrics["llm.judge.parse_failures"] == 0 and metrics["llm.judge.cost"] > 0
    # + the triplets of score_triplets, + one probe for JSON replies
    assert sent == metrics["llm.writer.requests"] + metrics["llm.judge.requests"] + 60 + 1
    assert "the cosine of" not in report["notes"][0] and "The judge is m" in report["notes"][0]

    annotations = path.parent / "artifacts" / "annotations"
    rows = [json.loads(line) for line in (annotations / "pairs.jsonl").read_text().splitlines()]
    written = [row for row in rows if row["source"] == "written"]
    assert all(row["text_pair"].endswith(" indeed") and row["explanation"] for row in written)
    assert len((annotations / "writer.completions.jsonl").read_text().splitlines()) == 80

    database = sqlite3.connect(project.root / "mlflow.db")
    assert database.execute("select count(*) from trace_info").fetchone()[0] > 100, "calls are traced"
    database.close()
    for file in project.root.rglob("*"):
        if file.is_file() and not file.is_symlink():
            assert KEY.encode() not in file.read_bytes(), f"the key is in {file}"
    assert KEY not in done.stdout + done.stderr

    # offline, from the recording alone; the triplets' judge is the encoder's cosine in neither run, so both are replayed
    judged = annotations / "judge.completions.jsonl"
    recording = project.root / "recorded.jsonl"
    recording.write_text((annotations / "writer.completions.jsonl").read_text() + judged.read_text())
    for cache in (project.root / ".state").glob("completions.*"):
        cache.unlink()
    replay = settings(kind="replay", model="m", replay_path=str(recording))
    again = project.run("run", "claif", "--profile", "smoke", *replay)
    assert again.returncode == 2 and "replay: 1 completions of" in again.stderr, "the triplets were not recorded there"
    assert "Traceback" not in again.stderr
