"""When to retrieve: UAR's four criteria as linear heads on a frozen state, their decision, and other deciders.

Letters: N requests, B batch, D width, C criteria.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from paperflows.components.retrieval.requests import undotted

CRITERIA = ("intent", "knowledge", "time", "unknown")
HEADS = (*CRITERIA, "retrieve")  # the last one is trained on the decision itself: a baseline, not a criterion
Flags = NDArray[np.bool_]


class CriteriaHeads(nn.Module):
    """One linear layer D -> 2 for each criterion; none reads another's.

    Args:
        mean, deviation: (D,) of the training states; states are scaled by them, which keeps the heads linear.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Tensor, deviation: Tensor, heads: int = len(HEADS)) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation.clamp_min(1e-6))
        self.linear = nn.Linear(len(mean), 2 * heads)

    def forward(self, states: Tensor) -> Tensor:
        """(B, D) -> (B, C, 2) logits of no and yes."""
        return self.linear((states - self.mean) / self.deviation).view(len(states), -1, 2)


def heads_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of every head, summed over heads.

    Args:
        logits: (B, C, 2).
        labels: (B, C) 0 or 1; -1 where a criterion is not asked of a request.
        weights: (C, 2) of the classes, so that a rare class counts as much as a frequent one.
    """
    total = logits.new_zeros(())
    for head in range(logits.shape[1]):
        asked = labels[:, head] >= 0
        if asked.any():
            total = total + F.cross_entropy(logits[asked, head], labels[asked, head], weight=weights[head])
    return total


def class_weights(labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """(C, 2) weights inverse to the classes' frequencies in labels (N, C)."""
    counts = np.stack([(labels == 0).sum(0), (labels == 1).sum(0)], axis=1)
    return (counts.sum(1, keepdims=True) / np.maximum(1, 2 * counts)).astype(np.float32)


def decide(intent: Flags, knowledge: Flags, time: Flags, unknown: Flags) -> Flags:
    """UAR-Criteria: asked for -> retrieve; no knowledge needed -> not; changes with time -> retrieve; else if unknown.

    Args:
        intent, knowledge, time, unknown: (N,) what the heads say.
    """
    return intent | (knowledge & (time | unknown))


def knn_unknown(
    states: NDArray[np.float32], train: NDArray[np.float32], unknown: Flags, neighbours: int
) -> NDArray[np.float64]:
    """SKR (Wang et al., 2023): share of unknown questions among the nearest training questions of each state, (N,).

    Args:
        states: (N, D).
        train: (M, D) states of questions whose label is known.
        unknown: (M,).
    """
    from paperflows.components.retrieval.dense import build_dense

    def unit(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.ascontiguousarray(x / np.linalg.norm(x, axis=1, keepdims=True), dtype=np.float32)

    _, nearest = build_dense(unit(train)).search(unit(states), neighbours)
    return unknown[nearest].mean(1)


def best_threshold(scores: NDArray[np.float64], wanted: Flags) -> float:
    """The threshold t for which `scores > t` agrees most often with `wanted`; the smallest of equal ones."""
    order = np.argsort(scores, kind="stable")
    values, flags = scores[order], wanted[order]
    cuts = np.concatenate([[values[0] - 1], (values[1:] + values[:-1]) / 2, [values[-1]]])
    agree = [(scores > cut) == wanted for cut in np.unique(cuts)]
    assert len(flags)
    return float(np.unique(cuts)[int(np.argmax([a.mean() for a in agree]))])


@dataclass(frozen=True)
class Decision:
    """What the assistant should do with one request, and why: the criteria's probabilities."""

    retrieve: bool
    criteria: dict[str, float]


class RetrievalDecider:
    """Decides one request at a time, for a service: one pass of the encoder, then the heads.

    Args:
        encode: texts -> (N, D) states of the model in front of which the decision stands.
        heads: trained ones.
    """

    def __init__(self, encode: Any, heads: CriteriaHeads) -> None:
        self.encode = encode
        scale = heads.deviation.numpy()
        weight = heads.linear.weight.detach().numpy() / scale
        self._weight = np.ascontiguousarray(weight[1::2] - weight[0::2])[: len(CRITERIA)]
        bias = heads.linear.bias.detach().numpy() - weight @ heads.mean.numpy()
        self._bias = (bias[1::2] - bias[0::2])[: len(CRITERIA)]

    def margins(self, state: NDArray[np.float32]) -> NDArray[np.float32]:
        """(4,) logits of yes over no of one state (D,): all that a decision adds to the model's own pass."""
        return self._weight @ state + self._bias

    def decide(self, text: str) -> Decision:
        """Whether to retrieve for `text`, read without its final punctuation, as in training."""
        margins = self.margins(self.encode([undotted(text)])[0])
        yes = margins > 0
        retrieve = bool(decide(yes[0:1], yes[1:2], yes[2:3], yes[3:4])[0])
        probability = 1 / (1 + np.exp(-margins.astype(np.float64)))
        return Decision(retrieve, dict(zip(CRITERIA, probability.tolist(), strict=True)))


def save_heads(heads: CriteriaHeads, path: Path, *, states: Mapping[str, str] | None = None) -> None:
    """Write the heads (safetensors).

    Args:
        states: what the states are, such as the model that they are of; `states_of` reads it.
    """
    from safetensors.torch import save_file

    tensors = {name: value.detach().cpu().contiguous() for name, value in heads.state_dict().items()}
    # safetensors writes several entries in any order; in one entry, equal heads are equal files
    save_file(tensors, path, metadata={"states": json.dumps(dict(states or {}), sort_keys=True)})


def states_of(path: Path) -> dict[str, str]:
    """What `save_heads` was told of the states."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        found: dict[str, str] = json.loads((file.metadata() or {}).get("states", "{}"))
    return found


def load_heads(path: Path) -> CriteriaHeads:
    """Heads that `save_heads` wrote."""
    from safetensors.torch import load_file

    found = load_file(path)
    heads = CriteriaHeads(found["mean"], found["deviation"], len(found["linear.bias"]) // 2)
    heads.load_state_dict(found)
    return heads.eval()


def flags(logits: Tensor, names: Sequence[str] = HEADS) -> dict[str, Flags]:
    """Head -> (N,) whether yes is likelier, from logits (N, C, 2)."""
    yes = (logits[..., 1] > logits[..., 0]).numpy()
    return {name: yes[:, place] for place, name in enumerate(names)}
