"""Whole examples packed into rows, kept apart by a block-diagonal mask; loss weights by span.

Letters: E examples, R rows, T tokens of a row.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperflows.components.multimodal.dialogue import Tokens

Weighting = Literal["paper", "mean", "sqrt"]
POWER: dict[str, float] = {"paper": 0.0, "mean": 1.0, "sqrt": 0.5}


def pack(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Numbers of the examples of each row, in order; an example that does not fit in the open row opens a new one.

    Raises:
        ValueError: an example is longer than a row; it is never cut, which would teach blocks without an end.
    """
    rows: list[list[int]] = []
    room = 0
    for number, length in enumerate(lengths):
        if length > width:
            raise ValueError(f"an example of {length} tokens does not fit in a row of {width}")
        if length > room:
            rows.append([])
            room = width
        rows[-1].append(number)
        room -= length
    return rows


def weights_of(example: Tokens, weighting: Weighting, *, prompt: float, answers_only: bool) -> list[float]:
    """Loss weight of each token of an example; each span (a prompt, an answer) counts by its own length.

    `paper` gives every token 1, `mean` every span 1 in all, `sqrt` every span the square root of its length. Tokens
    that are not the assistant's get `prompt` times that (`paper`: the same), or nothing with `answers_only` (stage 2).
    """
    power = POWER[weighting]
    factor = 0.0 if answers_only else 1.0 if weighting == "paper" else prompt
    weights: list[float] = []
    at = 0
    for start, end in [*example.said, (len(example.ids), len(example.ids))]:
        weights += [factor * max(1, start - at) ** -power] * (start - at)
        weights += [max(1, end - start) ** -power] * (end - start)
        at = end
    return weights


def collate(
    examples: Sequence[Tokens], weights: Sequence[Sequence[float]], *, width: int, pad: int
) -> dict[str, Tensor]:
    """Packed ids, positions within the example, number of the example in its row (from 1; 0 is padding) and weights.

    All are (R, T), T the longest row's length.
    """
    rows = pack([len(example.ids) for example in examples], width)
    longest = max(sum(len(examples[i].ids) for i in row) for row in rows)

    def fill(of: Callable[[int, int], Sequence[Any]], empty: Any) -> Tensor:
        lists = [[value for place, i in enumerate(row, 1) for value in of(place, i)] for row in rows]
        return torch.tensor([one + [empty] * (longest - len(one)) for one in lists])

    return {
        "tokens": fill(lambda _, i: examples[i].ids, pad),
        "positions": fill(lambda _, i: range(len(examples[i].ids)), 0),
        "document": fill(lambda place, i: [place] * len(examples[i].ids), 0),
        "weights": fill(lambda _, i: weights[i], 0.0).float(),
    }


def block_mask(document: Tensor) -> Tensor:
    """(R, 1, T, T) bool: a token sees the earlier tokens of its own example and itself."""
    same = document[:, :, None] == document[:, None, :]
    return (same & torch.ones_like(same).tril())[:, None]


def weighted_loss(model: nn.Module, batch: dict[str, Any]) -> Tensor:
    """Weighted mean cross-entropy in nats; logits are made only where a weight is not 0.

    The first token of an example is predicted by nothing and has no loss.
    """
    hidden = model.model(  # type: ignore[operator]
        input_ids=batch["tokens"], attention_mask=block_mask(batch["document"]), position_ids=batch["positions"],
        use_cache=False,
    ).last_hidden_state  # fmt: skip
    weights = batch["weights"][:, 1:] * (batch["positions"][:, 1:] > 0)
    wanted = weights > 0
    logits = model.lm_head(hidden[:, :-1][wanted])  # type: ignore[operator]
    losses = F.cross_entropy(logits.float(), batch["tokens"][:, 1:][wanted], reduction="none")
    return (losses * weights[wanted]).sum() / weights[wanted].sum()
