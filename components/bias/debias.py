"""Debiasing a matching metric by adapters: equal scores for counterfactuals, the old scores elsewhere.

Sun et al. 2022, section 4.2: the model stays frozen, adapters learn. Letters: B examples, T tokens.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from paperflows.components.bias.counterfactual import Counterfactual
from paperflows.components.generation_metrics.matching import bert_score, match_tokens
from paperflows.components.generation_metrics.token_states import TokenEncoder
from paperflows.components.training.batching import Batches


class DebiasObjective:
    """Batches and loss of the adapters of one encoder.

    With s the adapted F1 and s0 the original one, the loss of a counterfactual (x, x') with reference r and a neutral
    pair (c, q) is

        |s(x, r) - s(x', r)| + distil * (|s(c, q) - s0(c, q)| + |(s(x, r) + s(x', r)) / 2 - (s0(x, r) + s0(x', r)) / 2|)

    so that counterfactuals meet at the mean of their original scores.

    Args:
        encoder: whose adapters are trained; it must not have any yet when this is made, since s0 is taken from it.
        counterfactuals: from `augment`.
        neutral: pairs whose scores are to stay.
        batch_size: counterfactuals, and as many neutral pairs, a step.
    """

    def __init__(
        self,
        encoder: TokenEncoder,
        counterfactuals: Sequence[Counterfactual],
        neutral: Sequence[tuple[str, str]],
        *,
        distil: float,
        batch_size: int,
        seed: int,
    ) -> None:
        self._encoder, self._distil = encoder, distil
        both = [(c.first, c.reference) for c in counterfactuals] + [(c.second, c.reference) for c in counterfactuals]
        original = bert_score(encoder, [*both, *neutral])[:, 2]
        self._middle = original[: len(both)].view(2, -1).mean(0)
        self._kept = original[len(both) :]
        k, n = len(counterfactuals), len(neutral)
        texts = [t for c in counterfactuals for t in (c.first, c.second, c.reference)] + [t for p in neutral for t in p]
        self._table = encoder.table(texts)
        self._triple = torch.arange(3 * k).view(k, 3).numpy()
        self._double = (3 * k + torch.arange(2 * n).view(n, 2)).numpy()
        lengths = self._table.lengths
        self._counterfactual_batches = Batches(
            batch_size=batch_size, seed=seed, lengths=lengths[self._triple].max(axis=1)
        )
        self._neutral_batches = Batches(batch_size=batch_size, seed=seed + 1, lengths=lengths[self._double].max(axis=1))

    def batch_at(self, step: int) -> dict[str, Any]:
        """Token ids and targets of step `step`."""
        rows, others = self._counterfactual_batches.at(step), self._neutral_batches.at(step)
        triple, double = self._triple[rows], self._double[others]
        blocks = {
            "first": triple[:, 0], "second": triple[:, 1], "reference": triple[:, 2],
            "candidate": double[:, 0], "partner": double[:, 1],
        }  # fmt: skip
        batch: dict[str, Any] = {name: list(self._table.pad(block)) for name, block in blocks.items()}
        return batch | {"middle": self._middle[rows], "kept": self._kept[others], "ids": rows.tolist()}

    def loss_fn(self, _model: Any, batch: Any) -> Tensor:
        """The loss above, mean over the batch."""
        states = {name: self._states(*batch[name]) for name in batch if isinstance(batch[name], list) and name != "ids"}

        def score(candidate: str, reference: str) -> Tensor:
            return match_tokens(*states[candidate], *states[reference])[:, 2]

        first, second = score("first", "reference"), score("second", "reference")
        neutral = score("candidate", "partner")
        kept = (neutral - batch["kept"]).abs().mean() + ((first + second) / 2 - batch["middle"]).abs().mean()
        return (first - second).abs().mean() + self._distil * kept

    def _states(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._encoder(ids, mask), self._encoder.token_weights(ids, mask), mask.bool()
