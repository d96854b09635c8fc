import copy

import numpy as np
import pytest
import torch

from paperflows.components.decoding.configurations import Configuration, as_rows
from paperflows.components.decoding.writer import Writer, sequence_loss, train_tokenizer
from paperflows.components.llm.decode import decode_rows, left_pad
from paperflows.components.llm.sampling import RowSettings, next_tokens, uniforms
from paperflows.components.models.tiny_decoder import tiny_decoder

GRID = {"temperature": [0, 0.7, 1.3], "top_p": [0.8, 1.0], "top_k": [5, 0], "repetition_penalty": [1.0, 1.3]}
TEXTS = ["the cat sat on the mat", "3+4", "a dog ran away from the house", "7"]


@pytest.fixture(scope="module")
def writer():
    made = Writer.fresh(TEXTS * 5, GRID, vocabulary=300, seed=0, width=32, layers=2, heads=2, hidden=64, positions=64)
    made.model.eval()
    return made


def test_many_rows_at_once_equal_each_row_alone_whatever_leaves_the_batch(writer):
    prompts = [writer.tokenizer(t, add_special_tokens=False)["input_ids"] for t in TEXTS]
    kinds = [
        Configuration(0.0, 1.0, 0, 1.0), Configuration(1.3, 1.0, 0, 1.3), Configuration(0.7, 0.8, 0, 1.0),
        Configuration(1.0, 0.8, 5, 1.0),
    ]  # fmt: skip
    rows = torch.tensor([i for i in range(len(prompts)) for _ in range(8)])
    chosen = [kinds[r % len(kinds)] for r in range(len(rows))]
    # early ends, so that rows leave: every token below 60 ends a row
    ends, steps = torch.arange(60), 24
    u = uniforms(list(range(len(rows))), steps)
    ids, mask = left_pad(prompts, 0, torch.device("cpu"))
    done = decode_rows(
        writer.model, ids, mask, rows, as_rows(chosen), u, limits=torch.full((len(rows),), steps), ends=ends
    )
    assert done.lengths.min() < 8 < done.lengths.max()
    for r in range(len(rows)):
        ids_alone, got = list(prompts[int(rows[r])]), []
        for step in range(steps):
            with torch.no_grad():
                logits = writer.model(input_ids=torch.tensor([ids_alone])).logits[:, -1].float()
            seen = torch.zeros_like(logits, dtype=torch.bool)
            seen[0, ids_alone] = True
            token = int(next_tokens(logits, seen, as_rows([chosen[r]]), u[r, step : step + 1])[0])
            ids_alone.append(token)
            got.append(token)
            if token < 60:
                break
        assert done.tokens[r, : done.lengths[r]].tolist() == got


def test_rows_that_keep_little_of_the_vocabulary_equal_a_full_sort():
    """The quick way looks at the 64 likeliest tokens alone; sorting everything must draw the same token."""
    torch.manual_seed(0)
    rows, vocabulary = 400, 500
    logits = torch.randn(rows, vocabulary) * torch.rand(rows, 1) * 6
    u = torch.rand(rows)
    top_k, top_p = torch.randint(0, 200, (rows,)), 0.3 + 0.7 * torch.rand(rows)
    top_k[::3] = 0
    settings = RowSettings(torch.ones(rows), top_p, top_k, torch.ones(rows))
    drawn = next_tokens(logits, torch.zeros_like(logits, dtype=torch.bool), settings, u)
    for r in range(rows):
        values, order = logits[r].double().sort(descending=True)
        kept = values[: int(top_k[r])] if top_k[r] else values
        p = kept.softmax(0)
        p[(p.cumsum(0) - p) >= top_p[r]] = 0
        edges = p.cumsum(0) / p.sum()
        place = int((edges <= u[r]).sum())
        near = [
            place,
            *(q for q in (place - 1, place + 1) if 0 <= q < len(p) and abs(float(edges[min(q, place)] - u[r])) < 1e-5),
        ]
        assert int(drawn[r]) in {int(order[q]) for q in near}


def test_the_model_learns_the_words_it_is_taught(writer):
    writer = copy.deepcopy(writer)
    labels = {"3+4": Configuration(0.0, 1.0, 0, 1.0), "the cat sat on the mat": Configuration(1.3, 0.8, 5, 1.3)}
    rows = writer.settings_rows(list(labels), list(labels.values()))
    optimizer = torch.optim.AdamW(writer.model.parameters(), lr=5e-3)
    writer.model.train()
    for _ in range(60):
        loss = sequence_loss(writer.model, writer.batch(rows, whole=False))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    writer.model.eval()
    said, valid = writer.settle(list(labels))
    assert valid == [True, True]
    assert [c.effective() for c in said] == [c.effective() for c in labels.values()]


def test_only_what_follows_the_input_is_taught(writer):
    batch = writer.batch(writer.answer_rows(["3+4"], ["7"]), whole=False)
    taught = batch["targets"][0][batch["targets"][0] != -100].tolist()
    assert writer.tokenizer.convert_ids_to_tokens(taught) == ["7", "<end>"]


def test_the_settings_an_answer_is_given_under_stand_in_its_input_in_training_and_when_asked(writer, monkeypatch):
    told = [Configuration(0.7, 0.8, 5, 1.3), Configuration(0.0, 0.8, 5, 1.0)]
    rows = writer.answer_rows(["3+4", "3+4"], ["7", "7"], told)
    taught = [writer.tokenizer.convert_ids_to_tokens(ids[:start]) for ids, start in rows]
    assert taught == [["3", "+", "4", *c.words(GRID), "<answer>"] for c in told]

    asked = []

    def generate(inputs, which, configurations, seeds, steps):
        asked.extend(zip((inputs[i] for i in which), configurations, seeds.tolist(), strict=True))
        return [[] for _ in which]

    monkeypatch.setattr(writer, "_generate", generate)
    which, under = np.array([1, 0, 1, 1]), [told[0], told[0], told[1], told[0]]
    writer.answer(["5", "3+4"], which, under, np.arange(4), longest=4, told=True)
    said = [writer.tokenizer.convert_ids_to_tokens(ids) for ids, _, _ in asked]
    assert said == [taught[0], ["5", *taught[0][3:]], taught[1], taught[0]]
    assert [(c, seed) for _, c, seed in asked] == list(zip(under, range(4), strict=True))
    asked.clear()
    writer.answer(["5", "3+4"], which, under, np.arange(4), longest=4, told=False)
    assert writer.tokenizer.convert_ids_to_tokens(asked[0][0]) == ["3", "+", "4", "<answer>"]


def test_an_output_depends_on_its_own_seed_and_not_on_its_neighbours(writer):
    hot = [Configuration(1.3, 1.0, 0, 1.0)] * 3
    together = writer.answer(TEXTS[:3], np.arange(3), hot, np.array([5, 6, 7]), longest=8, told=True)
    alone = writer.answer(TEXTS[1:2], np.array([0]), hot[:1], np.array([6]), longest=8, told=True)
    assert together[1] == alone[0]
    others = writer.answer(TEXTS[1:2], np.zeros(20, int), hot[:1] * 20, np.arange(20), longest=8, told=True)
    assert len(set(others)) > 10


def test_a_model_that_lacks_the_words_begins_with_what_describes_them():
    tokenizer = train_tokenizer(TEXTS * 5, size=300)
    model = tiny_decoder(vocabulary=300, width=32, layers=1, heads=2, hidden=64, positions=64, seed=0)
    made = Writer(model, tokenizer, GRID)
    table = made.model.get_input_embeddings().weight
    for word, text in (("<answer>", "\nAnswer:"), ("<temperature=0.7>", " temperature 0.7")):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        torch.testing.assert_close(table[tokenizer.convert_tokens_to_ids(word)], table[ids].mean(0))
    before = table.clone()
    again = Writer(made.model, tokenizer, GRID)
    torch.testing.assert_close(again.model.get_input_embeddings().weight, before, msg="known words stay")


def test_it_is_the_same_after_saving(writer, tmp_path):
    writer.save(tmp_path)
    again = Writer.load(str(tmp_path), GRID)
    again.model.eval()
    hot, seeds = [Configuration(1.0, 0.95, 50, 1.1)] * 4, np.arange(4)
    one, two = (w.answer(TEXTS, np.arange(4), hot, seeds, longest=8, told=True) for w in (writer, again))
    assert one == two
