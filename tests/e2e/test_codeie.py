"""The flow `codeie` by its command, with a language model behind a real HTTP endpoint asked in context."""

import json

import pytest

from ..components.llm.conftest import FaultServer

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def reply(prompt):
    """Says that the first word of the last sentence is a country, in the form that the prompt is in."""
    if "def named_entity_recognition" in prompt:
        word = prompt.rpartition("input_text = ")[2].split('"')[1].split()[0]
        return f'\tentity_list.append({{"text": "{word}", "type": "country"}})\n# END\nmore'
    word = prompt.rpartition('The text is : "')[2].split()[0]
    return f"<0> <0> country <5> {word} <1> <1>\n# END"


def test_smoke_run(connected):
    server = FaultServer()
    server.reply = reply
    models = json.dumps({"code": {"kind": "endpoint", "model": "m", "base_url": server.url}})
    try:
        done = connected.run("run", "codeie", "--profile", "smoke", "--set", f"models={models}", OPENAI_API_KEY="k")
        assert done.returncode == 0, done.stderr
        sent = [body["prompt"] for body in server.bodies if "prompt" in body]
    finally:
        server.close()
    (path,) = (connected.root / "runs").glob("*/report.json")
    report = json.loads(path.read_text())
    metrics, claims = report["metrics"], {c["id"].partition("_world")[0]: c for c in report["claims"]}
    assert set(claims) == {
        "form_fits_model", "code_beats_brackets", "fewer_broken", "likelier_targets", "parser_recovers", "code_beats_tags",
    }  # fmt: skip
    assert claims["parser_recovers"]["verdict"] == "holds"
    assert metrics["invented.world_names entities"] == 0
    assert metrics["recovered.world_names entities.dict_call.official"] == 0
    assert len(sent) == 20 and all("# END" in prompt for prompt in sent), "ten sentences in two forms"
    for form in ("code", "sel"):
        key = f"world_names entities.code model in context {form}.0"
        assert metrics[f"structural_errors.{key}"] == 0 and metrics[f"llm.requests.{key}"] == 10
