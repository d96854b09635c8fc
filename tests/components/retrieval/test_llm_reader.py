"""A language model behind a real HTTP endpoint as the judge of verified retrieval and the writer of answers."""

import json

from paperflows.components.retrieval.citations import Statement
from paperflows.components.retrieval.llm_reader import LLMReader
from paperflows.components.retrieval.verified import Settings, retrieve_verified

from ..llm.conftest import client as client
from ..llm.conftest import server as server
from ..llm.conftest import slept as slept

PASSAGES = ["Chad borders Niger.", "Niamey is the capital of Niger.", *(f"Town {i}." for i in range(12))]


def reply(prompt):
    """Picks Chad and Niamey where they are shown, says no until both are there, and asks for what lacks."""
    shown = {
        line[line.index("]") + 2 :]: int(line[1 : line.index("]")])
        for line in prompt.splitlines()
        if line.startswith("[")
    }
    if "Choose the" in prompt:
        return json.dumps({"passages": [shown[t] for t in PASSAGES[:2] if t in shown] + [1, 99]})
    if '"sufficient"' in prompt:
        return json.dumps({"sufficient": PASSAGES[1] in shown})
    if '"questions"' in prompt:
        assert "Which capitals do the neighbours of Chad have?" in prompt
        return 'Sure: {"questions": ["What is the capital of Niger?", " ", "x", "y", "z", "too many"]}'
    if '"statements"' not in prompt:
        return "a probe of the server"
    return json.dumps({"statements": [{"text": "Niamey", "citations": [shown[PASSAGES[1]], shown[PASSAGES[0]], 77]}]})


def search(queries, depth):
    return [([1] if "Niger" in query else [0]) + list(range(2, 14)) for query in queries]


def test_it_judges_and_answers(server, client):
    server.reply, llm = reply, client()
    questions = ["Which capitals do the neighbours of Chad have?", "What is the capital of Niger?"]
    reader = LLMReader(llm, model="m", questions=questions, passages=PASSAGES)
    outcomes = retrieve_verified(questions, search, reader, Settings(keep=3, pool=10, window=5, rounds=4))
    assert [(o.rounds, o.verified) for o in outcomes] == [(2, True), (1, True)]
    assert {0, 1} <= set(outcomes[0].chosen) and outcomes[0].trace[1]["queries"] == [
        "What is the capital of Niger?",
        "x",
        "y",
        "z",
    ]
    assert reader.answer([(0, outcomes[0].chosen)]) == [[Statement("Niamey", (1, 0))]]
    before = len(server.bodies)
    retrieve_verified(questions, search, reader, Settings(keep=3, pool=10, window=5, rounds=4))
    assert len(server.bodies) == before, "every call is remembered"


def test_replies_that_cannot_be_read_change_nothing(server, client):
    server.reply, llm = reply, client()
    server.reply = lambda prompt: "I would rather not say."
    reader = LLMReader(llm, model="m", questions=["q"], passages=PASSAGES)
    (outcome,) = retrieve_verified(["q"], search, reader, Settings(keep=3, pool=10, window=5, rounds=4))
    assert not outcome.verified and outcome.rounds == 1 and outcome.chosen == [0, 2, 3]
    assert reader.answer([(0, [0])]) == [[]]
