import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from paperflows.components.early_exit.encoder import ExitEncoder, load_exit_encoder
from paperflows.components.early_exit.flops import layer_flops, sentence_flops, static_flops
from paperflows.components.early_exit.layers import attention_bias
from paperflows.components.errors import InputError

from .conftest import CONFIGS, small


@pytest.mark.parametrize("kind", CONFIGS)
def test_without_exits_it_is_the_hugging_face_encoder(kind, batch):
    ids, mask = batch
    plain = small(kind)
    expected = plain(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[1:]
    ours = list(ExitEncoder(small(kind)).states(ids, mask))
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one[mask.bool()], other[mask.bool()], atol=1e-5, rtol=0)


def test_minilm_is_unchanged_to_a_hundred_thousandth(batch):
    from transformers import AutoModel

    from paperflows.components.models.pretrained import load_pretrained

    ids, mask = batch
    expected = load_pretrained(AutoModel, "minilm").eval()(input_ids=ids, attention_mask=mask).last_hidden_state
    *_, ours = load_exit_encoder("minilm", separator=None).eval().states(ids, mask)
    torch.testing.assert_close(ours[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=0)


def test_the_second_text_gets_its_own_type():
    plain, encoder = small(), ExitEncoder(small(), separator=4)
    ids = torch.tensor([[2, 7, 8, 4, 9, 9, 4]])
    expected = plain.embeddings(input_ids=ids, token_type_ids=torch.tensor([[0, 0, 0, 0, 1, 1, 1]]))
    torch.testing.assert_close(encoder.embed(ids), expected)


@pytest.mark.parametrize("frozen", ["copy", "renorm"])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=12, deadline=None)
def test_skipping_is_masking(frozen, seed):
    """Any exit layers: the run on active tokens alone equals the one that computes all and throws away."""
    generator = torch.Generator().manual_seed(seed)
    encoder = ExitEncoder(small(), frozen=frozen)
    ids = torch.randint(5, 60, (4, 7), generator=generator)
    mask = (torch.arange(7)[None] < torch.randint(1, 8, (4, 1), generator=generator)).long()
    exits = torch.randint(0, 4, (4, 7), generator=generator) * mask
    with torch.no_grad():
        skipped = list(encoder.by_exit_layer(ids, mask, exits))
        masked = list(encoder.by_exit_layer(ids, mask, exits, masked=True))
    for one, other in zip(skipped, masked, strict=True):
        torch.testing.assert_close(one[mask.bool()], other[mask.bool()], atol=1e-5, rtol=0)


@pytest.mark.parametrize("frozen", ["copy", "renorm"])
def test_frozen_tokens_keep_their_state_and_stay_visible(frozen, batch):
    ids, mask = batch
    encoder = ExitEncoder(small(), frozen=frozen)
    exits = mask * 3
    exits[0, 4] = 1
    with torch.no_grad():
        first, second, last = encoder.by_exit_layer(ids, mask, exits)
        full = list(encoder.states(ids, mask))
    torch.testing.assert_close(first[mask.bool()], full[0][mask.bool()])
    if frozen == "copy":
        assert torch.equal(last[0, 4], first[0, 4])
    else:
        assert not torch.equal(second[0, 4], first[0, 4])  # the next layer's norm was applied to it
    gone = mask.clone()
    gone[0, 4] = 0
    with torch.no_grad():
        *_, without = encoder.by_exit_layer(ids, gone, exits)
    assert not torch.allclose(last[0, 0], without[0, 0], atol=1e-4), "others still attend to it"


def test_padding_and_neighbours_in_the_batch_change_nothing(batch):
    ids, mask = batch
    encoder = ExitEncoder(small())
    exits = torch.arange(9).remainder(3).add(1)[None] * mask
    with torch.no_grad():
        *_, together = encoder.by_exit_layer(ids, mask, exits)
        for row, length in enumerate(mask.sum(1)):
            cut = slice(row, row + 1), slice(0, int(length))
            *_, alone = encoder.by_exit_layer(ids[cut], mask[cut], exits[cut])
            torch.testing.assert_close(alone[0], together[row, :length], atol=1e-5, rtol=0)


def test_gradients_of_skipping_are_those_of_masking(batch):
    ids, mask = batch
    grads = []
    for masked in (False, True):
        encoder = ExitEncoder(small())
        *_, last = encoder.by_exit_layer(ids, mask, torch.arange(9).remainder(3).add(1)[None] * mask, masked=masked)
        (last[mask.bool()] ** 2).sum().backward()
        grads.append([p.grad for p in encoder.parameters() if p.grad is not None])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("tokens", "active"), [(9, 9), (9, 4), (12, 1)])
def test_flops_are_what_a_profiler_counts(tokens, active):
    encoder = ExitEncoder(small())
    hidden, bias = torch.randn(1, tokens, 16), attention_bias(torch.ones(1, tokens))
    chosen = (torch.arange(tokens) < active)[None]
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        encoder.step(0, hidden, hidden, bias, chosen)
    assert counter.get_total_flops() == layer_flops(tokens, active, width=16, inner=32)


def test_flops_by_hand():
    # T = 2, D = 3, F = 12: MACs 2*2*9 + (2*9 + 2*3*12)*1 + 2*1*2*3 = 36 + 90 + 12
    assert layer_flops(2, 1, width=3, inner=12) == 2 * 138
    assert layer_flops(2, 0, width=3, inner=12) == 0
    assert layer_flops(2, 2, width=3, inner=12) == 2 * (12 * 2 * 9 + 2 * 4 * 3)  # 12TD^2 + 2T^2D
    one, head = 2 * (12 * 2 * 9 + 2 * 4 * 3), 2 * (9 + 3 * 2)
    assert sentence_flops([2], [2], width=3, inner=12, outputs=2)[0] == 2 * (one + head)
    assert static_flops([2], 2, width=3, inner=12, outputs=2)[0] == 2 * one + head


def test_another_architecture_is_named():
    with pytest.raises(InputError, match="Linear: early exits need"):
        model = torch.nn.Linear(2, 2)
        model.config = None
        ExitEncoder(model)


def test_a_family_with_the_same_module_names_and_another_attention_is_refused():
    from transformers import LongformerConfig, LongformerModel

    from paperflows.components.early_exit.layers import layers_of
    from paperflows.components.errors import InputError

    config = LongformerConfig(
        vocab_size=50,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        attention_window=4,
    )
    with pytest.raises(InputError, match="LongformerModel: early exits need an encoder of one of the families bert"):
        layers_of(LongformerModel(config))
