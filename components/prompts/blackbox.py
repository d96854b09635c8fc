"""Losses of whole populations of prompts by forward passes alone, from states that are stored below the layer tuned.

Optimising layer l leaves everything below it as it is: the stream that enters layer l is computed once for the texts,
and a population runs layers l .. L - 1 only, all candidates with a group of texts in one batch.

Letters: P candidates, B texts, T tokens, n prompt vectors, D width, L layers, C classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperflows.components.prompts.encoder import PromptEncoder, Stream

Loss = Literal["cross_entropy", "hinge"]


class ForwardOnly:
    """A frozen model that answers with losses and labels, never with gradients; it counts what it is asked.

    Args:
        encoder, head: the frozen model, in evaluation mode.
        batches: of tokens, mask (B, T), target (B,) and place (B, ...), whatever the head reads as such: the few
            examples, best in groups of like length.
        prompts: layer -> (n, D), the best so far; the first layer must be among them.
        loss: "hinge" asks the right logit to exceed each other by `margin`.

    Attributes:
        calls: candidates evaluated.
        layers_run: passes of one candidate's examples through a layer, as a measure of computation.
    """

    def __init__(
        self,
        encoder: PromptEncoder,
        head: nn.Module,
        batches: Sequence[Mapping[str, Any]],
        prompts: Mapping[int, Tensor],
        *,
        loss: Loss = "cross_entropy",
        margin: float = 2.0,
    ) -> None:
        if 0 not in prompts:
            raise ValueError("a prompt at layer 0 is needed: those above add to its states")
        self.encoder, self.head, self.batches = encoder.eval(), head.eval(), list(batches)
        self.prompts, self.loss, self.margin = dict(prompts), loss, margin
        self.target = torch.cat([batch["target"] for batch in self.batches])
        self.calls = self.layers_run = 0
        with torch.inference_mode():
            start = [encoder.start(batch["tokens"], batch["mask"]) for batch in self.batches]
        self._below: dict[int, list[Stream]] = {0: start}

    def fix(self, layer: int, prompt: Tensor) -> None:
        """Make `prompt` (n, D) the best of `layer`; stored states above it are forgotten."""
        self.prompts[layer] = prompt
        self._below = {at: streams for at, streams in self._below.items() if at <= layer}

    def losses(self, layer: int, candidates: Tensor) -> Tensor:
        """(P,) mean losses of (P, n, D) prompts of one layer, those of the other layers fixed.

        Raises:
            RuntimeError: a gradient could be taken of them: a bug.
        """
        logits = self.logits(layer, candidates).float()
        if logits.requires_grad:
            raise RuntimeError("gradients are on in a search by forward passes")
        self.calls += len(candidates)
        flat, target = logits.flatten(0, 1), self.target.repeat(len(candidates))
        if self.loss == "hinge":
            each = hinge(flat, target, margin=self.margin)
        else:
            each = F.cross_entropy(flat, target, reduction="none")
        return each.view(len(candidates), -1).mean(1)

    @torch.inference_mode()
    def logits(self, layer: int, candidates: Tensor, *, stored: bool = True) -> Tensor:
        """(P, N, C) logits of (P, n, D) prompts of one layer, texts in the order of `target`.

        Args:
            stored: begin at the stored states below `layer`; else compute all layers for each candidate (the
                reference, and what the official code does).
        """
        count, first = len(candidates), layer if stored else 0
        self.layers_run += count * (self.encoder.depth - first)
        said = []
        for batch, stream in zip(self.batches, self._streams(first), strict=True):
            given = {**self.prompts, layer: candidates.repeat_interleave(len(batch["target"]), 0)}
            last = self.encoder.advance(stream.expand(count), given, first=first)
            place = batch["place"]
            logits = self.head(last.text, last.text_mask, place.repeat(count, *[1] * (place.ndim - 1)))
            said.append(logits.view(count, len(batch["target"]), -1))
        return torch.cat(said, 1)

    def _streams(self, layer: int) -> list[Stream]:
        """What enters `layer`, its own prompt not yet added."""
        if layer not in self._below:
            below = max(at for at in self._below if at < layer)
            self._below[layer] = [
                self.encoder.advance(stream, self.prompts, first=below, last=layer) for stream in self._below[below]
            ]
            self.layers_run += layer - below
        return self._below[layer]


def hinge(logits: Tensor, target: Tensor, *, margin: float) -> Tensor:
    """(N,) mean over the wrong classes of max(0, margin - (right logit - wrong logit)); logits (N, C)."""
    right = logits.gather(1, target[:, None])
    wrong = torch.ones_like(logits, dtype=torch.bool).scatter(1, target[:, None], False)
    gaps = (margin - (right - logits)).clamp(min=0)
    return (gaps * wrong).sum(1) / wrong.sum(1)


def fingerprint(*modules: nn.Module) -> str:
    """SHA-256 over all weights: equal before and after means that nothing was trained."""
    import hashlib

    digest = hashlib.sha256()
    for module in modules:
        for name, value in module.state_dict().items():
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
