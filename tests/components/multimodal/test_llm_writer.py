"""A language model behind a real HTTP endpoint as the writer of topics and conversations."""

import json

from paperflows.components.multimodal.conversations import Scenario, grammar
from paperflows.components.multimodal.filters import reject
from paperflows.components.multimodal.llm_writer import expand, write

from ..llm.conftest import client as client
from ..llm.conftest import server as server
from ..llm.conftest import slept as slept

REPERTOIRE = {"picture": ["two", "seven"], "speech": ["two", "seven"], "music": ["2/4 in C"]}
TURNS = [{"user": "look <picture: seven>", "assistant": "a seven , like this <speech: seven>"}]
BAD = next(iter(grammar()["topics"]))


def reply(prompt):
    """Two topics of every meta topic but the first; a conversation as planned where it is about a market."""
    if '"topics"' in prompt:
        meta = prompt.split('"')[1]
        assert "(one of: two, seven)" in prompt
        return "no JSON" if meta == BAD else json.dumps({"topics": [f"{meta} one", f"{meta} two"]})
    if '"turns"' not in prompt:
        return "a probe of the server"
    assert "words and one picture" in prompt and "one of: two, seven" in prompt and "exactly 1 turns" in prompt
    return json.dumps({"turns": TURNS}) if "a market" in prompt else "I would rather not"


def test_unreadable_replies_are_none_and_the_others_are_kept(server, client):
    server.reply = reply
    llm = client()
    metas = list(grammar()["topics"])
    assert expand(llm, "m", 2 * len(metas), ["two", "seven"]) == [
        None,
        *([f"{meta} one", f"{meta} two"] for meta in metas[1:]),
    ]
    plan = (("picture", "speech"),)
    made = [Scenario(topic, "a child", "a teacher", "learn", plan) for topic in ("a market", "a war")]
    written = write(llm, "m", made, REPERTOIRE)
    assert written == [TURNS, None]
    assert reject({"turns": written[0], "plan": [list(turn) for turn in plan]}, REPERTOIRE, most_words=50) is None
