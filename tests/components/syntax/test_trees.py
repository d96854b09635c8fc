"""Tree decoding against networkx and against every tree there is; controls and measures by hand."""

import itertools

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paperflows.components.syntax import trees

ROOTED = {n: [] for n in range(1, 7)}
for n in ROOTED:
    for heads in itertools.product(range(-1, n), repeat=n):
        if heads.count(-1) == 1:
            reached = {heads.index(-1)}
            for _ in range(n):
                reached |= {i for i in range(n) if heads[i] in reached}
            if len(reached) == n:
                ROOTED[n].append(np.array(heads))


def total(scores, root, heads):
    return root[heads.tolist().index(-1)] + sum(scores[h, d] for d, h in enumerate(heads) if h >= 0)


def crosses(heads):
    arcs = [(-1 if h < 0 else h, d) for d, h in enumerate(heads)]
    spans = [(min(a), max(a)) for a in arcs]
    return any(a < c < b < d for (a, b), (c, d) in itertools.permutations(spans, 2))


def is_tree(heads):
    return (heads == -1).sum() == 1 and len(trees.undirected_edges(heads)) == len(heads) - 1


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(0, 10**6))
def test_decoders_find_the_best_of_all_trees(n, seed):
    random = np.random.default_rng(seed)
    scores, root = random.normal(size=(n, n)), random.normal(size=n)
    best = max(total(scores, root, heads) for heads in ROOTED[n])
    assert total(scores, root, trees.chu_liu_edmonds(scores, root)) == pytest.approx(best)
    projective = max(total(scores, root, heads) for heads in ROOTED[n] if not crosses(heads))
    found = trees.eisner(scores, root)
    assert not crosses(found) and total(scores, root, found) == pytest.approx(projective)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 25), st.integers(0, 10**6))
def test_arborescence_weighs_as_much_as_networkx_finds(n, seed):
    random = np.random.default_rng(seed)
    scores, root = random.exponential(size=(n, n)), int(random.integers(n))
    graph = nx.DiGraph()
    graph.add_weighted_edges_from((h, d, scores[h, d]) for h in range(n) for d in range(n) if h != d and d != root)
    reference = nx.maximum_spanning_arborescence(graph)
    heads = trees.chu_liu_edmonds(scores, root)
    assert is_tree(heads) and heads[root] == -1
    weight = sum(scores[h, d] for d, h in enumerate(heads) if h >= 0)
    assert weight == pytest.approx(sum(w for *_, w in reference.edges(data="weight")))


def test_a_cycle_worked_by_hand():
    # the best heads of 1 and 2 are each other; entering at 1 costs 9 - 5 = 4, at 2 it costs 8 - 3 = 5
    scores = np.array([[0, 5, 3], [0, 0, 8], [0, 9, 0]], dtype=float)
    assert trees.chu_liu_edmonds(scores, 0).tolist() == [-1, 0, 1]


def test_chains_and_measures():
    left, right = trees.chain(4), np.array([1, 2, 3, -1])
    assert left.tolist() == [-1, 0, 1, 2]
    assert trees.neighbour_share(left) == 1.0
    star = np.array([-1, 0, 0, 0])
    assert trees.neighbour_share(star) == pytest.approx(1 / 3)
    assert trees.distances(star).tolist() == [[0, 1, 1, 1], [1, 0, 2, 2], [1, 2, 0, 2], [1, 2, 2, 0]]
    assert trees.distances(left)[0].tolist() == [0, 1, 2, 3]
    assert trees.undirected_attachment(left, right) == 1.0
    assert trees.undirected_attachment(left, star) == pytest.approx(1 / 3)
    assert trees.reroot(left, 2).tolist() == [1, 2, -1, 2]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(0, 10**6))
def test_random_trees_are_trees_and_rerooting_keeps_edges(n, seed):
    random = np.random.default_rng(seed)
    heads = trees.random_tree(n, random)
    assert is_tree(heads)
    again = trees.reroot(heads, int(random.integers(n)))
    assert is_tree(again) and trees.undirected_edges(again) == trees.undirected_edges(heads)


def test_random_trees_are_uniform():
    random = np.random.default_rng(0)
    counts: dict = {}
    for _ in range(4000):
        key = tuple(sorted(trees.undirected_edges(trees.random_tree(4, random))))
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 16 and min(counts.values()) > 180 and max(counts.values()) < 330
