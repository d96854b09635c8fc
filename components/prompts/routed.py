"""A frozen reader steered by modular prompts: its training, and searches of router and prompts by forward passes.

Letters: K prompts, P candidates, B texts, L layers, d intrinsic dimensions, n vectors, D width, C options.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperflows.components.prompts.blackbox import ForwardOnly
from paperflows.components.prompts.loading import gather
from paperflows.components.prompts.modular import ModularPrompts
from paperflows.components.prompts.projections import projections, state_stds
from paperflows.components.prompts.reading import Reader, Reading
from paperflows.components.prompts.search import Candidates, keep_best, search_layers


class RoutedReader(nn.Module):
    """Options' scores with the prompt that a task's router mixes; the reader is frozen and runs without dropout."""

    def __init__(self, reader: Reader, modules: ModularPrompts) -> None:
        super().__init__()
        self.reader, self.modular = reader.requires_grad_(False), modules

    def train(self, mode: bool = True) -> "RoutedReader":
        """As in torch, but the reader stays in evaluation mode."""
        super().train(mode)
        self.reader.eval()
        return self

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        """tokens, mask and spans -> (B, C).

        A batch may hold a "task" (a row of the router; else 0), "uniforms" (K,), with which gates are drawn, and
        "router_only": True, which lets no gradient reach the prompts.
        """
        gates = self.modular.gates(batch.get("task", 0), uniforms=batch.get("uniforms"))
        return self.reader(batch, self.modular.mix(gates, fixed=batch.get("router_only", False)))


def reading_loss(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    """Cross-entropy of the options' scores, in nats."""
    return F.cross_entropy(model(batch).float(), batch["target"])


def right_answers(model: nn.Module, examples: Reading, prompts: Mapping[int, Tensor] | None = None) -> Tensor:
    """(N,) 1 where the best option is the right one, else 0.

    Args:
        prompts: of a `Reader`, layer -> (n, D); a `RoutedReader` has its own.
    """
    model.eval()
    said = gather(
        lambda batch: model(batch, prompts) if prompts else model(batch), examples, next(model.parameters()).device
    )
    return (said.argmax(1) == examples.target).float()


@torch.inference_mode()
def population_losses(reader: Reader, batches: Sequence[Mapping[str, Tensor]], prompts: Mapping[int, Tensor]) -> Tensor:
    """(P,) mean losses over all examples, of P prompts: layer -> (P, n, D)."""
    count = len(next(iter(prompts.values())))
    total, examples = torch.zeros(count), 0
    for batch in batches:
        rows = len(batch["target"])
        many = {k: v.repeat(count, *[1] * (v.ndim - 1)) for k, v in batch.items()}
        scores = reader(many, {layer: some.repeat_interleave(rows, 0) for layer, some in prompts.items()})
        each = F.cross_entropy(scores.float(), many["target"], reduction="none")
        total += each.view(count, rows).sum(1).cpu()
        examples += rows
    return total / examples


def search_router(
    model: RoutedReader,
    batches: Sequence[Mapping[str, Tensor]],
    *,
    router_calls: int,
    prompt_calls: int,
    population: int,
    router_sigma: float,
    bound: float,
    prompt_sigma: float,
    seed: int,
    score: Callable[[], float],
    every: int,
) -> tuple[list[dict[str, float]], int]:
    """CMA-ES on the K router values, then on the mixed prompt's L x d numbers; the best on dev stays in `model`.

    Args:
        model: with one row of the router. After a search of the prompt it holds that one prompt, K = 1.
        router_calls, prompt_calls: forward calls of each search, multiples of the population; a population counts as
            many as it has members.
        score: on dev, asked for at the start and after every `every` calls.

    Returns:
        History of {"step" (calls), "loss", "score"}, and the calls made.
    """
    modules = model.modular
    kept = _state(modules)
    best_score, best_loss = score(), float("inf")
    history: list[dict[str, float]] = []
    calls = looked = 0

    def look(loss: float) -> None:
        nonlocal looked, best_score, kept
        if calls - looked >= every:
            looked, found = calls, score()
            history.append({"step": calls, "loss": loss, "score": found})
            if found > best_score:
                best_score, kept = found, _state(modules)

    device = modules.prompts.device
    with torch.no_grad():
        if router_calls:
            search = Candidates(
                modules.router.shape[1], population=population, sigma=router_sigma, bound=bound, seed=seed
            )
            while calls < router_calls:
                asked = search.ask().to(device)
                losses = population_losses(model.reader, batches, modules.mix(torch.sigmoid(asked)))
                search.tell(losses.tolist())
                calls += len(asked)
                if float(losses.min()) < best_loss:
                    best_loss = float(losses.min())
                    modules.router[0] = asked[int(losses.argmin())]
                look(best_loss)
        if prompt_calls:
            gates = modules.gates(0)
            mixed = torch.einsum("k,kld->ld", gates / gates.sum(), modules.prompts)
            search = Candidates(mixed.numel(), population=population, sigma=prompt_sigma, seed=seed + 1)
            end = calls + prompt_calls
            while calls < end:
                asked = mixed + search.ask().to(device).view(-1, *mixed.shape)
                losses = population_losses(model.reader, batches, modules.expand(asked))
                search.tell(losses.tolist())
                calls += len(asked)
                if float(losses.min()) < best_loss:
                    best_loss = float(losses.min())
                    modules.prompts = nn.Parameter(asked[int(losses.argmin())][None].clone(), requires_grad=False)
                    modules.router = nn.Parameter(torch.zeros(1, 1, device=device), requires_grad=False)
                look(best_loss)
        modules.prompts = nn.Parameter(kept["prompts"], requires_grad=False)
        modules.router = nn.Parameter(kept["router"], requires_grad=False)
    return history, calls


def search_from_nothing(
    reader: Reader,
    train: Reading,
    start: Tensor,
    *,
    layers: int,
    dimensions: int,
    alpha: float,
    calls: int,
    population: int,
    seed: int,
    score: Callable[[Mapping[int, Tensor]], float],
    every: int,
) -> tuple[dict[int, Tensor], list[dict[str, float]], int]:
    """BBT (one layer) or BBTv2 (all layers in turn), on the loss of a reader instead of a classifier.

    Args:
        start: (n, D) what the prompt of layer 0 is added to; the others start at zero.
        layers, dimensions: layers searched, and d of each.
        alpha: scale of the first candidates' prompts, in units of the states that enter their layer.
        calls: candidates in all, a multiple of the population.
        score: on dev, of prompts; asked for at the start and after every `every` calls.

    Returns:
        The prompts best on dev, layer -> (n, D), a history of {"step" (calls), "loss", "score"}, and the calls made.
    """
    device = next(reader.parameters()).device
    groups = [{k: v.to(device) for k, v in {**b, "place": b["spans"]}.items()} for b in train.groups(16)]
    starts = [start.to(device), *[torch.zeros_like(start, device=device)] * (layers - 1)]
    asked = ForwardOnly(reader.encoder, reader.span, groups, dict(enumerate(starts)))
    stds = state_stds(reader.encoder, train, table=False)[:layers]
    length, width = start.shape
    sizes = {"vectors": length, "width": width, "dimensions": dimensions, "seed": seed}
    matrices = projections(stds, alpha=alpha, sigma=1.0, **sizes)
    searches = [
        Candidates(dimensions, population=population, sigma=1.0, seed=seed * 100 + layer) for layer in range(layers)
    ]
    steps = search_layers(asked, [m.to(device) for m in matrices], starts, searches=searches, budget=calls)
    _, history = keep_best(asked, steps, score=lambda: score(asked.prompts), every=every)
    return asked.prompts, history, asked.calls


def _state(modules: ModularPrompts) -> dict[str, Tensor]:
    return {"prompts": modules.prompts.detach().clone(), "router": modules.router.detach().clone()}
