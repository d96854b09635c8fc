import asyncio
import json
import threading
import time
from collections import defaultdict

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request as HTTPRequest
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from paperflows.components.llm.backends import LLMSettings, open_llm
from paperflows.components.llm.endpoint import PROBE
from paperflows.components.llm.request import Message, Request


class FaultServer:
    """An OpenAI-compatible server whose replies follow a script; it counts what reaches it."""

    def __init__(self):
        self.script, self.bodies, self.headers = [], [], []
        self.per_text = defaultdict(int)
        self.flying = self.most_flying = 0
        self.delay = 0.0
        self.reply = lambda text: f"echo {text}"
        self.honours = {"n": True, "json": False, "logprobs": True, "seed": True, "top_k": True}
        self.drawn = 0
        app = Starlette(
            routes=[
                Route("/v1/chat/completions", self.answer, methods=["POST"]),
                Route("/v1/completions", self.answer, methods=["POST"]),
            ]
        )
        config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", timeout_graceful_shutdown=1)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"

    async def answer(self, request: HTTPRequest) -> Response:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        chat = "messages" in body
        text = body["messages"][-1]["content"] if chat else body["prompt"]
        self.per_text[text] += 1
        self.flying += 1
        self.most_flying = max(self.most_flying, self.flying)
        try:
            if self.delay:
                await asyncio.sleep(self.delay)
            if self.script:
                step = self.script.pop(0)
                reply = step if isinstance(step, Response) or step is None else step(body)
                if reply is not None:
                    return await reply if asyncio.iscoroutine(reply) else reply
            return JSONResponse(self.good(body, text, chat))
        finally:
            self.flying -= 1

    def good(self, body, text, chat):
        n = body.get("n", 1) if self.honours["n"] else 1
        content = self.free(body) if text == PROBE else self.reply(text)
        if body.get("response_format") and self.honours["json"]:
            content = json.dumps({"n": 1})
        choices = []
        for i in range(n):
            said = f"{content} #{i}" if n > 1 else content
            choice = {"index": i, "finish_reason": "stop"}
            if chat:
                choice["message"] = {"role": "assistant", "content": said}
                if body.get("logprobs") and self.honours["logprobs"]:
                    token = {"token": "echo", "logprob": -0.5, "bytes": None, "top_logprobs": []}
                    choice["logprobs"] = {"content": [token]}
            else:
                choice["text"] = said
            choices.append(choice)
        kind = "chat.completion" if chat else "text_completion"
        usage = {"prompt_tokens": 7, "completion_tokens": 3 * n, "total_tokens": 7 + 3 * n}
        return {"id": "x", "object": kind, "created": 1, "model": "served", "choices": choices, "usage": usage}

    def free(self, body):
        """What a model says where much is likely."""
        if body.get("temperature", 1.0) == 0 or (body.get("top_k") == 1 and self.honours["top_k"]):
            return "the likeliest words"
        if body.get("seed") is not None and self.honours["seed"]:
            return f"words of seed {body['seed']}"
        self.drawn += 1
        return f"words of draw {self.drawn}"

    def close(self):
        self.server.should_exit = True
        self.thread.join(5)


def status(code, body=None, **headers):
    return JSONResponse(body or {"error": {"message": f"no: {code}"}}, code, headers=headers)


def html():
    return HTMLResponse("<html>a proxy's page</html>")


def ask_for(text, **options):
    return Request(model="m", messages=(Message(role="user", content=text),), **options)


@pytest.fixture
def server():
    running = FaultServer()
    yield running
    running.close()


@pytest.fixture
def slept():
    return []


@pytest.fixture
def client(server, tmp_path, slept):
    opened = []

    def make(*, key="secret-key", cache="c.sqlite", observers=(), **settings):
        async def sleep(seconds):
            slept.append(seconds)
            await asyncio.sleep(0)

        values = {"kind": "endpoint", "model": "m", "base_url": server.url, "cache_path": tmp_path / cache, **settings}
        llm = open_llm(LLMSettings(**values), api_key=key, sleep=sleep, observers=observers)
        opened.append(llm)
        return llm

    yield make
    for llm in opened:
        llm.close()
