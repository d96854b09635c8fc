"""Matching metrics: BERTScore by greedy matching, a MoverScore by optimal transport, on token states.

Letters: N pairs, B pairs in a batch, C candidate tokens, R reference tokens, D width.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paperflows.components.generation_metrics.token_states import TokenEncoder, TokenStates

Pairs = Sequence[tuple[str, str]]
CHUNK = 8192  # pairs whose states are held at once
BUDGET = 400_000  # similarities a batch


def match_tokens(
    candidate: Tensor, candidate_weights: Tensor, candidate_mask: Tensor,
    reference: Tensor, reference_weights: Tensor, reference_mask: Tensor,
) -> Tensor:  # fmt: skip
    """BERTScore precision, recall and F1 (B, 3) of a padded batch (Zhang et al. 2020, section 3).

    Special tokens may be matched but do not count in the averages (their weight is 0), and F1 is 2 P R / (P + R) below
    0 too, as in the authors' package.

    Args:
        candidate, reference: (B, C, D), (B, R, D) unit-length states.
        candidate_weights, reference_weights: (B, C), (B, R); 0 for what does not count.
        candidate_mask, reference_mask: (B, C), (B, R) bool, False for padding.
    """
    similarity = candidate @ reference.transpose(1, 2)
    hidden = torch.finfo(similarity.dtype).min
    best_for_candidate = similarity.masked_fill(~reference_mask[:, None, :], hidden).amax(2)
    best_for_reference = similarity.masked_fill(~candidate_mask[:, :, None], hidden).amax(1)
    precision = _average(best_for_candidate, candidate_weights)
    recall = _average(best_for_reference, reference_weights)
    total = precision + recall
    f1 = torch.where(total != 0, 2 * precision * recall / total, torch.zeros_like(total))
    return torch.stack([precision, recall, f1], dim=-1)


def bert_score(encoder: TokenEncoder, pairs: Pairs, *, idf: Mapping[int, float] | None = None) -> Tensor:
    """Precision, recall and F1 (N, 3) of each (candidate, reference)."""
    out = torch.zeros(len(pairs), 3)
    with torch.inference_mode():
        for rows, states, candidates, references in _chunks(encoder, pairs, idf):
            for batch in _buckets(states.lengths[candidates], states.lengths[references]):
                a, b = states.pad(candidates[batch]), states.pad(references[batch])
                out[torch.from_numpy(rows[batch])] = match_tokens(*a, *b)
    return out


def mover_score(encoder: TokenEncoder, pairs: Pairs, *, idf: Mapping[int, float] | None = None) -> NDArray[np.float64]:
    """1 - the earth mover's distance (N,) between the weighted tokens of candidate and reference (Zhao et al. 2019).

    The cost is the Euclidean distance of unit-length states; the exact transport is solved by POT, a pair at a time.
    """
    import ot

    out = np.zeros(len(pairs))
    for rows, states, candidates, references in _chunks(encoder, pairs, idf):
        flat, weights = states.flat.double().numpy(), states.weights.double().numpy()
        for row, candidate, reference in zip(rows, candidates, references, strict=True):
            a, b = (slice(states.starts[i], states.starts[i] + states.lengths[i]) for i in (candidate, reference))
            wa, wb = weights[a], weights[b]
            if not wa.sum() or not wb.sum():
                continue
            cost = np.sqrt(np.maximum(0.0, 2.0 - 2.0 * flat[a] @ flat[b].T))
            out[row] = 1.0 - float(ot.emd2(wa / wa.sum(), wb / wb.sum(), cost))
    return out


def _average(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean over the last axis, 0 where nothing has weight."""
    return (values.masked_fill(weights == 0, 0.0) * weights).sum(-1) / weights.sum(-1).clamp(min=1e-12)


def _chunks(
    encoder: TokenEncoder, pairs: Pairs, idf: Mapping[int, float] | None
) -> Iterator[tuple[np.ndarray, TokenStates, np.ndarray, np.ndarray]]:
    """Rows of a chunk, the states of its distinct texts, and which texts are each row's candidate and reference.

    Pairs that share a reference stand together, so that it is encoded once.
    """
    order = np.array(sorted(range(len(pairs)), key=lambda i: pairs[i][1]), dtype=np.int64)
    for start in range(0, len(order), CHUNK):
        rows = order[start : start + CHUNK]
        number = {text: i for i, text in enumerate(dict.fromkeys(text for i in rows for text in pairs[i]))}
        states = encoder.states(list(number), idf=idf)
        candidates = np.array([number[pairs[i][0]] for i in rows])
        references = np.array([number[pairs[i][1]] for i in rows])
        yield rows, states, candidates, references


def _buckets(first: np.ndarray, second: np.ndarray) -> Iterator[np.ndarray]:
    """Indices of pairs of like lengths, at most BUDGET similarities a batch."""
    order = np.lexsort((second, first))[::-1]
    start = 0
    while start < len(order):
        cost = int(first[order[start]]) * int(second[order[start : start + 512]].max())
        size = max(1, min(512, BUDGET // max(1, cost)))
        yield order[start : start + size]
        start += size
