"""A language model behind a real HTTP server that gives one reply a request."""

from contextlib import ExitStack

import pytest

from paperflows.components.llm.backends import LLMSettings, open_llm

from ..llm.conftest import FaultServer


@pytest.fixture
def server():
    running = FaultServer()
    running.honours["n"] = False
    yield running
    running.close()


@pytest.fixture
def llm(server, tmp_path):
    """Opens clients of the server; they share a cache and are closed at the end."""
    with ExitStack() as opened:

        def open_(**settings):
            cache = tmp_path / "cache.sqlite"
            values = {"kind": "endpoint", "model": "m", "base_url": server.url, "cache_path": cache, **settings}
            client = open_llm(LLMSettings(**values), api_key="k")
            opened.callback(client.close)
            return client

        yield open_
