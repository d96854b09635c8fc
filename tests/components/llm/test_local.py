import shutil
import subprocess
import sys
import time
import urllib.request

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from paperflows.components.errors import InputError
from paperflows.components.llm.backends import LLMSettings, open_llm
from paperflows.components.llm.request import Message, Request, UnsupportedField
from paperflows.components.llm.sampling import RowSettings, next_tokens, uniforms
from paperflows.components.ports import free_port

CHAT = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small random Llama with a byte-level BPE and a chat template, as safetensors."""
    from tokenizers import ByteLevelBPETokenizer

    path = tmp_path_factory.mktemp("tiny-llama")
    learner = ByteLevelBPETokenizer()
    learner.train_from_iterator(["the cat sat on the mat and the dog ran away quickly"] * 20, vocab_size=400)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=learner._tokenizer, eos_token="<|end|>", pad_token="<|pad|>")
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=256, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(path)
    return path


@pytest.fixture
def llm(folder, tmp_path):
    opened = open_llm(LLMSettings(kind="tiny", model=str(folder), cache_path=tmp_path / "c.sqlite", concurrency=64))
    yield opened
    opened.close()


def prompt(text, **options):
    return Request(model="tiny", prompt=text, **options)


TEXTS = ["the cat", "a much longer prompt about the dog that ran away and the mat", "x", "the mat and the cat sat on"]


def test_greedy_equals_generate_of_the_library(llm, folder):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ours = [c.text for (c,) in llm.run([prompt(t, temperature=0, max_tokens=12) for t in TEXTS])]
    for text, got in zip(TEXTS, ours, strict=True):
        ids = tokenizer(text, return_tensors="pt")
        out = model.generate(**ids, max_new_tokens=12, do_sample=False)
        assert got == tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)


def test_penalty_equals_generate_of_the_library(llm, folder):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(TEXTS[1], return_tensors="pt")
    out = model.generate(**ids, max_new_tokens=12, do_sample=False, repetition_penalty=1.7)
    (answer,) = llm.run([prompt(TEXTS[1], temperature=0, max_tokens=12, repetition_penalty=1.7)])[0]
    assert answer.text == tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)


def test_neighbours_do_not_change_a_seeded_sample(llm, folder, tmp_path):
    request = prompt("the cat", seed=4, max_tokens=10, top_p=0.9)
    together = llm.run([request, *(prompt(t, seed=1, n=2, max_tokens=16) for t in TEXTS)])[0][0]
    alone = open_llm(LLMSettings(kind="tiny", model=str(folder), cache_path=tmp_path / "other.sqlite"))
    assert alone.run([request])[0][0].text == together.text
    alone.close()


def test_samples_of_one_prompt_differ_and_repeat_by_seed(llm, folder, tmp_path):
    texts = [c.text for c in llm.run([prompt("the", n=6, seed=10, max_tokens=8)])[0]]
    assert len(set(texts)) > 3
    other = open_llm(LLMSettings(kind="local", model=str(folder), cache_path=tmp_path / "o.sqlite"))
    assert [c.text for c in other.run([prompt("the", n=6, seed=10, max_tokens=8)])[0]] == texts
    other.close()


def test_logprobs_are_those_of_the_raw_logits(llm, folder):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    (answer,) = llm.run([prompt("the cat", temperature=0.7, top_k=5, seed=1, logprobs=0, max_tokens=6)])[0]
    ids = tokenizer("the cat")["input_ids"] + tokenizer.convert_tokens_to_ids(list(answer.tokens))
    with torch.inference_mode():
        logp = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    start = len(ids) - len(answer.tokens)
    by_hand = [logp[start - 1 + i, ids[start + i]].item() for i in range(len(answer.tokens))]
    assert list(answer.logprobs) == pytest.approx(by_hand, abs=1e-4)


def test_chat_stop_and_length(llm):
    (answer,) = llm.run([Request(model="tiny", messages=(Message(role="user", content="hi"),), max_tokens=1)])[0]
    assert answer.completion_tokens == 1 and answer.finish_reason in ("length", "stop")
    (cut,) = llm.run([prompt("the cat", temperature=0, max_tokens=30, stop=(" ",))])[0]
    assert " " not in cut.text


def test_prompt_beyond_the_positions_fails_alone(llm):
    good, bad = llm.run([prompt("the", max_tokens=4), prompt("the cat " * 200, max_tokens=4)])
    assert good[0].finish_reason != "error" and bad[0].error == "context_length_exceeded"


def test_json_schema_is_not_claimed(llm):
    assert not llm.backend_supports("json_schema", prompt("a"))
    with pytest.raises(UnsupportedField):
        llm.run([prompt("a", logprobs=3)])


def test_model_without_chat_template_is_named(folder, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    for path in bare.glob("chat_template*"):
        path.unlink()
    llm = open_llm(LLMSettings(kind="local", model=str(bare), cache_path=tmp_path / "c.sqlite"))
    with pytest.raises(InputError, match=r"bare.*no chat template"):
        llm.run([Request(model="m", messages=(Message(role="user", content="hi"),))])
    llm.close()


def test_sampling_frequencies_follow_the_truncated_distribution():
    rows = 20000
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0]).repeat(rows, 1)
    ones = torch.ones(rows)
    settings = RowSettings(temperature=ones * 0.5, top_p=ones, top_k=(ones * 3).long(), repetition_penalty=ones)
    seen = torch.zeros(rows, 4, dtype=torch.bool)
    drawn = next_tokens(logits, seen, settings, uniforms(range(rows), 1)[:, 0])
    expected = torch.softmax(torch.tensor([4.0, 2.0, 0.0]), 0)
    shares = torch.bincount(drawn, minlength=4) / rows
    assert shares[3] == 0
    assert torch.allclose(shares[:3], expected, atol=0.015)
    nucleus = RowSettings(temperature=ones, top_p=ones * 0.6, top_k=(ones * 0).long(), repetition_penalty=ones)
    # probabilities 0.644, 0.237, ...: the first alone passes 0.6
    assert set(next_tokens(logits, seen, nucleus, uniforms(range(rows), 1)[:, 0]).tolist()) == {0}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("row", [[float("-inf")] * 3, [0.0, float("nan"), 1.0]])
def test_nothing_is_drawn_from_nothing(row, temperature):
    logits, ones = torch.tensor([[1.0, 0.0, 2.0], row]), torch.ones(2)
    settings = RowSettings(temperature * ones, top_p=ones, top_k=ones.long() * 0, repetition_penalty=ones)
    with pytest.raises(ValueError, match="no token can be drawn"):
        next_tokens(logits, torch.zeros(2, 3, dtype=torch.bool), settings, ones / 2)


def test_penalty_makes_seen_tokens_less_likely_whatever_their_sign():
    logits = torch.tensor([[2.0, -1.0, 1.5]])
    one = torch.ones(1)
    settings = RowSettings(temperature=one * 0, top_p=one, top_k=one.long() * 0, repetition_penalty=one * 2)
    seen = torch.tensor([[True, False, False]])
    assert next_tokens(logits, seen, settings, torch.tensor([0.5])).item() == 2


@pytest.mark.slow
def test_same_greedy_text_through_a_real_server(folder, llm, tmp_path):
    """`transformers serve`, a server that is not ours; it is killed and started again in between."""
    port = free_port()
    command = [str(shutil.which("transformers", path=str(sys.executable).rpartition("/")[0])), "serve", str(folder),
               "--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--default-seed", "0"]  # fmt: skip

    def start():
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 90
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                return process
            except OSError:
                time.sleep(0.2)
        process.kill()
        raise AssertionError("transformers serve did not start")

    requests = [
        Request(model=str(folder), messages=(Message(role="user", content=f"{t} ü"),), temperature=0, max_tokens=8)
        for t in TEXTS
    ]
    local = [c.text for (c,) in llm.run(requests)]
    settings = LLMSettings(
        kind="endpoint",
        model=str(folder),
        base_url=f"http://127.0.0.1:{port}/v1",
        cache_path=tmp_path / "served.sqlite",
    )
    process = start()
    try:
        served = open_llm(settings)
        assert [c.text for (c,) in served.run(requests)] == local
        assert not served.backend_supports("n", requests[0]), "it takes n and returns one choice"
        process.kill()
        process.wait(10)
        process = start()
        more = [r.model_copy(update={"max_tokens": 3}) for r in requests]
        assert len(served.run([*requests, *more])) == 8
        assert served.usage.counters["cached"] >= 4
        served.close()
    finally:
        process.kill()
        process.wait(10)
