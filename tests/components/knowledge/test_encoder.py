from random import Random

import numpy as np
import pytest
import torch

from paperflows.components.errors import InputError
from paperflows.components.knowledge.encoder import KnowledgeEncoder
from paperflows.components.knowledge.graphs import ENTITY, Names, build_graph, collate, label_graph
from paperflows.components.knowledge.plain_texts import text_encoder
from paperflows.components.knowledge.ranking import ranks
from paperflows.components.knowledge.reader import GraphReader, RelationReader, read_pairs
from paperflows.components.knowledge.tables import RowTable
from paperflows.components.knowledge.triple_models import TripleModel, corrupt, ranking_loss
from paperflows.components.models.tiny_bert import tiny_bert, train_wordpiece

TRIPLES = [("Rome", "capital of", "Italy"), ("Rome", "on river", "Tiber")]
NAMES = Names.of(TRIPLES)
TEXT = "Rome is old"
MENTIONS = [{"start": 0, "end": 4, "entity": "Rome"}]


@pytest.fixture(scope="module")
def tokenizer():
    return train_wordpiece([TEXT, "Italy and the Tiber"] * 10, vocab_size=80)


def encoder(tokenizer, layers=1, rate=0.01, folder=None):
    torch.manual_seed(0)
    lm = tiny_bert(vocab_size=len(tokenizer), width=16, layers=layers, heads=2, seed=0)
    table = RowTable(torch.randn(len(NAMES.entities) + 1, 16), learning_rate=rate, folder=folder)
    return KnowledgeEncoder(lm, table, torch.randn(len(NAMES.relations) + 1, 16))


def batch_of(tokenizer, share=1.0):
    return collate([build_graph(TEXT, MENTIONS, {"Rome": TRIPLES}, NAMES, tokenizer, share=share, rng=Random(0))])


@pytest.mark.parametrize(("layers", "reaches"), [(1, False), (2, False), (3, True)])
def test_knowledge_reaches_words_through_the_anchor_and_no_sooner(tokenizer, layers, reaches):
    """tail -> relation -> anchor -> word: three layers."""
    model, batch = encoder(tokenizer, layers).eval(), batch_of(tokenizer)
    tail = NAMES.entities["Tiber"]
    with torch.no_grad():
        for weight in model.lm.bert.encoder.parameters():
            weight.mul_(10 if weight.ndim > 1 else 1)  # fresh weights pass on too little to see
        before = model.encode(batch)
        model.entities.rows[tail] += torch.randn(16)
        after = model.encode(batch)
    changed = ~torch.isclose(before, after, atol=1e-6).all(-1)[0]
    words = (batch.kind[0] != ENTITY) & batch.attention[0, 0]
    assert bool(changed[words].any()) == reaches
    assert changed[(batch.kind[0] == ENTITY) & (batch.index[0] == tail)].all()


def test_without_entities_it_is_the_plain_encoder(tokenizer):
    model = encoder(tokenizer, 2).eval()
    graph = build_graph("rome is old", [], {}, NAMES, tokenizer, rng=Random(0))
    ids = torch.tensor([graph.index])
    with torch.no_grad():
        plain = model.lm.bert(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        assert torch.allclose(model.encode(collate([graph])), plain, atol=1e-5)
        torch.nn.init.normal_(model.kinds.weight)  # the type of words is learnt too
        read = text_encoder(model)(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        assert torch.allclose(model.encode(collate([graph])), read, atol=1e-5) and not torch.allclose(read, plain)


def test_padding_changes_nothing(tokenizer):
    model = encoder(tokenizer, 2).eval()
    small = build_graph("old", [], {}, NAMES, tokenizer, rng=Random(0))
    large = build_graph(TEXT, MENTIONS, {"Rome": TRIPLES}, NAMES, tokenizer, share=1.0, rng=Random(0))
    with torch.no_grad():
        alone, together = model.encode(collate([small])), model.encode(collate([large, small]))
    assert torch.allclose(alone[0], together[1, : len(small)], atol=1e-5)


@pytest.mark.parametrize("mapped", [False, True])
def test_a_touched_row_moves_as_adam_says_and_the_others_stay(tmp_path, mapped):
    start = torch.randn(6, 4)
    table = RowTable(start, learning_rate=0.1, folder=tmp_path if mapped else None).train()
    reference = {i: torch.nn.Parameter(start[i].clone()) for i in range(6)}
    optimizers = {i: torch.optim.Adam([p], lr=0.1, eps=1e-8) for i, p in reference.items()}
    for ids in ([1, 4], [4], [0, 1, 4]):  # row 4 has taken three steps when row 0 takes its first
        rows = table.pull(torch.tensor(ids), "cpu")
        (rows**2).sum().backward()
        for i in ids:
            optimizers[i].zero_grad()
            (reference[i] ** 2).sum().backward()
            optimizers[i].step()
    for i in range(6):
        assert torch.allclose(table.rows[i], reference[i].detach(), atol=1e-5)
    assert torch.equal(table.rows[[2, 3, 5]], start[[2, 3, 5]])
    assert table.steps.tolist() == [1, 2, 0, 0, 3, 0]
    if mapped:
        again = torch.from_file(str(tmp_path / "rows.bin"), size=24, dtype=torch.float32).view(6, 4)
        assert torch.equal(again, table.rows)


def test_the_loss_moves_only_the_rows_of_the_batch_once(tokenizer):
    model, batch = encoder(tokenizer).train(), batch_of(tokenizer, share=0.0)  # Rome alone
    rome = NAMES.entities["Rome"]
    before = model.entities.rows.clone()
    target = torch.zeros_like(batch.real)
    target[0, (batch.kind[0] == ENTITY).nonzero()[0]] = True
    loss = model.loss(batch, batch.index, target, torch.tensor([NAMES.entities["Italy"]]))
    loss.backward()
    moved = (model.entities.rows != before).any(1)
    assert moved.nonzero()[:, 0].tolist() == sorted([rome, NAMES.entities["Italy"]])
    assert model.entities.steps[rome] == 1  # as input and as candidate together
    assert torch.isfinite(loss)
    assert "entities.rows" in model.state_dict() and "entities.steps" in model.state_dict()
    assert not any(name.startswith("entities") for name, _ in model.named_parameters())


def test_no_target_costs_nothing(tokenizer):
    model, batch = encoder(tokenizer).eval(), batch_of(tokenizer)
    loss = model.loss(batch, batch.index, torch.zeros_like(batch.real), torch.tensor([1]))
    assert loss.item() == 0.0


def test_ties_share_the_mean_rank_and_other_true_answers_are_left_out():
    scores = np.array([[0.5, 0.9, 0.5, 0.1], [0.5, 0.9, 0.5, 0.1], [1.0, 1.0, 1.0, 1.0]])
    gold = np.array([0, 0, 3])
    left_out = np.zeros((3, 4), dtype=bool)
    left_out[1, 1] = True
    assert ranks(scores, gold, left_out).tolist() == [2.5, 1.5, 2.5]


def test_triple_scores_by_hand():
    def model(kind, entity, relation):
        made = TripleModel(kind, entities=2, relations=1, width=1)
        with torch.no_grad():
            made.entity.weight.copy_(torch.tensor(entity))
            made.relation.weight.copy_(torch.tensor(relation))
        return made

    h, r, t = torch.tensor(0), torch.tensor(0), torch.tensor(1)
    assert model("transe", [[1.0], [4.0]], [[2.0]])(h, r, t).item() == pytest.approx(-1.0)
    assert model("distmult", [[2.0], [3.0]], [[5.0]])(h, r, t).item() == pytest.approx(30.0)
    # (1 + 2i)(3 + 4i)(5 - 6i): real part of (-5 + 10i)(5 - 6i) = -25 + 60
    assert model("complex", [[1.0, 2.0], [5.0, 6.0]], [[3.0, 4.0]])(h, r, t).item() == pytest.approx(35.0)
    # i times 1 is i
    quarter = model("rotate", [[1.0, 0.0], [0.0, 1.0]], [[np.pi / 2]])(h, r, t).item()
    assert quarter == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(InputError, match="transe"):
        TripleModel("hole", entities=2, relations=2, width=2)


@pytest.mark.parametrize("kind", ["transe", "distmult", "complex", "rotate"])
def test_training_puts_known_facts_above_corrupted_ones(kind):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    facts = torch.tensor([[i, 1 + i % 2, i + 10] for i in range(1, 10)])
    model = TripleModel(kind, entities=20, relations=3, width=16)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(150):
        bad = corrupt(facts, 4, entities=20, relations=3, generator=generator)
        assert (bad != facts[:, None]).sum(-1).max() <= 1
        loss = ranking_loss(model, facts, bad, margin=4.0 if kind in ("transe", "rotate") else 0.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right = model(facts[:, 0], facts[:, 1], facts[:, 2])
    wrong = model(facts[:, 0], 3 - facts[:, 1], facts[:, 2])
    assert (right > wrong).float().mean() > 0.8


ROW = {"text": TEXT, "mentions": [*MENTIONS, {"start": 8, "end": 11, "entity": "Age"}]}


def test_the_reader_looks_at_both_mentions(tokenizer):
    batch = read_pairs([(ROW, ("Rome", "r", "Age"))], tokenizer, NAMES.entities)
    at = batch["head"][0].nonzero()[:, 0]
    assert tokenizer.decode(batch["tokens"][0, at]) == "rome"
    assert tokenizer.decode(batch["tokens"][0, batch["tail"][0].nonzero()[:, 0]]) == "old"
    assert batch["ends"].tolist() == [[NAMES.entities["Rome"], 0]]
    lm = tiny_bert(vocab_size=len(tokenizer), width=16, layers=1, heads=2, seed=0)
    reader = RelationReader(lm, 3).eval()
    one, two = reader(batch), reader({**batch, "head": batch["tail"], "tail": batch["head"]})
    assert not torch.allclose(one[:, 1:], two[:, 1:]) and torch.isinf(one[0, 0])


def test_kept_vectors_are_added_at_the_mentions_and_nowhere_else(tokenizer):
    batch = read_pairs([(ROW, ("Rome", "r", "Age"))], tokenizer, NAMES.entities)
    lm = tiny_bert(vocab_size=len(tokenizer), width=16, layers=1, heads=2, seed=0).eval()
    vectors = torch.zeros(len(NAMES.entities) + 1, 4)
    plain, seen = RelationReader(lm, 3).eval(), {}
    reader = RelationReader(lm, 3, vectors).eval()
    reader.head = plain.head
    assert torch.allclose(reader(batch), plain(batch))  # nothing is known of any entity
    vectors[NAMES.entities["Rome"], 2] = 5.0  # scaled to length 1
    reader = RelationReader(lm, 3, vectors).eval()
    reader.head = plain.head
    assert torch.allclose(reader(batch), plain(batch)) and not reader.inject.weight.any()  # starts as without vectors
    torch.nn.init.normal_(reader.inject.weight)
    lm.bert.embeddings.register_forward_pre_hook(lambda _, __, given: seen.update(given), with_kwargs=True)
    reader(batch)
    added = seen["inputs_embeds"] - lm.bert.embeddings.word_embeddings(batch["tokens"])
    assert torch.equal(added.abs().sum(-1) > 1e-6, batch["head"].bool())
    assert torch.allclose(added[0, batch["head"][0].argmax()], reader.inject.weight[:, 2], atol=1e-6)
    assert "vectors" not in reader.state_dict() and "inject.weight" in reader.state_dict()


def test_the_reader_of_graphs_looks_at_both_nodes_and_entity_rows_can_stay(tokenizer):
    model = encoder(tokenizer, rate=0.0)
    before = model.entities.rows.clone()
    made = [label_graph(TEXT, MENTIONS * 2, NAMES, tokenizer), label_graph("old", MENTIONS * 2, NAMES, tokenizer)]
    batch, nodes = collate([graph for graph, _ in made], full=True), torch.tensor([nodes for _, nodes in made])
    reader = GraphReader(model, 3).train()
    loss = torch.nn.functional.cross_entropy(reader(batch, nodes), torch.tensor([1, 2]))
    loss.backward()
    assert torch.equal(model.entities.rows, before) and reader.head[0].weight.grad.abs().sum() > 0
    reader.eval()
    hidden = model.encode(batch)
    states = torch.cat([hidden[1, 0], hidden[1, nodes[1, 0]], hidden[1, nodes[1, 1]]])
    assert torch.allclose(reader(batch, nodes)[1, 1:], reader.head(states)[1:], atol=1e-5)
