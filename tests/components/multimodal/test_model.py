import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from paperflows.components.models.tiny_decoder import tiny_decoder
from paperflows.components.multimodal.dialogue import (
    Tokens,
    dialogue,
    pair_lengths,
    pair_prompts,
    pair_sequence,
    unconditional_prompts,
    wordings,
)
from paperflows.components.multimodal.generation import Setting, answer, room_of
from paperflows.components.multimodal.packing import block_mask, collate, pack, weighted_loss, weights_of
from paperflows.components.multimodal.vocabulary import Vocabulary, extend_vocabulary, train_text_tokenizer


class Media:
    def __init__(self, name, n_ids, exact):
        self.n_ids, self.exact, self.begin, self.end = n_ids, exact, f"<so{name}>", f"<eo{name}>"


def vocabulary(marks=True):
    tokenizer = train_text_tokenizer(["seven eight draw the number"] * 9, size=300)
    return Vocabulary(tokenizer, {"picture": Media("im", 6, 4), "speech": Media("sp", 5, None)}, marks=marks)


def decoder(v, seed=0):
    return tiny_decoder(vocabulary=v.size, width=16, layers=2, heads=2, hidden=32, positions=256, seed=seed).eval()


def test_blocks_follow_the_words_and_parse_is_the_inverse():
    v = vocabulary()
    assert v.blocks["picture"].first == v.words and v.blocks["speech"].first == v.words + 6 and v.size == v.words + 11
    ids = [*v.text("seven"), *v.block("picture", [0, 5, 1, 1]), *v.text("eight"), *v.block("speech", [4])]
    assert v.parse(ids) == [("text", "seven"), ("picture", [0, 5, 1, 1]), ("text", "eight"), ("speech", [4])]
    assert len(v.block("picture", [0, 5])) == 4 and len(vocabulary(marks=False).block("picture", [0, 5])) == 2


def test_a_block_without_its_end_or_of_another_length_is_no_block():
    v, bare = vocabulary(), vocabulary(marks=False)
    text, spoken, picture = v.text("seven"), v.block("speech", [4, 1]), v.block("picture", [0, 5, 1, 1])
    assert v.parse([*text, *spoken[:-1]]) == [("text", "seven")]
    assert v.parse([*spoken[:-1], *picture]) == [("picture", [0, 5, 1, 1])], "another block's begin is no end"
    assert v.parse([*picture[:-2], picture[-1], *text]) == [("text", "seven")]
    assert bare.parse(bare.block("speech", [4, 1])) == [("speech", [4, 1])], "there the message's end is the block's"
    assert bare.parse(bare.block("picture", [0, 5, 1])) == []


def test_pair_lengths_are_those_of_the_longest_instruction():
    v = vocabulary()
    pairs = [(("text", "seven"), ("picture", [1] * n)) for n in (4, 9)]
    draw = random.Random(0)
    drawn = [{len(pair_sequence(v, "text_to_picture", *one, draw).ids) for _ in range(400)} for one in pairs]
    assert pair_lengths(v, "text_to_picture", pairs) == [max(drawn[0]), max(drawn[1])]


def test_dialogue_marks_what_the_assistant_says():
    v = vocabulary()
    one = dialogue(v, [([("text", "draw")], [("picture", [1])]), ([("speech", [2])], [("text", "eight")])])
    (a, b), (c, d) = one.said
    assert one.ids[a:b] == [*v.block("picture", [1]), v.eom] and one.ids[c:d] == [*v.text("eight"), v.eom]
    assert one.ids.count(v.user) == one.ids.count(v.bot) == 2 and one.ids[a - 1] == v.bot


def test_instructions_are_drawn_anew():
    v = vocabulary()
    draw = random.Random(0)
    said = {
        tuple(pair_sequence(v, "text_to_picture", ("text", "seven"), ("picture", [1, 2, 3, 4]), draw).ids)
        for _ in range(60)
    }
    assert len(said) > 20 and len(set(wordings("text_to_picture"))) == len(wordings("text_to_picture")) >= 36
    dropped = pair_sequence(v, "text_to_picture", ("text", "seven"), ("picture", [1]), draw, dropped=1.0)
    assert v.null in dropped.ids and v.text("seven")[0] not in dropped.ids


def test_packing_never_cuts():
    assert pack([3, 4, 2, 7, 1], 8) == [[0, 1], [2], [3, 4]]
    with pytest.raises(ValueError, match="9 tokens does not fit"):
        pack([9], 8)


def test_weights_by_hand():
    one = Tokens(list(range(8)), [(4, 8)])
    assert weights_of(one, "paper", prompt=0.1, answers_only=False) == [1.0] * 8
    assert weights_of(one, "mean", prompt=0.1, answers_only=False) == pytest.approx([0.025] * 4 + [0.25] * 4)
    assert weights_of(one, "sqrt", prompt=0.1, answers_only=False) == pytest.approx([0.05] * 4 + [0.5] * 4)
    two = Tokens(list(range(6)), [(1, 2), (4, 6)])
    assert weights_of(two, "mean", prompt=0.0, answers_only=True) == pytest.approx([0, 1, 0, 0, 0.5, 0.5])


def test_a_packed_row_is_its_examples_alone():
    v = vocabulary()
    model = decoder(v)
    draw = np.random.default_rng(0)
    examples = [Tokens(draw.integers(0, v.size, n).tolist(), [(2, n)]) for n in (5, 9, 7)]
    weights = [weights_of(e, "sqrt", prompt=0.1, answers_only=False) for e in examples]
    batch = collate(examples, weights, width=16, pad=v.pad)
    assert batch["tokens"].shape == (2, 14) and batch["document"][1, -1] == 0
    top, bottom = 0.0, 0.0
    for example, some in zip(examples, weights, strict=True):
        ids = torch.tensor([example.ids])
        losses = F.cross_entropy(model(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none")
        w = torch.tensor(some[1:])
        top, bottom = top + float((losses * w).sum().detach()), bottom + float(w.sum())
    assert float(weighted_loss(model, batch)) == pytest.approx(top / bottom, rel=1e-4)


def test_block_mask_by_hand():
    mask = block_mask(torch.tensor([[1, 1, 2]]))[0, 0]
    assert mask.tolist() == [[True, False, False], [True, True, False], [False, False, True]]


def test_new_rows_have_the_old_rows_mean_and_covariance():
    model = tiny_decoder(vocabulary=400, width=8, layers=1, heads=2, hidden=16, positions=64, seed=0)
    table = model.get_input_embeddings().weight
    with torch.no_grad():
        table += 3 * torch.arange(8)
        table[:, 0] *= 5
    old = table.detach().clone()
    extend_vocabulary(model, 8000, known=400, seed=1)
    new = model.get_input_embeddings().weight.detach()
    assert torch.equal(new[:400], old) and model.lm_head.weight is model.get_input_embeddings().weight
    assert torch.allclose(new[400:].mean(0), old.mean(0), atol=0.15)
    assert torch.allclose(torch.cov(new[400:].T), torch.cov(old.T), atol=0.25)
    before = new.clone()
    extend_vocabulary(model, 8000, known=8000, seed=2)
    assert torch.equal(model.get_input_embeddings().weight, before), "nothing is new"


def test_rows_behind_the_words_of_a_padded_matrix_are_drawn_anew_and_the_matrix_keeps_its_size():
    v = vocabulary()
    model = tiny_decoder(vocabulary=v.size + 60, width=16, layers=1, heads=2, hidden=32, positions=64, seed=0)
    table = model.get_input_embeddings().weight
    with torch.no_grad():
        table[v.known :] = 0  # as a model is released that was rounded up
    words = table.detach()[: v.known].clone()
    extend_vocabulary(model, v.size, known=v.known, seed=1)
    now = model.get_input_embeddings().weight.detach()
    assert len(now) == v.size + 60 and torch.equal(now[: v.known], words)
    assert now[v.known : v.size].abs().sum(1).min() > 0 and now[v.size :].abs().max() == 0
    again = Vocabulary(v.tokenizer, {"picture": Media("im", 6, 4), "speech": Media("sp", 5, None)})
    assert v.known < v.words and again.known == again.size, "a model that was aligned before keeps all its rows"


def test_a_forced_block_holds_its_own_ids_and_its_exact_length():
    v = vocabulary()
    model = decoder(v)
    prompts = pair_prompts(v, "text_to_picture", [("text", "seven")] * 30, seed=0)
    written = answer(model, v, prompts, {"picture": Setting(longest=9)}, range(30), start="picture", longest=10)
    b = v.blocks["picture"]
    for one in written:
        assert one[0] == b.begin and one[-1] == b.end and len(one) == 6
        assert all(b.first <= i < b.first + b.n_ids for i in one[1:-1])
    assert len({tuple(one) for one in written}) > 5, "sampled, not greedy"
    spoken = answer(model, v, prompts, {"speech": Setting(longest=7)}, range(30), start="speech", longest=10)
    assert all(len(v.parse(one)[0][1]) <= 7 for one in spoken if v.parse(one))


@pytest.mark.parametrize("marks", [True, False])
def test_a_block_of_exact_length_has_it_whatever_the_longest_is(marks):
    v = vocabulary(marks)
    prompts = pair_prompts(v, "text_to_picture", [("text", "seven")] * 8, seed=0)
    settings = {"picture": Setting(longest=2), "speech": Setting(longest=3)}
    room = room_of(v, settings, "picture")
    assert (room, room_of(v, settings, "speech")) == (5, 4)
    written = answer(decoder(v), v, prompts, settings, range(8), start="picture", longest=room)
    assert [[(kind, len(ids)) for kind, ids in v.parse(one)] for one in written] == [[("picture", 4)]] * 8
    cut = answer(decoder(v), v, prompts, settings, range(8), start="picture", longest=3)
    assert [v.parse(one) for one in cut] == [[]] * 8


def test_rows_that_ended_wait_for_the_others():
    """Their last mode may allow none of the columns that the others need."""
    v = vocabulary()
    prompts = pair_prompts(v, "text_to_speech", [("text", "seven")] * 40, seed=0)
    written = answer(decoder(v), v, prompts, {"speech": Setting(longest=7)}, range(40), start="speech", longest=8)
    assert len({len(one) for one in written}) > 1


def test_the_slice_gives_what_the_whole_matrix_would():
    """Greedy decoding of a block equals the arg max of the full logits restricted to the block, without any cache."""
    v = vocabulary()
    model = decoder(v, seed=3)
    prompts = pair_prompts(v, "text_to_picture", [("text", "seven"), ("text", "draw the number eight")], seed=1)
    got = answer(
        model, v, prompts, {"picture": Setting(temperature=0.0, longest=9)}, [0, 1], start="picture", longest=10
    )
    b = v.blocks["picture"]
    for prompt, one in zip(prompts, got, strict=True):
        ids = [*prompt, b.begin]
        for _ in range(4):
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1, b.first : b.first + b.n_ids]
            ids.append(b.first + int(logits.argmax()))
        assert one == [*ids[len(prompt) :], b.end]


def test_guidance_by_hand():
    v = vocabulary()
    model = decoder(v, seed=5)
    prompts = pair_prompts(v, "text_to_picture", [("text", "seven")], seed=1)
    empty = unconditional_prompts(v, "text_to_picture", 1, seed=1)
    b = v.blocks["picture"]
    settings = {"picture": Setting(temperature=0.0, longest=9, guidance=2.5)}
    (one,) = answer(model, v, prompts, settings, [0], start="picture", unconditional=empty, longest=10)
    with_text, without = [*prompts[0], b.begin], [*empty[0], b.begin]
    for _ in range(4):
        c, u = (model(input_ids=torch.tensor([ids])).logits[0, -1] for ids in (with_text, without))
        best = b.first + int((c + 2.5 * (c - u))[b.first : b.first + b.n_ids].argmax())
        with_text.append(best)
        without.append(best)
    assert one == [*with_text[len(prompts[0]) :], b.end]


def test_free_answers_close_what_they_open_and_text_alone_opens_nothing():
    v = vocabulary()
    model = decoder(v, seed=7)
    with torch.no_grad():
        model.lm_head.weight[v.blocks["picture"].begin] *= 4
    prompts = pair_prompts(v, "speech_to_text", [("speech", [1, 2])] * 40, seed=0)
    free = answer(model, v, prompts, {"text": Setting(longest=8)}, range(40), longest=60)
    b = v.blocks["picture"]
    blocks = [one for one in free if b.begin in one]
    assert blocks
    for one in blocks:
        for at in (i for i, token in enumerate(one) if token == b.begin and i + 5 < len(one)):
            assert one[at + 5] == b.end and all(v.kind(i) == "picture" for i in one[at + 1 : at + 5])
    assert all(
        v.kind(i) == "text" for one in answer(model, v, prompts, {}, range(40), only_text=True, longest=12) for i in one
    )


def test_without_marks_a_block_ends_with_its_message():
    v = vocabulary(marks=False)
    model = decoder(v)
    prompts = pair_prompts(v, "text_to_picture", [("text", "seven")] * 3, seed=0)
    for one in answer(model, v, prompts, {"picture": Setting(longest=9)}, range(3), start="picture", longest=10):
        assert len(one) == 4 and v.parse(one)[0][0] == "picture"
