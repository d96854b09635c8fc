from random import Random

import pytest
import torch

from paperflows.components.knowledge.graphs import (
    ENTITY,
    RELATION,
    WORD,
    Names,
    ask_relation,
    build_graph,
    collate,
    label_graph,
    state_fact,
)
from paperflows.components.knowledge.masking import mask_graphs
from paperflows.components.models.tiny_bert import train_wordpiece

TRIPLES = [("Rome", "capital of", "Italy"), ("Rome", "on river", "Tiber"), ("Italy", "borders", "France")]
NAMES = Names.of(TRIPLES)
NEIGHBOURS = {"Rome": TRIPLES[:2], "Italy": TRIPLES[2:]}
TEXT = "Rome is in Italy and Rome is old"
MENTIONS = [
    {"start": 0, "end": 4, "entity": "Rome"}, {"start": 11, "end": 16, "entity": "Italy"},
    {"start": 21, "end": 25, "entity": "Rome"},
]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return train_wordpiece([TEXT, "France borders Italy"] * 10, vocab_size=120)


def graph_of(tokenizer, **options):
    return build_graph(TEXT, MENTIONS, NEIGHBOURS, NAMES, tokenizer, rng=Random(0), **options)


def test_a_graph_by_hand(tokenizer):
    graph = graph_of(tokenizer, share=1.0)
    words = [tokenizer.convert_ids_to_tokens(graph.index[i]) for i in range(len(graph)) if graph.kind[i] == WORD]
    # the first mention of Rome and that of Italy are anchors now, the second of Rome stays a word
    assert words == ["[CLS]", "is", "in", "and", "rome", "is", "old", "[SEP]"]
    rome, italy = graph.anchors["Rome"], graph.anchors["Italy"]
    assert (graph.position[rome], graph.position[italy]) == (1, 4)
    number = {name: i for name, i in NAMES.entities.items()}
    tails = {graph.index[i]: i for i in range(len(graph)) if graph.kind[i] == ENTITY and not graph.language[i]}
    assert tails.keys() == {number["Tiber"], number["France"]}  # Italy is an anchor: linked, not repeated
    assert graph.position[tails[number["Tiber"]]] == 3 and graph.position[tails[number["France"]]] == 6
    relations = [i for i in range(len(graph)) if graph.kind[i] == RELATION]
    assert sorted(graph.position[i] for i in relations) == [2, 2, 5]
    (capital,) = (i for i in relations if graph.index[i] == NAMES.relations["capital of"])
    assert {(rome, capital), (capital, italy)} <= set(graph.edges)
    order = [graph.kind[i] for i in range(len(graph))]
    assert order == sorted(order)


def test_attention_follows_language_and_edges_alone(tokenizer):
    graph = graph_of(tokenizer, share=1.0)
    other = build_graph("old", [], NEIGHBOURS, NAMES, tokenizer, rng=Random(0))
    batch = collate([graph, other])
    seen = batch.attention[0]
    assert torch.equal(seen, seen.t())
    for i in range(len(graph)):
        for j in range(len(graph)):
            linked = (i, j) in graph.edges or (j, i) in graph.edges
            assert bool(seen[i, j]) == (i == j or (graph.language[i] and graph.language[j]) or linked)
    assert batch.real.sum(1).tolist() == [len(graph), len(other)]
    padding = batch.attention[1, len(other) :]
    assert torch.equal(padding, torch.eye(len(graph), dtype=torch.bool)[len(other) :])  # itself alone: no NaN
    full = collate([graph, other], full=True)
    assert full.attention[0].all() and not full.attention[1, 0, len(other) :].any()


def test_a_hidden_fact_and_any_other_between_its_ends_stay_out(tokenizer):
    graph = graph_of(tokenizer, share=1.0, hidden=[("Italy", "has capital", "Rome")])
    shown = {graph.index[i] for i in range(len(graph)) if graph.kind[i] == RELATION}
    assert shown == {NAMES.relations["on river"], NAMES.relations["borders"]}
    node = ask_relation(graph, "Rome", "Italy")
    assert node == len(graph) - 1 and graph.index[node] == 0
    assert graph.edges[-2:] == [(graph.anchors["Rome"], node), (node, graph.anchors["Italy"])]
    assert ask_relation(graph, "Rome", "Tiber") is None  # Tiber is not in the sentence


def test_facts_come_as_often_as_asked_and_no_more_than_the_most(tokenizer):
    assert RELATION not in graph_of(tokenizer, share=0.0).kind
    many = {"Rome": [("Rome", f"r{i}", "Tiber") for i in range(40)]}
    names = Names.of([t for some in many.values() for t in some])
    graph = build_graph(TEXT, MENTIONS[:1], many, names, tokenizer, share=1.0, most=15, rng=Random(0))
    assert graph.kind.count(RELATION) == 15 and graph.kind.count(ENTITY) == 2
    with_facts = sum(
        RELATION in build_graph(TEXT, MENTIONS[:1], NEIGHBOURS, NAMES, tokenizer, share=0.5, rng=Random(s)).kind
        for s in range(400)
    )
    assert 160 < with_facts < 240


def test_masks_change_with_the_generator_and_cover_each_kind(tokenizer):
    batch = collate([graph_of(tokenizer, share=1.0)] * 300)
    special = torch.tensor(tokenizer.all_special_ids)
    sizes = {"words": len(tokenizer), "entities": 5, "relations": 4}

    def masked(seed):
        generator = torch.Generator().manual_seed(seed)
        return mask_graphs(batch, mask_word=tokenizer.mask_token_id, special=special, generator=generator, **sizes)

    one, two = masked(0), masked(1)
    assert not torch.equal(one.target, two.target)
    assert len({tuple(row) for row in one.target.tolist()}) > 10  # not a function of the length
    for kind in (WORD, ENTITY, RELATION):
        assert (one.target & (batch.kind == kind)).any(1).all()
    assert not (one.target & torch.isin(batch.index, special) & (batch.kind == WORD)).any()
    assert torch.equal(one.index[~one.target], batch.index[~one.target])
    anchors = (batch.kind == ENTITY) & batch.attention[:, 0]
    assert (one.target & anchors).sum() == anchors.sum()  # every anchor is predicted
    kept = (one.index == batch.index)[anchors].float().mean()
    assert 0.4 < kept < 0.75  # one of four entities is masked as a target, the other anchors mostly stay
    relations = one.target & (batch.kind == RELATION)
    assert 0.7 < (one.index[relations] == 0).float().mean() < 0.9


def test_seeing_everything_changes_the_attention_and_not_the_targets(tokenizer):
    graphs, special = [graph_of(tokenizer, share=1.0)] * 50, torch.tensor(tokenizer.all_special_ids)
    targets = []
    for full in (False, True):
        batch = collate(graphs, full=full)
        masked = mask_graphs(
            batch, mask_word=tokenizer.mask_token_id, special=special, words=len(tokenizer), entities=5, relations=4,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        targets.append(masked.target)
    assert torch.equal(*targets)


def test_a_masked_entity_is_in_no_word_no_number_and_no_fact(tokenizer):
    graph = graph_of(tokenizer, share=1.0, masked="Rome", hidden=[("Rome", "capital of", "Italy")])
    words = [tokenizer.convert_ids_to_tokens(graph.index[i]) for i in range(len(graph)) if graph.kind[i] == WORD]
    assert words == ["[CLS]", "is", "in", "and", "is", "old", "[SEP]"]  # both mentions of Rome are gone
    rome, italy = graph.anchors["Rome"], graph.anchors["Italy"]
    assert graph.index[rome] == 0 and graph.index[italy] == NAMES.entities["Italy"]
    shown = {graph.index[i] for i in range(len(graph)) if graph.kind[i] == RELATION}
    assert shown == {NAMES.relations["borders"]}  # of Italy; Rome's own facts would tell
    assert state_fact(graph, ("Rome", "capital of", "Italy"), NAMES) == (rome, italy)
    relation = len(graph) - 1
    assert graph.index[relation] == NAMES.relations["capital of"]
    assert graph.edges[-2:] == [(rome, relation), (relation, italy)]


def test_a_fact_alone_is_its_known_end_its_relation_and_a_masked_node(tokenizer):
    rows = {}
    for end, given in (("tail", "Rome"), ("head", "Tiber")):
        mention = {"start": 0, "end": len(given), "entity": given}
        rows[end] = build_graph(given, [mention], {}, NAMES, tokenizer, rng=Random(0))
    head, tail = state_fact(rows["tail"], ("Rome", "on river", "Tiber"), NAMES)
    graph = rows["tail"]
    assert (graph.index[head], graph.index[tail]) == (NAMES.entities["Rome"], 0)
    assert (graph.position[head], graph.position[tail], graph.language[tail]) == (1, 3, False)
    head, tail = state_fact(rows["head"], ("Rome", "on river", "Tiber"), NAMES)
    graph = rows["head"]
    assert (graph.index[head], graph.index[tail]) == (0, NAMES.entities["Tiber"]) and graph.language[head]
    assert RELATION in graph.kind and graph.edges[-2:] == [(head, len(graph) - 1), (len(graph) - 1, tail)]
    with pytest.raises(ValueError, match="neither end"):
        state_fact(rows["head"], ("Italy", "borders", "France"), NAMES)


def test_a_sentence_to_classify_keeps_its_words_and_has_two_nodes_beside_them(tokenizer):
    graph, nodes = label_graph(TEXT, MENTIONS[1::-1], NAMES, tokenizer)  # Italy first: the order is the caller's
    words = tokenizer(TEXT)["input_ids"]
    assert graph.index[: len(words)] == words and len(graph) == len(words) + 2 and not graph.edges
    assert [graph.index[i] for i in nodes] == [NAMES.entities["Italy"], NAMES.entities["Rome"]]
    tokens = tokenizer.convert_ids_to_tokens(words)
    assert [graph.position[i] for i in nodes] == [tokens.index("italy"), tokens.index("rome")]
    assert RELATION not in graph.kind
