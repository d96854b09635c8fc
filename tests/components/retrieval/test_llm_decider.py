"""The decision by prompt, of a language model behind a real HTTP endpoint."""

import json

from paperflows.components.llm.backends import LLMSettings, open_llm
from paperflows.components.retrieval.llm_decider import decide_by_prompt

from ..llm.conftest import FaultServer


def reply(prompt):
    request = prompt.partition("Request: ")[2].partition("\n")[0]
    if request == "mumble":
        return "I cannot say."
    return f"Well: {json.dumps({'retrieve': 'now' in request})}" if request else "a probe of the server"


def test_each_request_is_asked_once_and_nothing_is_guessed(tmp_path):
    server = FaultServer()
    server.reply = reply
    values = {"kind": "endpoint", "model": "m", "base_url": server.url, "cache_path": tmp_path / "c.sqlite"}
    llm = open_llm(LLMSettings(**values), api_key="k")
    try:
        texts = ["who is president now", "write a poem", "mumble", "who is president now"]
        assert decide_by_prompt(llm, model="m", texts=texts) == [True, False, None, True]
        before = len(server.bodies)
        assert decide_by_prompt(llm, model="m", texts=texts[:2]) == [True, False]
        assert len(server.bodies) == before, "every call is remembered"
        assert decide_by_prompt(llm, model="m", texts=[]) == []
    finally:
        llm.close()
        server.close()
