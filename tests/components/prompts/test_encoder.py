import pytest
import torch
import torch.nn.functional as F

from paperflows.components.errors import InputError
from paperflows.components.prompts.encoder import PromptEncoder
from paperflows.components.prompts.soft_prompt import _stretches, make_prompt

from .conftest import small


def by_hand(model, ids, mask, prompts, how):
    """BERT with prompts from its weights alone: matrix products and softmax, no module of transformers is called."""
    weights = {k.removeprefix("bert."): v for k, v in model.state_dict().items()}
    heads, eps = model.config.num_attention_heads, model.config.layer_norm_eps

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x, name):
        x = (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + eps)
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    h = weights["embeddings.word_embeddings.weight"][ids]
    h = (
        h
        + weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
        + weights["embeddings.token_type_embeddings.weight"][0]
    )
    h, n = norm(h, "embeddings.LayerNorm"), 0
    for index in range(model.config.num_hidden_layers):
        if index in prompts:
            p = prompts[index].expand(len(h), -1, -1)
            if n == 0:
                h, n = torch.cat([p, h], 1), p.shape[1]
                mask = torch.cat([mask.new_ones(len(mask), n), mask], 1)
            else:
                h = torch.cat([h[:, :n] + p if how == "add" else p, h[:, n:]], 1)
        name = f"encoder.layer.{index}"
        q, k, v = (
            linear(h, f"{name}.attention.self.{x}").view(*h.shape[:2], heads, -1).transpose(1, 2)
            for x in ("query", "key", "value")
        )
        scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
        scores = scores.masked_fill(mask[:, None, None] == 0, float("-inf")).softmax(-1)
        mixed = (scores @ v).transpose(1, 2).reshape(h.shape)
        h = norm(linear(mixed, f"{name}.attention.output.dense") + h, f"{name}.attention.output.LayerNorm")
        inner = F.gelu(linear(h, f"{name}.intermediate.dense"))
        h = norm(linear(inner, f"{name}.output.dense") + h, f"{name}.output.LayerNorm")
    return h[:, n:]


@pytest.mark.parametrize("layers", [(0,), (2,), (3,), (0, 2), (0, 1, 2, 3), (1, 3), ()])
@pytest.mark.parametrize("how", ["add", "replace"])
def test_prompts_enter_where_a_forward_written_by_hand_puts_them(batch, layers, how):
    ids, mask = batch
    model = small()
    generator = torch.Generator().manual_seed(2)
    prompts = {layer: torch.randn(2, 16, generator=generator) for layer in layers}
    encoder = PromptEncoder(model.base_model)
    ours = encoder.advance(encoder.start(ids, mask), prompts, how=how).text
    expected = by_hand(model, ids, mask, prompts, how)
    torch.testing.assert_close(ours[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra", "distilbert"])
def test_without_prompts_it_is_the_hugging_face_encoder(kind, batch):
    ids, mask = batch
    model = small(kind)
    expected = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
    ours = PromptEncoder(model.base_model)(ids, mask)
    torch.testing.assert_close(ours[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra", "distilbert"])
def test_any_family_takes_a_prompt_and_padding_never_matters(kind, batch):
    ids, mask = batch
    encoder = PromptEncoder(small(kind).base_model)
    prompt = {1: torch.randn(3, 16)}
    states = encoder(ids, mask, prompt)
    alone = encoder(ids[1:2, :5], mask[1:2, :5], prompt)
    torch.testing.assert_close(states[1:2, :5], alone, atol=1e-5, rtol=0)
    assert not torch.allclose(states, encoder(ids, mask))


@pytest.mark.parametrize("kind, most", [("bert", 64), ("roberta", 63), ("electra", 64), ("distilbert", 64)])
def test_a_text_may_be_as_long_as_the_table_of_positions_and_no_longer(kind, most):
    encoder = PromptEncoder(small(kind).base_model)  # RoBERTa's own padding id is 1, and 2 positions go; here it is 0
    prompt = {0: torch.randn(3, 16)}
    ids = torch.full((1, most), 7)
    assert encoder(ids, torch.ones_like(ids), prompt).shape == (1, most, 16), "prompts take no position"
    ids = torch.full((1, most + 1), 7)
    with pytest.raises(InputError, match=f"{most + 1} tokens for an encoder of {most} positions"):
        encoder(ids, torch.ones_like(ids))


def test_a_run_cut_in_two_is_the_whole_run_also_for_copies(batch):
    ids, mask = batch
    encoder = PromptEncoder(small().base_model)
    prompts = {i: torch.randn(2, 16) for i in range(4)}
    whole = encoder.advance(encoder.start(ids, mask), prompts)
    below = encoder.advance(encoder.start(ids, mask), prompts, last=2)
    assert below.prompts == 2 and below.hidden.shape == (3, 9, 16)
    copies = encoder.advance(below.expand(4), prompts, first=2)
    torch.testing.assert_close(copies.text, whole.text.repeat(4, 1, 1), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="3 vectors where 2 stand"):
        below.with_prompt(torch.zeros(3, 16), "add")


@pytest.mark.parametrize("tokens, count", [(7, 3), (2, 5), (1, 1), (5, 5), (9, 4)])
def test_pooling_is_torchs_adaptive_pooling_over_the_tokens_that_are_there(tokens, count):
    states = torch.randn(1, tokens, 16)
    padded = torch.cat([states, torch.full((1, 3, 16), 99.0)], 1)
    mask = torch.tensor([[1] * tokens + [0] * 3])
    for kind, pool in (("appg", F.adaptive_avg_pool1d), ("mppg", F.adaptive_max_pool1d)):
        made = make_prompt(kind, torch.zeros(count, 16), bottleneck=8)
        inner = made.up(F.gelu(made.down(states)))
        expected = pool(inner.transpose(1, 2), count).transpose(1, 2)
        torch.testing.assert_close(made(padded, mask), expected, atol=1e-6, rtol=0)
    assert _stretches(mask, count)[..., tokens:].sum() == 0


def test_the_naive_generator_reads_the_first_token_alone():
    made = make_prompt("npg", torch.zeros(4, 16), bottleneck=8)
    states, mask = torch.randn(2, 5, 16), torch.ones(2, 5)
    other = torch.cat([states[:, :1], torch.randn(2, 4, 16)], 1)
    assert made(states, mask).shape == (2, 4, 16)
    torch.testing.assert_close(made(states, mask), made(other, mask))
    assert (
        make_prompt("naive", torch.arange(32.0).view(2, 16), bottleneck=8)(states, mask).tolist()
        == torch.arange(32.0).view(2, 16).tolist()
    )
