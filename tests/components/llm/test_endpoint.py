import asyncio
import json

import pytest
from starlette.responses import JSONResponse, Response

from paperflows.components.errors import ServiceError
from paperflows.components.llm.backend import EndpointError
from paperflows.components.llm.endpoint import PROBE
from paperflows.components.llm.recording import Recorder
from paperflows.components.llm.request import BudgetExceeded, Message, Request, UnsupportedField

from .conftest import ask_for, html, status


def test_answers_in_order_and_are_asked_for_once(client, server):
    llm = client()
    requests = [ask_for(f"q{i} ü") for i in range(40)]
    texts = [c.text for (c,) in llm.run(requests)]
    assert texts == [f"echo q{i} ü" for i in range(40)]
    again = llm.run(requests)
    assert [c.text for (c,) in again] == texts and all(c.cached for (c,) in again)
    assert len(server.bodies) == 40
    assert llm.usage.counters["requests"] == 40 and llm.usage.counters["cached"] == 40
    assert llm.usage.counters["prompt_tokens"] == 280 and llm.usage.counters["completion_tokens"] == 120


def test_concurrency_is_used_and_never_passed(client, server):
    server.delay = 0.02
    client(concurrency=6).run([ask_for(f"q{i}") for i in range(60)])
    assert server.most_flying == 6


@pytest.mark.parametrize(
    ("script", "sent", "waits"),
    [
        ([status(429, None, **{"retry-after": "1"})], 2, [1.0]),
        ([status(429, None, **{"retry-after-ms": "250"})], 2, [0.25]),
        ([status(500), status(502)], 3, None),
        ([status(503), status(408), status(409)], 4, None),
        ([html()], 2, None),
        ([JSONResponse({"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": []})], 2, None),
        ([Response('{"id": "x", "choi', media_type="application/json")], 2, None),
    ],
)
def test_what_is_tried_again_and_how_often(client, server, slept, script, sent, waits):
    server.script = list(script)
    llm = client()
    ((answer,),) = llm.run([ask_for("q")])
    assert answer.text == "echo q" and len(server.bodies) == sent
    assert llm.usage.counters["retries"] == sent - 1
    if waits:
        assert slept == waits
    else:
        assert len(slept) == sent - 1 and all(0 <= s <= 2**i for i, s in enumerate(slept))


@pytest.mark.parametrize(("code", "body", "error"), [(400, None, "HTTP 400"), (422, None, "HTTP 422"),
    (400, {"error": {"message": "too long", "code": "context_length_exceeded"}}, "context_length_exceeded")])  # fmt: skip
def test_a_bad_request_fails_alone_and_is_not_repeated(client, server, code, body, error):
    bad = status(code, body)
    server.script = [lambda b: bad if b["messages"][-1]["content"] == "bad" else None for _ in range(3)]
    llm = client(concurrency=1)
    (first,), (failed,), (last,) = llm.run([ask_for("a"), ask_for("bad"), ask_for("b")])
    assert (first.text, last.text) == ("echo a", "echo b")
    assert failed.finish_reason == "error" and error in failed.error
    assert len(server.bodies) == 3 and llm.usage.counters["errors"] == 1
    server.script = []
    assert llm.run([ask_for("bad")])[0][0].text == "echo bad", "a failure is not remembered"


@pytest.mark.parametrize("code", [401, 403, 404])
def test_no_key_or_model_stops_at_once(client, server, code):
    server.script = [status(code, {"error": {"message": "key secret-key is wrong"}})] * 50
    with pytest.raises(EndpointError, match=f"HTTP {code}") as raised:
        client(concurrency=1).run([ask_for(f"q{i}") for i in range(20)])
    assert len(server.bodies) == 1
    assert "secret-key" not in str(raised.value) and server.url in str(raised.value)


def test_server_that_always_fails_gives_up_after_eight(client, server):
    llm = client()
    llm.run([ask_for("warm up")])
    server.script = [status(500)] * 100
    ((failed,),) = llm.run([ask_for("q")])
    assert failed.finish_reason == "error" and "HTTP 500" in failed.error
    assert server.per_text["q"] == 8


def test_a_server_that_is_still_starting_is_waited_for(client, server):
    server.script = [status(503)] * 6
    ((answer,),) = client().run([ask_for("q")])
    assert answer.text == "echo q" and server.per_text["q"] == 7


def test_what_all_need_is_an_error_where_one_fails(client, server):
    server.script = [lambda body: status(400) if body["messages"][-1]["content"] == "bad" else None] * 2
    llm = client(concurrency=1)
    with pytest.raises(ServiceError, match="1 of 2 completions failed: HTTP 400"):
        llm.run([ask_for("good"), ask_for("bad")], all_needed=True)
    server.script = []
    llm.run([ask_for("good"), ask_for("bad")], all_needed=True)
    assert server.per_text["good"] == 1, "what was answered is remembered"


@pytest.mark.parametrize(
    ("change", "text", "estimated"),
    [
        (lambda r: r["usage"].pop("completion_tokens"), "echo q", True),
        (lambda r: r["usage"].update(prompt_tokens=None), "echo q", True),
        (lambda r: r.pop("usage"), "echo q", True),
        (lambda r: r["choices"][0]["message"].update(content="half \ud83d of one"), "half \ufffd of one", False),
    ],
    ids=["no completion tokens", "null prompt tokens", "no usage", "half a character"],
)
def test_unusual_replies_are_read(client, server, change, text, estimated):
    def unusual(body):
        reply = server.good(body, "q", True)
        change(reply)
        return Response(json.dumps(reply), media_type="application/json")

    server.script = [unusual]
    ((answer,),) = client().run([ask_for("q")])
    assert (answer.text, answer.estimated) == (text, estimated)
    assert answer.prompt_tokens > 0 and answer.completion_tokens > 0


def test_a_choice_without_a_message_is_asked_for_again(client, server):
    bad = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [{"index": 0}]}
    server.script = [JSONResponse(bad)]
    assert client().run([ask_for("q")])[0][0].text == "echo q" and server.per_text["q"] == 2


def test_seconds_are_counted(client, server):
    server.delay = 0.05
    llm = client()
    llm.run([ask_for("q")])
    assert 0.05 <= llm.usage.counters["seconds"] < 5


def test_nobody_listening_is_one_clear_error(client, server):
    llm = client(base_url="http://127.0.0.1:9/v1")
    with pytest.raises(ServiceError, match=r"127\.0\.0\.1:9/v1 cannot be reached"):
        llm.run([ask_for("q")])


def test_slow_reply_times_out_and_is_tried_again(client, server):
    async def slow():
        await asyncio.sleep(2)
        return status(500)

    server.script = [lambda body: slow()]
    llm = client(timeout_seconds=0.3)
    assert llm.run([ask_for("q")])[0][0].text == "echo q"
    assert len(server.bodies) == 2


def test_budget_stops_before_the_call_that_would_pass_it(client, server):
    llm = client(max_requests=7, concurrency=2)
    with pytest.raises(BudgetExceeded, match="max_requests = 7"):
        llm.run([ask_for(f"q{i}") for i in range(20)])
    assert len(server.bodies) == 7
    more = client(concurrency=2)
    more.run([ask_for(f"q{i}") for i in range(20)])
    assert len(server.bodies) == 20, "what was answered before the limit came from the cache"


def test_token_and_cost_limits(client, server):
    with pytest.raises(BudgetExceeded, match="max_tokens"):
        client(max_tokens=300, concurrency=1).run([ask_for(f"t{i}", max_tokens=100) for i in range(50)])
    # reserved: prompt estimate 1 + 100; used: 10 a call; 300 - 101 = 199 allows 19 calls and one more
    assert len(server.bodies) == 20
    prices = {"m": (1.0e6, 0.0)}  # one dollar a prompt token
    llm = client(max_cost=20.0, prices=prices, concurrency=1, cache="cost.sqlite")
    with pytest.raises(BudgetExceeded, match="max_cost"):
        llm.run([ask_for(f"t{i}") for i in range(9)])
    assert llm.usage.counters["cost"] == pytest.approx(14.0) or llm.usage.counters["cost"] == pytest.approx(21.0)


def test_samples_together_or_one_by_one(client, server):
    llm = client()
    assert len({c.text for c in llm.run([ask_for("s", n=3)])[0]}) == 3
    asked = [b for b in server.bodies if b["messages"][-1]["content"] == "s"]
    assert [b["n"] for b in asked] == [3]
    server.honours["n"] = False
    other = client(cache="other.sqlite")
    samples = other.run([ask_for("s2", n=3, seed=5)])[0]
    assert [c.sample for c in samples] == [0, 1, 2]
    assert sorted(b["seed"] for b in server.bodies if b["messages"][-1]["content"] == "s2") == [5, 6, 7]


def test_a_field_the_server_ignores_is_refused_before_sending(client, server):
    server.honours["logprobs"] = False
    with pytest.raises(UnsupportedField, match="does not honour logprobs"):
        client().run([ask_for("q", logprobs=0)])
    assert server.per_text["q"] == 0
    server.honours["logprobs"] = True
    (answer,) = client(cache="b.sqlite").run([ask_for("q", logprobs=0)])[0]
    assert answer.logprobs == (-0.5,) and answer.tokens == ("echo",)


@pytest.mark.parametrize(("field", "value"), [("seed", 3), ("top_k", 1), ("repetition_penalty", 1.3)])
def test_settings_that_change_nothing_are_not_honoured(client, server, field, value):
    if field != "repetition_penalty":  # which this server never reads
        assert client().backend_supports(field, ask_for("q"))
        server.honours[field] = False
    with pytest.raises(UnsupportedField, match=f"does not honour {field}"):
        client(cache="b.sqlite").run([ask_for("q", **{field: value})])
    server.free = lambda _: "always the same"
    assert not client(cache="other.sqlite").backend_supports(field, ask_for("q")), (
        "one reply to everything says nothing"
    )


def test_requests_at_once_probe_once_and_fail_once(client, server):
    server.script = [status(503)] * 1000
    with pytest.raises(EndpointError, match="cannot be reached"):
        client(concurrency=4).run([ask_for(f"q{i}", n=3) for i in range(50)])
    assert server.per_text[PROBE] == 8, "the eight attempts of one probe"
    server.script, server.delay = [], 0.02
    client(concurrency=4).run([ask_for(f"q{i}", n=3) for i in range(50)])
    assert server.per_text[PROBE] == 9


def test_probe_is_remembered(client, server):
    client().run([ask_for("a", n=2)])
    sent = len(server.bodies)
    client().run([ask_for("b", n=2)])
    assert len(server.bodies) == sent + 1


def test_probe_is_tried_again_and_a_dead_server_is_said(client, server):
    server.script = [status(500), status(503)]
    assert client().backend_supports("n", ask_for("a"))
    with pytest.raises(EndpointError, match=r"127\.0\.0\.1:9/v1 cannot be reached"):
        client(base_url="http://127.0.0.1:9/v1", cache="d.sqlite").backend_supports("n", ask_for("a"))


def test_text_completion_and_local_stop(client, server):
    request = Request(model="m", prompt="def f(): END tail", stop=("END",), extra={"top_a": 0.1})
    (answer,) = client().run([request])[0]
    assert (answer.text, answer.finish_reason) == ("echo def f(): ", "stop")
    assert server.bodies[0]["stop"] == ["END"] and server.bodies[0]["top_a"] == 0.1


def test_equal_requests_at_once_are_sent_once(client, server):
    server.delay = 0.05
    answers = client().run([ask_for("same")] * 20)
    assert len(server.bodies) == 1 and {c.text for (c,) in answers} == {"echo same"}


def test_tags_are_not_part_of_the_key_but_the_prompt_file_is(client, server):
    llm = client()
    llm.run([ask_for("q", tags={"item": "1"})])
    llm.run([ask_for("q", tags={"item": "2"})])
    assert len(server.bodies) == 1
    llm.run([ask_for("q", prompt_hash="other version")])
    assert len(server.bodies) == 2


def test_key_is_sent_in_the_header_and_kept_nowhere(client, server, tmp_path, caplog):
    recorded = tmp_path / "record.jsonl"
    llm = client(observers=[Recorder(recorded)])
    llm.run([ask_for("q")])
    assert server.headers[0]["authorization"] == "Bearer secret-key"
    llm.cache._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for path in tmp_path.iterdir():
        assert b"secret-key" not in path.read_bytes(), path
    assert "secret-key" not in caplog.text


def test_request_needs_exactly_one_input():
    with pytest.raises(ValueError, match="exactly one"):
        Request(model="m")
    with pytest.raises(ValueError, match="exactly one"):
        Request(model="m", prompt="a", messages=(Message(role="user", content="b"),))
