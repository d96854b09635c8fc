"""States and answers of a causal language model are those of plain transformers calls."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from paperflows.components.retrieval.causal import CausalReader

TEXTS = ["who sleeps", "a", "what is the capital of the country that borders chad"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("lm")
    letters = {c: i for i, c in enumerate(["</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocab=letters, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>").save_pretrained(path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(letters), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=256, eos_token_id=0, bos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(path)
    return path


def test_a_batch_is_its_texts(folder):
    reader = CausalReader(str(folder), device="cpu")
    model = LlamaForCausalLM.from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    states = reader.states(TEXTS)
    said, least = reader.answers(TEXTS, max_tokens=6)
    for text, state, answer, chance in zip(TEXTS, states, said, least, strict=True):
        with torch.inference_mode():
            hidden = model(tokenizer(text, return_tensors="pt")["input_ids"], output_hidden_states=True).hidden_states[
                -1
            ]
        assert state == pytest.approx(hidden[0, -1].numpy(), abs=1e-4)
        ids, chances = tokenizer(text + " Answer in a few words.", return_tensors="pt")["input_ids"], []
        for _ in range(6):
            with torch.inference_mode():
                p = model(ids).logits[0, -1].softmax(-1)
            chances.append(float(p.max()))
            ids = torch.cat([ids, p.argmax()[None, None]], 1)
            if int(ids[0, -1]) == 0:
                break
        plain = tokenizer.decode(ids[0, -len(chances) :], skip_special_tokens=True).strip().partition("\n")[0]
        assert answer == plain and chance == pytest.approx(min(chances), abs=1e-4)
    assert states.shape == (3, 32) and states.dtype == np.float32


def test_absolute_positions_do_not_depend_on_the_padding_beside_a_text(folder, tmp_path):
    PreTrainedTokenizerFast.from_pretrained(folder).save_pretrained(tmp_path)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=257, n_embd=32, n_layer=2, n_head=2, n_positions=128, eos_token_id=0))
    model.transformer.wpe.weight.data *= 30
    model.save_pretrained(tmp_path)
    reader = CausalReader(str(tmp_path), device="cpu")
    together, alone = reader.states(TEXTS), np.concatenate([reader.states([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-3)
    assert np.isfinite(reader.states([""])).all(), "a request of nothing has a state too"
