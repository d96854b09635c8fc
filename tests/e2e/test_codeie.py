"""The flow `codeie` by its command, with a language model behind a real HTTP endpoint asked in context."""

import json

import pytest

from ..components.extraction.seq2seq import save_seq2seq
from ..components.llm.conftest import FaultServer, status

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
    server.script = [status(400, {"error": {"message": "This model's maximum context length is 100 tokens"}})]
    folder = connected.root / "t5"
    save_seq2seq(folder, ["The text is : country person <0> <1> <5>", "Rome lies in Italy ."])
    t5 = f"seq2seq={{model: {folder}, steps: 2, batch_size: 2, learning_rate: 0.001, max_length: 64, longest: 12}}"
    models = json.dumps({"code": {"kind": "endpoint", "model": "m", "base_url": server.url}})
    try:
        done = connected.run(
            "run", "codeie", "--profile", "smoke", "--set", f"models={models}", "--set", t5, OPENAI_API_KEY="k"
        )
        assert done.returncode == 0, done.stderr
        sent = [body["prompt"] for body in server.bodies if "prompt" in body]
    finally:
        server.close()
    (path,) = (connected.root / "runs").glob("*/report.json")
    report = json.loads(path.read_text())
    metrics, claims = report["metrics"], {c["id"].partition("_world")[0]: c for c in report["claims"]}
    assert set(claims) == {
        "form_fits_model", "code_beats_brackets", "code_beats_brackets_at_equal_tokens", "fewer_broken",
        "likelier_targets", "parser_recovers", "code_beats_tags", "code_beats_brackets_constrained",
        "code_beats_seq2seq", "in_context_beats_seq2seq",
    }  # fmt: skip
    cut = {name for name in metrics if name.startswith("targets_cut.")}
    assert cut and all(0 <= metrics[name] <= 10 for name in cut)
    assert max(metrics[name] for name in cut) > 0, "code is longer than the 20 tokens of the smoke profile"
    equal, full = (
        {k: metrics[f"{k}.world_names entities.code model code{at}.8"] for k in ("steps", "tokens_a_target")}
        for at in (" at equal tokens", "")
    )
    brackets = metrics["tokens_a_target.world_names entities.text model sel.8"]
    assert full["steps"] == 2 and equal["steps"] == max(1, round(2 * brackets / full["tokens_a_target"]))
    assert 0 <= metrics["f1.world_names entities.seq2seq.8"] <= 1 and claims["code_beats_seq2seq"]["n"] == 10
    constrained = {k: v for k, v in metrics.items() if k.startswith("constrained_")}
    assert len(constrained) == 10 and all(0 <= value <= 1 for value in constrained.values())
    assert claims["parser_recovers"]["verdict"] == "holds"
    assert metrics["invented.world_names entities"] == 0 < metrics["answers.world_names entities"]
    assert metrics["recovered.world_names entities.dict_call.official"] == 0
    assert len(sent) == 21 and all("# END" in prompt for prompt in sent), "ten sentences in two forms, one shortened"
    assert len(sent[-1]) < len(sent[0]) or len(sent[10]) < len(sent[0])
    keys = [f"world_names entities.code model in context {form}.0" for form in ("code", "sel")]
    assert sorted(metrics[f"llm.requests.{key}"] for key in keys) == [10, 11]
    assert all(metrics[f"structural_errors.{key}"] == 0 for key in keys)
    assert sorted(metrics[f"shortened.{key}"] for key in keys) == [0, 1]
    assert all(metrics[f"unanswered.{key}"] == 0 for key in keys)
