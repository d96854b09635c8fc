"""Random subspaces of prompts, one a layer, at the scale of that layer's states.

Letters: L layers, n prompt vectors, D width, d intrinsic dimensions, N texts, T tokens. Source: BBTv2 (Sun 2022),
section 3 and deepbbt.py of the official repository.
"""

import torch
from torch import Tensor

from paperflows.components.prompts.encoder import PromptEncoder
from paperflows.components.prompts.reading import Reading
from paperflows.components.prompts.verbalizer import Prompted
from paperflows.components.training.batching import token_budget_batches


def clipped_std(values: Tensor, *, rounds: int = 5, width: float = 3.0) -> float:
    """Standard deviation after `rounds` of clipping to the mean +- `width` standard deviations."""
    for _ in range(rounds):
        mean, std = values.mean(), values.std()
        values = values.clamp(float(mean - width * std), float(mean + width * std))
    return float(values.std())


@torch.inference_mode()
def state_stds(encoder: PromptEncoder, texts: Prompted | Reading, *, table: bool, budget: int = 4096) -> list[float]:
    """(L) the scale of what enters each layer, clipped, over the states of texts.

    Args:
        table: layer 0 gets the scale of the table of word embeddings instead, as in the paper; an encoder that
            normalises embeddings before layer 0 can see there ten times as much (MiniLM: 0.55 against 0.06).
    """
    gathered: list[list[Tensor]] = [[] for _ in range(encoder.depth)]
    device = next(encoder.parameters()).device
    for rows in token_budget_batches(texts.table.lengths, budget=budget):
        batch = texts.batch(rows)
        stream = encoder.start(batch["tokens"].to(device), batch["mask"].to(device))
        for layer in range(encoder.depth):
            stream = encoder.advance(stream, first=layer - 1, last=layer) if layer else stream
            gathered[layer].append(stream.text[stream.text_mask.bool()].flatten())
    stds = [clipped_std(torch.cat(some)) for some in gathered]
    if table:
        stds[0] = float(encoder.encoder.get_input_embeddings().weight.detach().std())
    return stds


def projections(
    stds: list[float], *, vectors: int, width: int, dimensions: int, alpha: float, sigma: float, seed: int
) -> list[Tensor]:
    """One (d, n * D) matrix a layer, drawn once: z (d) @ matrix is a prompt whose scale is alpha times the layer's.

    Entries are normal with standard deviation alpha * std / (sqrt(d) * sigma), where sigma is the search's step, so
    that the search's first candidates, of scale sigma, make prompts of scale alpha * std.
    """
    made = []
    for layer, std in enumerate(stds):
        generator = torch.Generator().manual_seed(seed * 1009 + layer)
        scale = alpha * std / (dimensions**0.5 * sigma)
        made.append(scale * torch.randn(dimensions, vectors * width, generator=generator))
    return made


def uniform_projections(layers: int, *, vectors: int, width: int, dimensions: int, seed: int) -> list[Tensor]:
    """One (d, n * D) a layer, as a linear layer starts, uniform in +-1/sqrt(d): as in BBT's first version.

    Their scale is the same at every layer, whatever its states'.
    """
    made = []
    for layer in range(layers):
        generator = torch.Generator().manual_seed(seed * 1009 + layer)
        made.append((2 * torch.rand(dimensions, vectors * width, generator=generator) - 1) / dimensions**0.5)
    return made
