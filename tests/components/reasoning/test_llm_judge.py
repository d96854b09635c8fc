"""AoR with a language model behind a real HTTP server as sampler and judge."""

import json
import re
from collections import Counter

import pytest

from paperflows.components.errors import ServiceError
from paperflows.components.reasoning.aggregation import Settings, run_all
from paperflows.components.reasoning.llm_judge import LLMJudge, llm_sampler

from ..llm.conftest import status

QUESTIONS = ["How much are 2 and 3?", "How much are 4 and 4?"]


def points(total):
    validity, consistency = min(3, total), min(3, max(0, total - 3))
    rest = max(0, total - 6)
    return {"reasoning": "checked", "validity": validity, "consistency": consistency,
            "completeness": min(2, rest), "knowledge": max(0, rest - 2)}  # fmt: skip


class Model:
    """Answers 5 and 6 in turn to each question; as judge it gives 9 to five, 7 to six."""

    def __init__(self):
        self.asked = Counter()
        self.broken = False

    def __call__(self, text):
        solutions = re.findall(r"Solution (\d+)(?: \(result: \w+\))?:\n(.*)", text)
        if not solutions:
            self.asked[text] += 1  # by question: in which order those of several come is chance
            said = 5 + self.asked[text] % 2
            return f"Two and three are {said}. The answer is {said}."
        if self.broken:
            return "I would say nine."
        scores = [{"chain": int(n), **points(9 if "are 5." in body else 7)} for n, body in solutions]
        return f"Here you are:\n```json\n{json.dumps({'scores': scores})}\n```"


def aggregate(client, **settings):
    judge = LLMJudge(client, model="m", questions=QUESTIONS)
    sample = llm_sampler(client, model="m", questions=QUESTIONS, kind="number", temperature=1.0)
    return run_all(
        range(2), Settings(**settings), seed=0, sample=sample, local=judge.local, compare=judge.compare
    )  # fmt: skip


def test_the_judge_decides(server, llm):
    server.reply = Model()
    client = llm()
    outcomes = aggregate(client, first=4, most=4)
    assert [o.answer for o in outcomes.values()] == ["5", "5"]
    assert all(o.margin == pytest.approx(2.0) for o in outcomes.values())
    text = next(
        b["messages"][0]["content"] for b in server.bodies if "Solution 1 (result" in b["messages"][0]["content"]
    )
    assert QUESTIONS[0] in text or QUESTIONS[1] in text, "the judge sees the problem"
    sent = len(server.bodies)
    again = llm()
    aggregate(again, first=4, most=4)
    assert len(server.bodies) == sent, "a second run asks for nothing"


def test_more_chains_ask_only_for_more(server, llm):
    server.reply = Model()
    client = llm()
    sample = llm_sampler(client, model="m", questions=QUESTIONS, kind="number", temperature=1.0)
    from paperflows.components.reasoning.aggregation import Sample

    first = sample([Sample(0, 0, 3)])[0]
    sent = len(server.bodies)
    more = sample([Sample(0, 3, 2)])[0]
    assert [c.number for c in first + more] == [0, 1, 2, 3, 4]
    assert len(server.bodies) - sent == 2


def test_replies_that_cannot_be_read_are_asked_for_again_and_counted(server, llm):
    model = Model()
    model.broken = True
    server.reply = model
    client = llm()
    outcomes = aggregate(client, first=2, most=2)
    assert all(o.unread == 2 and o.ended.startswith("majority") for o in outcomes.values())
    assert client.usage.counters["parse_failures"] == 4 * 5


@pytest.mark.parametrize("stage", ["Solution 1", "q"])
def test_a_request_that_fails_ends_the_run(server, llm, stage):
    def refuse(body):
        text = body["messages"][0]["content"]
        return status(400) if stage == "q" or stage in text else None

    server.reply = Model()
    server.script = [refuse] * 50
    client = llm()
    with pytest.raises(ServiceError, match=r"completions failed: HTTP 400"):
        aggregate(client, first=4, most=4)


def test_a_chain_that_is_scored_twice_or_not_has_no_score(server, llm):
    from paperflows.components.reasoning.aggregation import Chain, Local

    entry = {"chain": 1, **points(9)}
    server.reply = lambda text: json.dumps({"scores": [entry, entry, {"chain": 7, **points(1)}]})
    client = llm()
    judge = LLMJudge(client, model="m", questions=QUESTIONS)
    chains = (Chain(0, "first", "5"), Chain(1, "second", "5"))
    assert judge.local([Local(0, chains)]) == [[None, None]]
