"""A masked language model as denoiser, told the time step in one of three ways or not at all.

Letters: B sentences, T tokens, N masked positions, V vocabulary, D width, S steps.
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

Time = Literal["none", "layer", "prefix"]


class Denoiser(nn.Module):
    """Log-probabilities of the tokens under the masks.

    Args:
        lm: a `BertForMaskedLM`.
        allowed: (V,) true for tokens that may be predicted; [MASK] and the like have probability 0.
        time: none (time-agnostic, the paper's choice), layer (an embedding of t added after every attention: LTE) or
            prefix (one more token after [CLS]: PTE).
        steps: S.
    """

    def __init__(self, lm: Any, allowed: Tensor, *, time: Time = "none", steps: int = 1) -> None:
        super().__init__()
        self.lm, self.time, self.steps = lm, time, steps
        self.forbidden: Tensor
        self.register_buffer("forbidden", ~allowed, persistent=False)
        width = lm.config.hidden_size
        self._embedded: Tensor | None = None
        if time == "layer":
            self.timers = nn.ModuleList(
                nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
                for _ in lm.bert.encoder.layer
            )
            for layer, timer in zip(lm.bert.encoder.layer, self.timers, strict=True):
                last: Any = list(timer.children())[-1]
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
                layer.attention.register_forward_hook(self._adder(timer))
        elif time == "prefix":
            self.stamp = nn.Embedding(steps + 1, width)
            nn.init.normal_(self.stamp.weight, std=lm.config.initializer_range)

    def forward(self, ids: Tensor, attention: Tensor, t: Tensor, masked: Tensor) -> Tensor:
        """Log-probabilities (N, V) at the masked positions, row by row.

        Args:
            ids, attention, masked: (B, T).
            t: (B,) steps in 1..S; without effect for time-agnostic denoisers.
        """
        device = self.forbidden.device
        ids, attention, t, masked = ids.to(device), attention.to(device), t.to(device), masked.to(device)
        if self.time == "prefix":
            words = self.lm.bert.embeddings.word_embeddings(ids)
            stamp = self.stamp(t)[:, None]
            embedded = torch.cat([words[:, :1], stamp, words[:, 1:]], 1)
            attention = torch.cat([attention[:, :1], attention], 1)
            hidden = self.lm.bert(inputs_embeds=embedded, attention_mask=attention).last_hidden_state
            hidden = torch.cat([hidden[:, :1], hidden[:, 2:]], 1)
        else:
            self._embedded = sinusoids(t, self.lm.config.hidden_size) if self.time == "layer" else None
            hidden = self.lm.bert(input_ids=ids, attention_mask=attention).last_hidden_state
        logits = self.lm.cls(hidden[masked.bool()]).float()
        return logits.masked_fill(self.forbidden, float("-inf")).log_softmax(-1)

    def _adder(self, timer: nn.Module) -> Any:
        def add(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            assert self._embedded is not None
            added = output[0] + timer(self._embedded)[:, None]
            return (added, *output[1:])

        return add


def sinusoids(t: Tensor, width: int) -> Tensor:
    """(B, D) sinusoidal embedding of steps (B,) with periods up to 10,000 (Vaswani et al. 2017)."""
    half = width // 2
    frequency = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device) / half)
    angle = t[:, None].float() * frequency
    return torch.cat([angle.sin(), angle.cos()], 1)
