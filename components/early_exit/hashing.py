"""Hash functions from token ids to exit layers, and the histograms that give them equal compute.

A hash is an array: token id -> executed layers, 1 to L. Special tokens, and tokens that training never saw, run all.

Letters: V vocabulary, L layers, N texts, T tokens, H width, C classes.
Source: HashEE (Sun et al. 2022), section 3.2; the smoothing, the clamping of the remainder and the protection of
special tokens in every hash are this project's (the official code lacks them).
"""

from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from paperflows.components.early_exit.flops import layer_flops

Ints = NDArray[np.int64]
Array = NDArray[np.float64]
HASHES = ("frequency", "rare_first", "information", "cluster", "consistent")


def token_counts(rows: Sequence[Ints], vocabulary: int) -> Ints:
    """(V,) occurrences of each token id in the training texts."""
    return np.bincount(np.concatenate(rows), minlength=vocabulary) if len(rows) else np.zeros(vocabulary, np.int64)


def mutual_information(rows: Sequence[Ints], target: Ints, vocabulary: int, *, alpha: float = 0.1) -> Array:
    """(V,) sum over classes y of p(x, y) ln(p(x, y) / (p(x) p(y))), over token occurrences, smoothed by `alpha`.

    p(y) is the share of examples with class y; each class's occurrences are weighted to it, so that classes with long
    texts count no more. Clipped at 0.
    """
    classes = int(target.max()) + 1
    prior = np.bincount(target, minlength=classes) / len(target)
    joint = np.stack(
        [token_counts([r for r, y in zip(rows, target, strict=True) if y == c], vocabulary) for c in range(classes)]
    )
    given = (joint + alpha) / (joint + alpha).sum(1, keepdims=True)  # p(x | y)
    both = given * prior[:, None]
    marginal = both.sum(0)
    return np.maximum(0.0, (both * np.log(given / marginal)).sum(0))


def cluster_order(vectors: Array, ids: Ints, *, clusters: int, seed: int = 0, by: str = "norm") -> list[Ints]:
    """Token ids grouped by k-means of their embeddings, the groups ordered by mean norm (or by "size"), small first."""
    from sklearn.cluster import MiniBatchKMeans

    found = MiniBatchKMeans(clusters, init="k-means++", n_init=5, max_iter=300, random_state=seed).fit(vectors[ids])
    groups = [ids[found.labels_ == c] for c in range(clusters)]
    norms = np.linalg.norm(vectors, axis=1)
    groups = [g for g in groups if len(g)]
    return sorted(groups, key=lambda g: float(norms[g].mean()) if by == "norm" else len(g))


def order_of(
    kind: str, counts: Ints, *, information: Array | None = None, vectors: Array | None = None, seed: int = 0
) -> Ints:
    """Seen token ids in the order in which they leave: the first ones after the fewest layers.

    | kind | leaves first |
    | --- | --- |
    | frequency | the most frequent |
    | rare_first | the rarest (the control) |
    | information | the highest mutual information with the label |
    | cluster | the cluster with the smallest embeddings |
    | consistent | by lot, once for all |
    """
    seen = np.flatnonzero(counts)
    if kind == "information":
        assert information is not None
        return seen[np.argsort(-information[seen], kind="stable")]
    if kind == "cluster":
        assert vectors is not None
        return np.concatenate(cluster_order(vectors, seen, clusters=min(6, len(seen)), seed=seed))
    if kind == "consistent":
        return np.random.default_rng(seed).permutation(seen)
    order = seen[np.argsort(-counts[seen], kind="stable")]
    return order[::-1] if kind == "rare_first" else order


def fill_types(order: Ints, depth: int, buckets: int, *, vocabulary: int, special: Collection[int]) -> Ints:
    """The paper's hash: `buckets` equal in types, over the layers 1, 1 + L // B, ...; the remainder joins the last."""
    free = order[~np.isin(order, list(special))]
    size = max(1, len(free) // buckets)
    bucket = np.minimum(np.arange(len(free)) // size, buckets - 1)
    layers = np.full(vocabulary, depth, dtype=np.int64)
    layers[free] = np.minimum(1 + bucket * max(1, depth // buckets), depth)
    return layers


def fill_mass(order: Ints, counts: Ints, shares: Array, *, special: Collection[int]) -> Ints:
    """Walk `order` and fill the layers so that layer l takes `shares[l - 1]` of the token occurrences.

    Hashes filled alike cost alike, whatever their order; a single type never splits.
    """
    free = order[~np.isin(order, list(special))]
    mass = counts[free].astype(np.float64)
    middle = (np.cumsum(mass) - mass / 2) / max(1.0, mass.sum())
    layers = np.full(len(counts), len(shares), dtype=np.int64)
    layers[free] = np.minimum(np.searchsorted(np.cumsum(shares), middle, side="right"), len(shares) - 1) + 1
    return layers


def expected_cost(shares: Array, lengths: Ints, *, protected: float, width: int, inner: int, full_depth: int) -> float:
    """FLOPs of the layers as a share of `full_depth` full ones, when tokens leave by `shares` (L,).

    Args:
        protected: mean number of special tokens of a text; they run every layer.
    """
    mean = np.asarray(lengths, dtype=np.float64)
    stay = 1 - np.concatenate([[0.0], np.cumsum(shares)[:-1]])  # active share of the free tokens in each layer
    active = protected + np.maximum(0.0, mean[:, None] - protected) * stay
    spent = layer_flops(mean[:, None], active, width=width, inner=inner).sum()
    return float(spent / (full_depth * layer_flops(mean, mean, width=width, inner=inner).sum()))


def shares_for(
    speedup: float, lengths: Ints, depth: int, *, protected: float, width: int, inner: int, full_depth: int
) -> Array:
    """Shares (L,) proportional to r^l whose expected cost is 1 / speedup; r is found by bisection.

    The nearest that `depth` layers can give where the wish is out of reach.
    """

    sizes = {"protected": protected, "width": width, "inner": inner, "full_depth": full_depth}
    return solve_shares(lambda shares: expected_cost(shares, lengths, **sizes), depth, 1 / speedup)  # type: ignore[arg-type]


def solve_shares(cost_of: Callable[[Array], float], depth: int, wanted: float) -> Array:
    """Shares (L,) proportional to r^l with the wanted cost, which rises with r, by bisection."""

    def at(log_ratio: float) -> Array:
        raw = np.exp(log_ratio * np.arange(depth))
        return raw / raw.sum()

    low, high = -12.0, 12.0  # nearly all leave first ... nearly all stay
    for _ in range(40):
        middle = (low + high) / 2
        if cost_of(at(middle)) > wanted:
            high = middle
        else:
            low = middle
    return at((low + high) / 2)


def realised_cost(layers: Ints, rows: Sequence[Ints], depth: int, *, width: int, inner: int, full_depth: int) -> float:
    """FLOPs of the layers on these texts under a hash (V,), as a share of `full_depth` full ones.

    Not the expected one: a frequent type leaves as a whole, so the histogram asked for is met only roughly.
    """
    lengths = np.array([len(row) for row in rows])
    text = np.repeat(np.arange(len(rows)), lengths)
    exits = layers[np.concatenate(rows)]
    active = np.stack([np.bincount(text, weights=exits > layer, minlength=len(rows)) for layer in range(depth)], 1)
    whole = full_depth * layer_flops(lengths, lengths, width=width, inner=inner).sum()
    return float(layer_flops(lengths[:, None], active, width=width, inner=inner).sum() / whole)


def exits_by_lot(shape: tuple[int, ...], shares: Array, random: np.random.Generator) -> Ints:
    """Executed layers drawn anew for every occurrence: the inconsistent hash."""
    return random.choice(len(shares), size=shape, p=shares) + 1


def exits_by_position(lengths: Ints, shares: Array) -> Ints:
    """(B, T) executed layers by position alone: a text's last tokens leave first, in the shares of the histogram.

    Args:
        lengths: (B,) tokens of each text; T is the longest, and padding leaves at once.
    """
    place = 1 - (np.arange(int(lengths.max())) + 0.5) / lengths[:, None]
    return np.minimum(np.searchsorted(np.cumsum(shares), place, side="right"), len(shares) - 1) + 1
