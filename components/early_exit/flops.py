"""FLOPs of encoders that stop early: one closed formula for every method, exits included.

A FLOP is half a multiply-accumulate. Counted are the matrix products (projections, scores, values, feed-forward
network, exits); embeddings are look-ups, and norms, softmax and activations are left out, in the full model as well.

Letters: N texts, L layers, T tokens of a text, A active tokens, D width, F inner width, C outputs.
Source: ELUE (Liu et al. 2022), section 3.2, and its counter; here for a layer with A of T tokens active:
MACs = 2TD^2 + (2D^2 + 2DF)A + 2ATD.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def layer_flops(tokens: ArrayLike, active: ArrayLike, *, width: int, inner: int) -> Array:
    """FLOPs of one layer: keys and values for all `tokens`, the rest for the `active` ones; 0 where none is active."""
    t, a = np.asarray(tokens, dtype=np.float64), np.asarray(active, dtype=np.float64)
    macs = 2 * t * width**2 + (2 * width**2 + 2 * width * inner) * a + 2 * a * t * width
    return np.where(a > 0, 2 * macs, 0.0)


def exit_flops(*, width: int, outputs: int) -> float:
    """FLOPs of one exit of a text: pooler and classifier."""
    return 2.0 * (width**2 + width * outputs)


def sentence_flops(
    lengths: ArrayLike, exits: ArrayLike, *, width: int, inner: int, outputs: int, confidence: bool = False
) -> Array:
    """FLOPs (N,) of texts of `lengths` tokens that leave after `exits` layers and ask every exit up to there.

    Args:
        confidence: count the learned rule's confidence head as well.
    """
    t, e = np.asarray(lengths), np.asarray(exits)
    head = exit_flops(width=width, outputs=outputs) + (2.0 * width if confidence else 0.0)
    return e * (layer_flops(t, t, width=width, inner=inner) + head)


def static_flops(lengths: ArrayLike, depth: int, *, width: int, inner: int, outputs: int) -> Array:
    """FLOPs (N,) of the first `depth` layers and one exit: the plain model cut there."""
    t = np.asarray(lengths)
    return depth * layer_flops(t, t, width=width, inner=inner) + exit_flops(width=width, outputs=outputs)


def token_flops(active: ArrayLike, lengths: ArrayLike, *, width: int, inner: int) -> Array:
    """FLOPs (N,) of the layers of texts whose tokens leave one by one; heads are the caller's to add.

    Args:
        active: (N, L) active tokens of each text in each layer.
    """
    a = np.asarray(active)
    return layer_flops(np.asarray(lengths)[:, None], a, width=width, inner=inner).sum(1)
