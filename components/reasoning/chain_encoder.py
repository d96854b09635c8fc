"""An encoder that reads a question with a chain of reasoning and scores the chain by its steps.

Letters: B chains, T tokens, D width, S steps.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from paperflows.components.reasoning.recorded import step_starts
from paperflows.components.training.batching import TokenTable, token_budget_batches

OUTSIDE = -1  # step of a token that is not of the chain


class ChainEncoder(nn.Module):
    """Scores of chains: what a simpler judge says of each, plus a logit that is trained on the text.

    Each step has a logit from the mean of its states, and the chain their soft minimum: the mean of the steps while
    they are alike, the worst one where it stands out, as one wrong step makes a chain wrong. The head starts at zero,
    so that before training the ranking is the simpler judge's.

    Args:
        encoder: a BERT-like encoder with `last_hidden_state` (B, T, D), with or without segment numbers.
    """

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.config.hidden_size, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.scale = nn.Parameter(torch.ones(()))
        self._segments = "token_type_ids" in inspect.signature(encoder.forward).parameters

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor, steps: Tensor, base: Tensor) -> Tensor:
        """(B, T) ids, mask, segment numbers and steps, and (B,) scores of the simpler judge -> (B,) scores."""
        segments = {"token_type_ids": types} if self._segments else {}
        hidden = self.encoder(input_ids=ids, attention_mask=mask, **segments).last_hidden_state
        return self.scale * base + soft_minimum(*step_logits(hidden, steps, self.head))

    @torch.inference_mode()
    def score(
        self, table: "ChainTable", base: Tensor, which: NDArray[np.int64], *, budget: int = 4096
    ) -> NDArray[np.float64]:
        """(M,) scores of the chains `which` (M,) of a table.

        Args:
            base: (N,) of the simpler judge.
            budget: padded tokens a batch.
        """
        device = next(self.parameters()).device
        out = np.zeros(len(which))
        self.eval()
        for places in token_budget_batches(table.lengths[which], budget=budget):
            indices = which[places]
            inputs = [tensor.to(device) for tensor in (*table.pad(indices), base[indices])]
            out[places] = self(*inputs).double().cpu().numpy()
        return out


def step_logits(hidden: Tensor, steps: Tensor, head: nn.Module) -> tuple[Tensor, Tensor]:
    """Logits (B, S) of the mean states of each step, and which steps there are (B, S).

    Args:
        hidden: (B, T, D) states.
        steps: (B, T) the step of each token, `OUTSIDE` where it is none's.
        head: (..., D) -> (..., 1).
    """
    inside = torch.nn.functional.one_hot(steps + 1, int(steps.max()) + 2)[..., 1:].to(hidden.dtype)  # (B, T, S)
    counts = inside.sum(1)
    means = inside.transpose(1, 2) @ hidden / counts.clamp(min=1)[..., None]
    return head(means).squeeze(-1), counts > 0


def soft_minimum(logits: Tensor, there: Tensor) -> Tensor:
    """(B,) minus log of the mean of exp(-logit) over the steps that there are, (B, S) both."""
    kept = torch.where(there, -logits, -torch.inf)
    return there.sum(1).log() - torch.logsumexp(kept, dim=1)


class ChainTable:
    """Tokenised questions with chains; `pad` gives ids, mask, segment numbers and steps, each (B, T).

    Args:
        tokenizer: a fast one; it is set to cut texts at their beginning, since a chain concludes at its end.
        max_length: tokens kept of a question and a chain; the longer of both is cut.
    """

    def __init__(self, tokenizer: Any, questions: Sequence[str], chains: Sequence[str], max_length: int) -> None:
        tokenizer.truncation_side = "left"
        found = tokenizer(
            list(questions), list(chains), truncation="longest_first", max_length=max_length,
            return_attention_mask=False, return_offsets_mapping=True,
        )  # fmt: skip
        types = found.get("token_type_ids") or [[0] * len(row) for row in found["input_ids"]]
        steps = [
            _steps_of(found.sequence_ids(i), offsets, chain)
            for i, (offsets, chain) in enumerate(zip(found["offset_mapping"], chains, strict=True))
        ]
        self._ids = TokenTable(found["input_ids"], pad_id=tokenizer.pad_token_id)
        self._types, self._steps = TokenTable(types, pad_id=0), TokenTable(steps, pad_id=OUTSIDE)
        self.lengths = self._ids.lengths

    def pad(self, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Ids, mask, segment numbers and steps of these chains."""
        ids, mask = self._ids.pad(indices)
        return ids, mask, self._types.pad(indices)[0], self._steps.pad(indices)[0]


def _steps_of(sequences: Sequence[int | None], offsets: Sequence[tuple[int, int]], chain: str) -> list[int]:
    """(T,) the step of each token; where no token is the chain's the first token stands for it."""
    of_chain = np.array([part == 1 for part in sequences])
    if not of_chain.any():
        of_chain[0] = True
    last = [max(end - 1, 0) for _, end in offsets]  # some tokenizers begin a word at the space before it
    step = np.searchsorted(step_starts(chain), last, side="right") - 1
    step[of_chain] = np.unique(step[of_chain], return_inverse=True)[1]  # without those that have no token
    return np.where(of_chain, step, OUTSIDE).tolist()
