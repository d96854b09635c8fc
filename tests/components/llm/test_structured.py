"""Replies that are JSON, and the writer and judge that ask for them."""

import json

import pytest
from pydantic import BaseModel
from starlette.responses import JSONResponse

from paperflows.components.annotation.llm import LLMJudge, LLMWriter
from paperflows.components.llm.structured import ask, first_json

from .conftest import ask_for


class Grade(BaseModel):
    explanation: str
    score: float


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('Sure: {"score": 0.5, "explanation": "a } in text"} and 0.9', {"score": 0.5, "explanation": "a } in text"}),
        ('```json\n[1, {"a": 2}]\n```', [1, {"a": 2}]),
        ("The score is 0.7.", None),
        ('{"score": NaN} then {"score": 1}', {"score": 1}),
        ("{ not json } {}", {}),
    ],
)
def test_first_json(text, value):
    assert first_json(text) == value


def chat_reply(server, text):
    def reply(body):
        whole = server.good(body, "", True)
        whole["choices"][0]["message"]["content"] = text
        return JSONResponse(whole)

    return reply


def test_unreadable_reply_is_asked_again_with_its_error(client, server):
    good = json.dumps({"explanation": "x", "score": 0.25})
    server.script = [None, chat_reply(server, "about 0.7, I think"), chat_reply(server, good)]  # first: the probe
    llm = client(concurrency=1)
    (grade,) = ask(llm, [ask_for("grade")], Grade)
    assert grade.score == 0.25 and llm.usage.counters["parse_failures"] == 1
    last = server.bodies[-1]["messages"]
    assert last[-2]["content"] == "about 0.7, I think" and "could not be read" in last[-1]["content"]


def test_reply_that_stays_unreadable_is_counted_not_guessed(client, server):
    server.script = [None, *[chat_reply(server, "0.7") for _ in range(3)]]
    llm = client(concurrency=1)
    assert ask(llm, [ask_for("grade")], Grade) == [None]
    assert llm.usage.counters["parse_failures"] == 3 and len(server.bodies) == 4


def test_schema_is_sent_where_the_server_honours_it(client, server):
    server.honours["json"] = True
    ask(client(), [ask_for("grade")], Grade, again=0)
    assert server.bodies[-1]["response_format"]["json_schema"]["schema"]["required"] == ["explanation", "score"]


def test_writer_and_judge_over_http(client, server):
    def reply(body):
        text = body["messages"][-1]["content"]
        if "Sentence 1" in text:
            return chat_reply(server, json.dumps({"explanation": "why 0.1", "score": 0.8}))(body)
        return chat_reply(server, '"A new sentence."\nSecond line' if "<mask>" in text else "still <mask> here")(body)

    server.script = [reply] * 50
    llm = client(concurrency=1)
    written = LLMWriter(llm, model="m").write(["one two three four", "five six"], [0.5, 0.0], 1)
    assert written == ["A new sentence.", None]
    assert server.bodies[0]["temperature"] == 0.7 and server.bodies[0]["top_p"] == 0.9
    (judged,) = LLMJudge(llm, model="m").score([("a", "b")])
    assert (judged.score, judged.explanation) == (0.8, "why 0.1")
