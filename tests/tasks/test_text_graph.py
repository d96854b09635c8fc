"""Entities that training never saw, and relations by their frequency, on the built-in graph."""

import pytest
import torch

from paperflows.tasks.data import _load_dataset
from paperflows.tasks.knowledge_baselines import complete_by_frequency
from paperflows.tasks.text_graph import open_world


@pytest.fixture
def world(in_project):
    return open_world(_load_dataset.fn("builtin", "world_graph", ["text graph"], ""), "minilm")


def test_an_unseen_entity_gets_a_row_of_its_names_pieces(world):
    net, size = world.model(1, 0.0, 0), len(world.names.entities)
    start = net.entities.rows.clone()
    seen = next(iter(world.names.entities))
    world.titles |= {"q1": "Rome", "q2": "green hill"}
    names = world.name_unseen(net, ["q2", seen, "q1", "q1"])
    assert (names.entities["q1"], names.entities["q2"]) == (size + 1, size + 2) and len(names.entities) == size + 2
    assert torch.equal(net.entities.rows[: size + 1], start) and len(net.entities.steps) == size + 3
    words = net.lm.bert.embeddings.word_embeddings.weight
    pieces = world.tokenizer("green hill", add_special_tokens=False)["input_ids"]
    torch.testing.assert_close(net.entities.rows[size + 2], words[pieces].mean(0))
    again = world.name_unseen(net, ["q3", "q1"], names)
    assert again.entities["q3"] == size + 3 and len(net.entities.rows) == size + 4


def test_relations_start_as_likely_as_they_are_stated(world):
    counts = {name: 1.0 for name in world.names.relations}
    for _, relation, _ in world.triples:
        counts[relation] += 1
    bias = world.model(1, 0.0, 0).relation_bias.detach()
    often, rare = max(counts, key=counts.get), min(counts, key=counts.get)
    gap = bias[world.names.relations[often]] - bias[world.names.relations[rare]]
    assert float(gap) == pytest.approx(float(torch.log(torch.tensor(counts[often] / counts[rare]))), abs=1e-5)


def test_frequency_ranks_the_commonest_relation_first(world):
    found = complete_by_frequency.fn(world.data, "minilm", 1)
    assert 0 < found["hits"]["transductive"] < 1 and found["mrr"]["transductive"] > found["hits"]["transductive"]
