import json

import pytest

from paperflows.components.errors import InputError
from paperflows.components.llm.backends import LLMSettings, open_llm
from paperflows.components.llm.recording import Recorder
from paperflows.components.llm.replay import ReplayExhausted

from .conftest import ask_for


def replay(path, tmp_path, name="r.sqlite"):
    return open_llm(LLMSettings(kind="replay", model="m", replay_path=str(path), cache_path=tmp_path / name))


def test_what_was_recorded_is_replayed_without_the_server(client, server, tmp_path):
    path = tmp_path / "record.jsonl"
    requests = [ask_for(f"q{i}", n=2, temperature=0.7) for i in range(5)]
    first = client(observers=[Recorder(path)]).run(requests)
    server.close()
    again = replay(path, tmp_path)
    assert [[c.text for c in group] for group in again.run(requests)] == [[c.text for c in g] for g in first]
    with pytest.raises(ReplayExhausted, match="'new'"):
        again.run([ask_for("new")])
    again.close()


@pytest.fixture
def chains(tmp_path):
    path = tmp_path / "chains.jsonl"
    rows = [
        {"item": "q1", "style": s, "text": f"{s} chain {i}", "answer": "GOLD"}
        for i in range(4)
        for s in ("cot", "plain")
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def test_items_in_order_with_filters_and_without_gold(chains, tmp_path):
    llm = replay(chains, tmp_path)
    found = llm.run([ask_for("anything", n=3, tags={"item": "q1", "style": "cot"})])[0]
    assert [c.text for c in found] == ["cot chain 0", "cot chain 1", "cot chain 2"]
    assert all(c.estimated and c.completion_tokens > 0 for c in found)
    assert "GOLD" not in json.dumps([c.model_dump() for c in found])
    llm.close()


def test_the_same_words_for_other_items_or_styles_are_other_completions(chains, tmp_path):
    with chains.open("a") as file:
        file.write('{"item": "q2", "style": "cot", "text": "of q2"}\n')
    llm = replay(chains, tmp_path)
    tags = [{"item": "q1", "style": "cot"}, {"item": "q1", "style": "plain"}, {"item": "q2", "style": "cot"}]
    found = llm.run([ask_for("the same", tags=t) for t in tags])
    assert [c.text for (c,) in found] == ["cot chain 0", "plain chain 0", "of q2"]
    llm.close()
    chains.write_text('{"item": "q1", "style": "cot", "text": "another file"}\n')
    llm = replay(chains, tmp_path)
    assert llm.run([ask_for("the same", tags=tags[0])])[0][0].text == "another file"
    llm.close()


def test_a_recording_of_tagged_requests_is_found_by_request(client, server, tmp_path):
    path = tmp_path / "record.jsonl"
    requests = [ask_for(f"q{i}", tags={"stage": "sample", "item": str(i)}) for i in range(3)]
    client(observers=[Recorder(path)]).run(requests)
    again = replay(path, tmp_path)
    assert [c.text for (c,) in again.run(requests)] == ["echo q0", "echo q1", "echo q2"]
    again.close()


def test_exhaustion_says_how_many(chains, tmp_path):
    llm = replay(chains, tmp_path)
    with pytest.raises(ReplayExhausted) as raised:
        llm.run([ask_for("x", n=5, tags={"item": "q1", "style": "cot"})])
    assert (raised.value.item, raised.value.asked, raised.value.available) == ("q1", 5, 4)
    llm.close()


def test_seed_permutes_each_item(chains):
    import asyncio

    from paperflows.components.llm.replay import Replay

    request = ask_for("x", n=8, tags={"item": "q1"})
    orders = {seed: [c.text for c in asyncio.run(Replay(chains, seed=seed).send(request))] for seed in (None, 1, 1, 2)}
    assert orders[None][0] == "cot chain 0" and orders[1] != orders[2]
    assert sorted(orders[1]) == sorted(orders[None])


def test_a_file_that_is_no_recording_is_named(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"item": "a", "text": "ok"}\n{"question": "b"}\n')
    with pytest.raises(InputError, match=r"bad\.jsonl:2: not a recorded completion"):
        replay(path, tmp_path)
    with pytest.raises(InputError, match="is not a file"):
        replay(tmp_path / "none.jsonl", tmp_path)
