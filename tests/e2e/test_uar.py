"""The flow `uar` by its command, on the built-in texts."""

import json
import signal

import httpx
import numpy as np
import pytest
from safetensors.numpy import load_file

from paperflows.components.ports import free_port

from ..components.llm.conftest import FaultServer

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_smoke_run(connected):
    done = connected.run("run", "uar", "--profile", "smoke")
    assert done.returncode == 0, done.stderr
    (path,) = (connected.root / "runs").glob("*/report.json")
    report = json.loads(path.read_text())
    claims = {c["id"]: c for c in report["claims"]}
    assert len(claims) == 2 * 7 + 7 and "decision_is_free" in claims
    metrics = report["metrics"]
    assert metrics["accuracy.always.test"] == metrics["accuracy.never.unseen"] == 0.5, "half of a mix wants a retrieval"
    assert metrics["accuracy.uar.test"] == claims["beats_skr_test"]["ours"]
    assert metrics["answers.retrieved.always"] == 1 and metrics["answers.retrieved.never"] == 0
    assert metrics["answers.right.never"] < metrics["answers.right.always"] and metrics["answers.found"] > 0.5
    assert 0 < metrics["decision.milliseconds"] < 1000 and metrics["passages"] == 200
    known = load_file(path.parent / "artifacts" / "knowledge" / "knowledge.safetensors")
    assert known["states"].shape[1] == 384 and 0 < known["right"].mean() < 1
    assert np.isfinite(load_file(path.parent / "artifacts" / "heads" / "heads.safetensors")["linear.weight"]).all()
    assert any("No language model was asked" in note for note in report["notes"])

    port = free_port()
    process = connected.start("decide", str(path.parent / "artifacts" / "heads"), "--port", str(port))
    assert process.stdout.readline() == f'POST http://127.0.0.1:{port}/decide with {{"text": …}}; Ctrl-C stops\n'
    asks = ["Search the web: who wrote Hamlet?", "Write a poem about the sea."]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=httpx.HTTPTransport(retries=5)) as client:
        said = [client.post("/decide", json={"text": text}).raise_for_status().json() for text in asks]
        taken = connected.run("decide", str(path.parent / "artifacts" / "heads"), "--port", str(port))
    assert [set(one["criteria"]) for one in said] == [{"intent", "knowledge", "time", "unknown"}] * 2
    for one in said:
        intent, knowledge, time, unknown = (value > 0.5 for value in one["criteria"].values())
        assert one["retrieve"] == (intent or (knowledge and (time or unknown)))
    assert taken.returncode == 3 and f"port {port} is taken" in taken.stderr
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0 and "Traceback" not in process.stderr.read()
    missing = connected.run("decide", "artifacts")
    assert missing.returncode == 2 and "does not exist" in missing.stderr


def test_a_language_model_decides_by_prompt_beside_it(connected):
    server = FaultServer()
    server.reply = lambda text: json.dumps({"retrieve": "now" in text.partition("Request: ")[2]})
    try:
        llm = ["--set", "llm.kind=endpoint", "--set", "llm.model=m", "--set", f"llm.base_url={server.url}"]
        done = connected.run("run", "uar", "--profile", "smoke", *llm, OPENAI_API_KEY="k")
    finally:
        server.close()
    assert done.returncode == 0, done.stderr
    (path,) = (connected.root / "runs").glob("*/report.json")
    report = json.loads(path.read_text())
    claims, metrics = {c["id"]: c for c in report["claims"]}, report["metrics"]
    assert len(claims) == 2 * 8 + 7 and claims["beats_prompt_test"]["baseline"] == metrics["accuracy.prompt.test"]
    assert (
        metrics["prompt.unreadable"] == 0
        and metrics["llm.requests"] <= metrics["requests.test"] + metrics["requests.unseen"]
    )
    assert 0 < metrics["answers.retrieved.prompt"] + metrics["accuracy.prompt.test"] < 2
    assert any("m was asked to decide by prompt" in note for note in report["notes"])
