"""The decision over HTTP: what it says is what the decider says, and bad requests are refused."""

import threading
import time

import httpx
import numpy as np
import pytest
import torch
import uvicorn

from paperflows.components.retrieval.criteria import CriteriaHeads, RetrievalDecider
from paperflows.components.retrieval.service import LONGEST, decision_service


def encode(texts):
    return np.stack([np.random.default_rng(len(text)).normal(size=12) for text in texts]).astype(np.float32)


@pytest.fixture(scope="module")
def decider():
    torch.manual_seed(0)
    return RetrievalDecider(encode, CriteriaHeads(torch.zeros(12), torch.ones(12)))


@pytest.fixture(scope="module")
def client(decider):
    config = uvicorn.Config(decision_service(decider), host="127.0.0.1", port=0, log_level="critical")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    with httpx.Client(base_url=f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}") as opened:
        yield opened
    server.should_exit = True
    thread.join(5)


def test_it_says_what_the_decider_says(client, decider):
    said = set()
    for length in range(1, 21):
        text = "x" * length
        reply = client.post("/decide", json={"text": f" {text}? "}).raise_for_status().json()
        expected = decider.decide(text)
        assert reply == {"retrieve": expected.retrieve, "criteria": pytest.approx(expected.criteria)}
        said.add(reply["retrieve"])
    assert said == {True, False}


@pytest.mark.parametrize(
    "body",
    [{}, {"text": ""}, {"text": " \n"}, {"text": 7}, {"text": "x" * (LONGEST + 1)}, ["x"]],
    ids=["none", "empty", "blank", "number", "huge", "list"],
)
def test_what_is_no_request_is_refused(client, body):
    reply = client.post("/decide", json=body)
    assert reply.status_code == 422 and "body" in reply.json()["detail"][0]["loc"]


def test_it_serves_this_machine_alone(client):
    assert client.post("/decide", json={"text": "x"}, headers={"Host": "evil.example"}).status_code == 400
    assert client.post("/decide", content=b"\xff{").status_code == 422
    assert client.post("/decide", content=b"\xff{", headers={"Content-Type": "application/json"}).status_code == 400
    assert client.get("/decide").status_code == 405
