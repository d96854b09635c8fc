"""Asking again with hints, by a language model behind a real HTTP server."""

import pytest

from paperflows.components.errors import ServiceError
from paperflows.components.llm.request import BudgetExceeded
from paperflows.components.reasoning.progressive_hints import ask_again, chosen

from ..llm.conftest import status

QUESTIONS = ["How much are 2 and 3?", "How much are 4 and 4?"]


def asked_again(client, first, questions=QUESTIONS, **options):
    return ask_again(
        client, model="m", questions=questions, first=first, kind="number", temperature=1.0, **options
    )  # fmt: skip


def hints(text):
    return text.partition("near to ")[2].partition(".\n")[0] if "near to " in text else None


def texts(server):
    return [body["messages"][0]["content"] for body in server.bodies]


def always_another(text):
    return f"The answer is {10 + len(hints(text).split(', '))}."


def test_a_question_is_asked_until_two_answers_agree(server, llm):
    replies = {"6": "So 5. The answer is $5.", "6, 5": "Sure. The answer is 5.0.", "8": "The answer is 8."}
    server.reply = lambda text: replies[hints(text)]
    found = asked_again(llm(), ["6", "8"])
    assert found == [["6", "5", "5"], ["8", "8"]]
    assert [chosen(answers) for answers in found] == ["5", "8"]
    (last,) = texts(server)[2:]
    assert QUESTIONS[0] in last and hints(last) == "6, 5", "one question is settled and not asked again"


def test_it_ends_after_so_many_rounds_and_the_last_answer_stands(server, llm):
    server.reply = always_another
    (found,) = asked_again(llm(), ["9"], QUESTIONS[:1], rounds=3)
    assert found == ["9", "11", "12", "13"] and chosen(found) == "13"
    assert len(server.bodies) == 3


def test_a_reply_without_an_answer_is_no_hint_and_agrees_with_none(server, llm):
    said = iter(["I cannot say.", "Nor now.", "The answer is 5.", "The answer is 5."])
    server.reply = lambda _: next(said)
    (found,) = asked_again(llm(), [None], QUESTIONS[:1])
    assert found == [None, None, None, "5", "5"]
    assert [hints(text) for text in texts(server)] == [None, None, None, "5"], "each time a new sample is asked for"
    assert chosen([None, "5", None]) == "5" and chosen([None]) is None


def test_a_second_run_asks_for_nothing(server, llm):
    server.reply = lambda _: "The answer is 7."
    first = asked_again(llm(), ["6", "8"])
    sent = len(server.bodies)
    again = llm()
    assert asked_again(again, ["6", "8"]) == first == [["6", "7", "7"], ["8", "7", "7"]]
    assert len(server.bodies) == sent == again.usage.counters["cached"]


def test_a_failed_request_ends_the_run_and_a_passing_fault_does_not(server, llm):
    server.reply = lambda _: "The answer is 6."
    server.script = [status(503)]
    assert asked_again(llm(), ["6"], QUESTIONS[:1]) == [["6", "6"]]
    server.script = [status(400)]
    with pytest.raises(ServiceError, match=r"completions failed: HTTP 400"):
        asked_again(llm(), ["8"], QUESTIONS[1:])


def test_the_budget_holds(server, llm):
    server.reply = always_another
    with pytest.raises(BudgetExceeded, match="max_requests"):
        asked_again(llm(max_requests=2), ["9"], QUESTIONS[:1])
    assert len(server.bodies) == 2
