"""A writer on a model that somebody else trained: its chat template, its ends, LoRA, what it ships with."""

import json

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from paperflows.components.decoding.configurations import GREEDY, Configuration
from paperflows.components.decoding.shipped import shipped_configuration
from paperflows.components.decoding.writer import Writer, rows_that_fit, sequence_loss, train_tokenizer
from paperflows.components.errors import InputError, ServiceError

GRID = {"temperature": [0, 0.7, 1.3], "top_p": [0.8, 1.0], "top_k": [5, 0], "repetition_penalty": [1.0, 1.3]}
CHAT = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
TEXTS = ["the cat sat on the mat", "3+4"]
TOLD = Configuration(0.7, 0.8, 5, 1.3)


def pretrained(*, tied=True, template=CHAT):
    tokenizer = train_tokenizer(["user: assistant: Decoding settings Answer temperature", *TEXTS] * 5, size=400)
    tokenizer.chat_template = template
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=tied, initializer_range=0.2,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval(), tokenizer


def ask(writer, prompt):
    ids = writer.tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt"
    )
    return ids["input_ids"]


def test_a_model_that_chats_is_asked_as_the_library_asks_it():
    model, tokenizer = pretrained()
    writer = Writer(model, tokenizer, GRID)
    told = writer.answer(TEXTS, np.arange(2), [GREEDY] * 2, np.zeros(2, int), longest=10, told=False)
    for prompt, text in zip(TEXTS, told, strict=True):
        ids = ask(writer, prompt)
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, do_sample=False)
        assert text == tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip()


def test_settings_and_marks_stand_where_its_turn_begins():
    writer = Writer(*pretrained(), GRID)
    (start,) = ask(writer, "3+4").tolist()
    ((ids, length),) = writer.answer_rows(["3+4"], ["7"], [TOLD])
    words = writer.tokenizer.convert_ids_to_tokens(ids)
    assert ids[: len(start)] == start
    assert words[len(start) : length] == [*TOLD.words(GRID), "<answer>"] and words[length:] == ["7", "<end>"]
    ((ids, length),) = writer.settings_rows(["3+4"], [TOLD])
    assert writer.tokenizer.convert_ids_to_tokens(ids[len(start) :]) == ["<settings>", *TOLD.words(GRID)]
    assert length == len(start) + 1


def test_a_turn_ends_at_every_end_that_the_model_ships():
    model, tokenizer = pretrained()
    ids = ask(Writer(model, tokenizer, GRID), "3+4")
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, do_sample=False)[
        0, ids.shape[1] :
    ]
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, int(out[4])]
    writer = Writer(model, tokenizer, GRID)
    (text,) = writer.answer(["3+4"], np.zeros(1, int), [GREEDY], np.zeros(1, int), longest=10, told=False)
    first = out.tolist().index(int(out[4]))
    assert text == tokenizer.decode(out[:first], skip_special_tokens=True).strip()


def test_a_model_without_a_template_begins_with_its_first_token():
    from tokenizers.processors import TemplateProcessing

    model, tokenizer = pretrained(template=None)
    tokenizer.add_special_tokens({"bos_token": "<pad>"})
    number = tokenizer.convert_tokens_to_ids("<pad>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<pad> $A", special_tokens=[("<pad>", number)]
    )
    writer = Writer(model, tokenizer, GRID)
    ((ids, _),) = writer.settings_rows(["3+4"], [TOLD])
    assert writer.tokenizer.convert_ids_to_tokens(ids)[:5] == ["<pad>", "3", "+", "4", "<settings>"]


@pytest.mark.parametrize("tied", [True, False])
def test_lora_learns_the_words_changes_nothing_else_and_merges(tied):
    writer = Writer(*pretrained(tied=tied), GRID)
    before = {name: value.clone() for name, value in writer.model.state_dict().items()}
    new = writer.tokenizer.convert_tokens_to_ids(["<settings>", "<answer>", *TOLD.words(GRID)])
    writer.adapt(4, torch.float32)
    names = [name for name, p in writer.model.named_parameters() if p.requires_grad]
    assert names and all("lora_" in name or "trainable_tokens" in name for name in names)
    assert any("lm_head" in name for name in names) is not tied
    labels = [TOLD, Configuration(0.0, 1.0, 0, 1.0)]
    rows = writer.settings_rows(TEXTS, labels)
    optimizer = torch.optim.AdamW([p for p in writer.model.parameters() if p.requires_grad], lr=1e-2)
    writer.model.train()
    for _ in range(150):
        loss = sequence_loss(writer.model, writer.batch(rows, whole=False))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    writer.model.eval()
    batch = writer.batch(rows, whole=True)
    with torch.no_grad():
        adapted = writer.model(batch["tokens"], attention_mask=batch["mask"]).logits
        writer.merge()
        merged = writer.model(batch["tokens"], attention_mask=batch["mask"]).logits
    torch.testing.assert_close(merged, adapted, rtol=1e-4, atol=1e-4)
    assert isinstance(writer.model, LlamaForCausalLM)
    after = writer.model.state_dict()
    assert after.keys() == before.keys()
    embeddings = "model.embed_tokens.weight"
    others = torch.ones(len(after[embeddings]), dtype=torch.bool)
    others[writer.tokenizer.convert_tokens_to_ids([*writer.tokenizer.get_added_vocab()])] = False
    torch.testing.assert_close(after[embeddings][others], before[embeddings][others])
    assert not torch.equal(after[embeddings][new[0]], before[embeddings][new[0]])
    torch.testing.assert_close(after["model.norm.weight"], before["model.norm.weight"])
    said, valid = writer.settle(TEXTS)
    assert valid == [True, True] and [c.effective() for c in said] == [c.effective() for c in labels]


def test_rows_that_fit_keep_their_keys_and_values_within_the_bytes(monkeypatch):
    model, _ = pretrained()
    # two of 2 layers, 2 heads of 8 in 4 bytes: 256 bytes a token
    monkeypatch.setattr("paperflows.components.decoding.writer.CACHE", 256 * 100 * 7 + 5)
    assert rows_that_fit(model, 100) == 7
    assert rows_that_fit(model, 10**6) == 1


@pytest.mark.parametrize(
    ("shipped", "expected"),
    [
        (None, Configuration()),
        ({}, Configuration()),
        ({"do_sample": False}, GREEDY),
        ({"do_sample": True, "temperature": 0.6, "top_p": 0.9}, Configuration(0.6, 0.9, 50, 1.0)),
        (
            {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05},
            Configuration(0.7, 0.8, 20, 1.05),
        ),
    ],
)
def test_what_a_model_ships_with(tmp_path, shipped, expected):
    if shipped is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(shipped))
    assert shipped_configuration(str(tmp_path)) == expected


def test_what_cannot_be_known_of_a_model_is_no_default(tmp_path, monkeypatch):
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(InputError, match="generation_config.json"):
        shipped_configuration(str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ServiceError, match="'nobody/nothing': the hub does not say"):
        shipped_configuration("nobody/nothing")
