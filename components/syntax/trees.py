"""Dependency trees as arrays of heads: decoding from scores, controls, and what is measured on them.

Letters: N words. A tree is an (N,) array of heads, numbered from 0, with -1 for the root word. Scores are (N, N):
`scores[h, d]` is how well word h serves as the head of word d; the diagonal is not read.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.floating]
Heads = NDArray[np.int64]
ROOT = -1


def chu_liu_edmonds(scores: Scores, root: int | Scores) -> Heads:
    """The maximum spanning arborescence (Chu and Liu 1965; Edmonds 1967), O(N^3) in NumPy.

    networkx finds the same trees; it is the reference in the tests and far slower on dense graphs of sentences.

    Args:
        root: the root word, or (N,) scores of each word as the root, of which exactly one is taken.
    """
    n = len(scores)
    if n == 1:
        return np.array([ROOT])
    weights = np.full((n + 1, n + 1), -np.inf)
    weights[1:, 1:] = scores
    if isinstance(root, int | np.integer):
        weights[0, int(root) + 1] = 0.0
    else:
        # a penalty larger than any gain from a second root word keeps it at one
        weights[0, 1:] = np.asarray(root) - (2 * n + 1) * (1 + np.ptp(scores) + np.ptp(root))
    np.fill_diagonal(weights, -np.inf)
    heads = _arborescence(weights)[1:] - 1
    return heads.astype(np.int64)


def _arborescence(weights: Scores) -> Heads:
    """Heads (M,) of the best arborescence from node 0; entry 0 is 0. Cycles are contracted one after the other."""
    heads = weights.argmax(0)
    heads[0] = 0
    cycle = _cycle(heads)
    if cycle is None:
        return heads
    inside = np.zeros(len(heads), dtype=bool)
    inside[cycle] = True
    outside = np.flatnonzero(~inside)
    kept = weights[heads[cycle], cycle]
    entering = weights[np.ix_(outside, cycle)] - kept[None, :]
    leaving = weights[np.ix_(cycle, outside)]
    best_entry, best_exit = entering.argmax(1), leaving.argmax(0)
    m = len(outside)
    smaller = np.full((m + 1, m + 1), -np.inf)
    smaller[:m, :m] = weights[np.ix_(outside, outside)]
    smaller[:m, m] = entering[np.arange(m), best_entry]
    smaller[m, :m] = leaving[best_exit, np.arange(m)]
    smaller[:, 0] = -np.inf
    np.fill_diagonal(smaller, -np.inf)
    found = _arborescence(smaller)
    for place in range(1, m):
        head = found[place]
        heads[outside[place]] = cycle[best_exit[place]] if head == m else outside[head]
    entered = found[m]
    heads[cycle[best_entry[entered]]] = outside[entered]
    return heads


def _cycle(heads: Heads) -> Heads | None:
    """The nodes of one cycle that does not hold node 0, or None."""
    state = np.zeros(len(heads), dtype=np.int64)
    state[0] = -1
    for start in range(1, len(heads)):
        node, path = start, []
        while state[node] == 0:
            state[node] = start
            path.append(node)
            node = int(heads[node])
        if state[node] == start:
            return np.array(path[path.index(node) :])
        state[path] = -1
    return None


def eisner(scores: Scores, root: int | Scores) -> Heads:
    """The best projective tree (Eisner 1996), O(N^3); inner maxima are NumPy operations.

    Args:
        root: as in `chu_liu_edmonds`. With a given root word the tree is projective in the sentence's order, the
            artificial root standing before the first word.
    """
    n = len(scores)
    first = np.full(n, -np.inf)
    if isinstance(root, int | np.integer):
        first[int(root)] = 0.0
    else:
        first = np.asarray(root, dtype=np.float64).copy()
    s = np.asarray(scores, dtype=np.float64)
    # complete and incomplete spans: [left end, right end]; r: the head is the left word, l: the right one
    complete_r, complete_l = np.zeros((n, n)), np.zeros((n, n))
    open_r, open_l = np.full((n, n), -np.inf), np.full((n, n), -np.inf)
    split_open, split_r, split_l = (np.zeros((n, n), dtype=np.int64) for _ in range(3))
    for width in range(1, n):
        for i in range(n - width):
            j = i + width
            joined = complete_r[i, i:j] + complete_l[i + 1 : j + 1, j]
            k = int(joined.argmax())
            split_open[i, j] = i + k
            open_r[i, j], open_l[i, j] = joined[k] + s[i, j], joined[k] + s[j, i]
            right = open_r[i, i + 1 : j + 1] + complete_r[i + 1 : j + 1, j]
            left = complete_l[i, i:j] + open_l[i:j, j]
            a, b = int(right.argmax()), int(left.argmax())
            complete_r[i, j], split_r[i, j] = right[a], i + 1 + a
            complete_l[i, j], split_l[i, j] = left[b], i + b
    chosen = int((first + complete_l[0, :] + complete_r[:, n - 1]).argmax())
    heads = np.full(n, ROOT, dtype=np.int64)
    todo: list[tuple[int, int, str]] = [(0, chosen, "complete_l"), (chosen, n - 1, "complete_r")]
    while todo:
        i, j, kind = todo.pop()
        if i == j:
            continue
        if kind == "complete_r":
            k = int(split_r[i, j])
            todo += [(i, k, "open_r"), (k, j, "complete_r")]
        elif kind == "complete_l":
            k = int(split_l[i, j])
            todo += [(i, k, "complete_l"), (k, j, "open_l")]
        else:
            heads[j if kind == "open_r" else i] = i if kind == "open_r" else j
            k = int(split_open[i, j])
            todo += [(i, k, "complete_r"), (k + 1, j, "complete_l")]
    return heads


def chain(n: int) -> Heads:
    """Every word hangs on its left neighbour; undirected, a chain to the right is the same tree."""
    return np.arange(-1, n - 1)


def random_tree(n: int, random: np.random.Generator) -> Heads:
    """A uniformly drawn labelled tree (Pruefer sequence), directed away from a uniformly drawn root."""
    if n == 1:
        return np.array([ROOT])
    code = random.integers(0, n, size=n - 2)
    degree = np.bincount(code, minlength=n) + 1
    edges = []
    for node in code:
        leaf = int(np.flatnonzero(degree == 1)[0])
        edges.append((leaf, int(node)))
        degree[leaf] -= 1
        degree[node] -= 1
    edges.append(tuple(int(x) for x in np.flatnonzero(degree == 1)))  # type: ignore[arg-type]
    return reroot_edges(edges, n, int(random.integers(n)))


def reroot(heads: Heads, root: int) -> Heads:
    """The same undirected tree, directed away from another root word."""
    return reroot_edges([(i, int(h)) for i, h in enumerate(heads) if h >= 0], len(heads), root)


def reroot_edges(edges: Sequence[tuple[int, int]], n: int, root: int) -> Heads:
    """Heads of the tree with these undirected edges."""
    near: list[list[int]] = [[] for _ in range(n)]
    for a, b in edges:
        near[a].append(b)
        near[b].append(a)
    heads = np.full(n, ROOT, dtype=np.int64)
    todo = [root]
    while todo:
        node = todo.pop()
        for other in near[node]:
            if other != heads[node]:
                heads[other] = node
                todo.append(other)
    return heads


def distances(heads: Heads) -> NDArray[np.int64]:
    """Number of edges (N, N) between any two words."""
    n = len(heads)
    adjacent = np.zeros((n, n), dtype=bool)
    children = np.flatnonzero(heads >= 0)
    adjacent[children, heads[children]] = adjacent[heads[children], children] = True
    out = np.full((n, n), n, dtype=np.int64)
    reached = np.eye(n, dtype=bool)
    out[reached] = 0
    for step in range(1, n):
        front = (reached @ adjacent) & ~reached
        if not front.any():
            break
        out[front] = step
        reached |= front
    return out


def neighbour_share(heads: Heads) -> float:
    """Share of edges between neighbouring words: 1 for a chain."""
    children = np.flatnonzero(heads >= 0)
    return float((np.abs(children - heads[children]) == 1).mean()) if len(children) else 1.0


def undirected_edges(heads: Heads) -> set[tuple[int, int]]:
    """The tree's edges without direction, each as (smaller, larger)."""
    return {(min(i, int(h)), max(i, int(h))) for i, h in enumerate(heads) if h >= 0}


def undirected_attachment(found: Heads, gold: Heads) -> float:
    """Share of gold edges that the tree has, directions unread (UUAS)."""
    wanted = undirected_edges(gold)
    return len(wanted & undirected_edges(found)) / len(wanted) if wanted else 1.0
