"""The copy model: targets as numbers and back, exact greedy decoding, and that it learns to copy."""

import pytest
import torch

from paperflows.components.extraction.copy_model import CopyModel, Decoder
from paperflows.components.extraction.forms import FORMS
from paperflows.components.extraction.grammar import Grammar
from paperflows.components.extraction.records import Schema, Sentence, Span, records_of
from paperflows.components.extraction.targets import read_source, spell, train_vocabulary, write_target
from paperflows.components.models.pretrained import load_tokenizer

NER, RE = Schema(("location", "person")), Schema(("location", "person"), ("live in",))
SENTENCES = [
    Sentence(("Ann", "Leeson-Bø", "lives", "in", "Reykjavik", "."), (Span(0, 2, "person"), Span(4, 5, "location")), ((0, 1, "live in"),)),
    Sentence(("The", '"Old"', "Town"), (Span(0, 3, "location"),)),
    Sentence(("nothing", "here"), ()),
]  # fmt: skip


@pytest.fixture(scope="module")
def vocabulary():
    texts = [form.target(records_of(s, NER), NER) for form in FORMS.values() for s in SENTENCES] * 3
    return train_vocabulary(texts, size=400)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("schema", [NER, RE], ids=["entities", "relations"])
def test_targets_come_back_as_they_were(name, schema, vocabulary):
    tokenizer = load_tokenizer("minilm")
    for sentence in SENTENCES:
        source = read_source(sentence, tokenizer, max_length=64)
        numbers = write_target(sentence, source, FORMS[name], schema, vocabulary)
        assert numbers[0] == 0 and numbers[-1] == 1
        target = FORMS[name].target(records_of(sentence, schema), schema)
        assert spell(numbers[1:-1], source, vocabulary) == target
    copied = [
        n
        for n in write_target(
            SENTENCES[0], read_source(SENTENCES[0], tokenizer, max_length=64), FORMS[name], schema, vocabulary
        )
        if n >= vocabulary.get_vocab_size()
    ]
    assert len(copied) >= 4, "names are copied, not spelt"


def test_a_span_beyond_the_cut_is_spelt(vocabulary):
    source = read_source(SENTENCES[0], load_tokenizer("minilm"), max_length=5)
    numbers = write_target(SENTENCES[0], source, FORMS["json"], NER, vocabulary)
    assert spell(numbers[1:-1], source, vocabulary) == FORMS["json"].target(records_of(SENTENCES[0], NER), NER)


def decoder(**options):
    torch.manual_seed(0)
    return Decoder(vocabulary=12, width=16, layers=2, heads=2, positions=20, dropout=0.0, **options)


def test_probabilities_sum_to_one_over_tokens_and_copies():
    made = decoder()
    memory, mask = torch.randn(2, 5, 16), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    said = made(torch.tensor([[0, 3, 14], [0, 13, 2]]), memory, mask)
    assert said.shape == (2, 3, 17)
    torch.testing.assert_close(said.exp().sum(-1), torch.ones(2, 3))
    assert said[1, :, 14:].exp().max() < 1e-6, "padding is never copied"
    torch.testing.assert_close(made(torch.tensor([[0, 3]])).exp().sum(-1), torch.ones(1, 2))


def test_positions_do_not_look_ahead():
    made = decoder().eval()
    memory, mask = torch.randn(1, 4, 16), torch.ones(1, 4)
    long = made(torch.tensor([[0, 3, 14, 5]]), memory, mask)
    torch.testing.assert_close(made(torch.tensor([[0, 3]]), memory, mask), long[:, :2])


def test_greedy_writing_equals_the_full_forward_at_every_position():
    made = decoder().eval()
    memory, mask = torch.randn(3, 6, 16), torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [1] * 6])
    for row, written in enumerate(made.write(memory, mask, longest=12)):
        ids = [0, *written]
        said = made(torch.tensor([ids]), memory[row : row + 1], mask[row : row + 1])
        wanted = said.argmax(-1)[0].tolist()
        assert written == wanted[: len(written)]
        assert len(written) == 12 or wanted[len(written)] == 1


@pytest.mark.parametrize("name", FORMS)
def test_a_grammar_allows_every_target_and_nothing_broken(name, vocabulary):
    sentence = SENTENCES[0]
    source = read_source(sentence, load_tokenizer("minilm"), max_length=64)
    pieces = torch.tensor([[a < b for a, b in source.places]])
    grammar = Grammar(FORMS[name], NER, vocabulary)
    for gold in (sentence, Sentence(sentence.tokens, ())):
        walk = grammar.walk(pieces)
        for number in write_target(gold, source, FORMS[name], NER, vocabulary)[1:]:
            allowed = walk.allowed()
            assert allowed[0, number] and not allowed[0, vocabulary.get_vocab_size()], "[CLS] is no part of the text"
            walk.advance(torch.tensor([number]))

    def broken(written):
        counts = FORMS[name].read(spell(written, source, vocabulary), NER).counts
        return counts["ill_formed"] + counts["truncated"]

    ended, lengths = 0, set()
    for seed in range(5):  # a model that knows nothing
        torch.manual_seed(seed)
        made = Decoder(vocabulary=vocabulary.get_vocab_size(), width=16, layers=1, heads=2, positions=200).eval()
        memory, mask = 10 * torch.randn(8, pieces.shape[1], 16), torch.ones(8, pieces.shape[1])
        ruled = made.write(memory, mask, longest=200, walk=grammar.walk(pieces.expand(8, -1)))
        assert not any(broken(w) for w in ruled if len(w) < 200)
        assert any(broken(w) for w in made.write(memory, mask, longest=200))
        alone = [
            made.write(memory[i : i + 1], mask[i : i + 1], longest=200, walk=grammar.walk(pieces)) for i in range(8)
        ]
        assert ruled == [row for (row,) in alone], "the finished sentences leave the batch"
        ended += sum(len(w) < 200 for w in ruled)
        lengths |= {len(set(map(len, ruled)))}
    assert ended and max(lengths) > 1


@pytest.mark.parametrize("name", FORMS)
def test_where_there_is_nothing_to_copy_the_target_has_no_record(name, vocabulary):
    pieces = torch.tensor([[False, False, False], [False, True, False]])
    made = Decoder(vocabulary=vocabulary.get_vocab_size(), width=16, layers=1, heads=2, positions=60).eval()
    written = made.write(
        torch.randn(2, 3, 16), torch.ones(2, 3), longest=60, walk=Grammar(FORMS[name], NER, vocabulary).walk(pieces)
    )
    assert written[0] == vocabulary.encode(FORMS[name].target([], NER)).ids


def test_it_learns_to_copy():
    class Embed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(30, 16)

        def forward(self, input_ids, attention_mask):
            return type("Out", (), {"last_hidden_state": self.table(input_ids)})

    torch.manual_seed(0)
    model = CopyModel(Embed(), decoder())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)

    def batch(rows):
        ids = torch.randint(5, 30, (rows, 4), generator=generator)
        at = torch.randint(0, 4, (rows,), generator=generator)
        ids[torch.arange(rows), at] = 3  # the piece behind this one is to be copied; behind the last one, itself
        target = torch.stack([torch.zeros(rows), 12 + at, torch.ones(rows)], 1).long()
        return ids, torch.ones(rows, 4), target

    for _ in range(150):
        loss = model(*batch(32))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    ids, mask, target = batch(64)
    written = model.eval().decoder.write(model.read(ids, mask), mask, longest=4)
    assert sum(w == t[1:2].tolist() for w, t in zip(written, target, strict=True)) > 58
