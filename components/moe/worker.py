"""What one worker of an expert-parallel training does; every worker runs the same function with its own rank.

B texts of all workers in a step, T tokens a text, P texts of a split.
"""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors.numpy import load_file
from safetensors.torch import save_model
from torch import nn

from paperflows.components.models.pretrained import load_pretrained
from paperflows.components.models.tiny_decoder import tiny_decoder
from paperflows.components.moe.language_model import (
    moe_layers,
    next_token_loss,
    objective,
    replace_ffn,
    routing_metrics,
)
from paperflows.components.moe.layer import Router
from paperflows.components.moe.parallel import over_workers, reduce_gradients
from paperflows.components.training.batching import Batches
from paperflows.components.training.device import accelerator
from paperflows.components.training.loop import train
from paperflows.components.training.sharded import ShardedCheckpoints
from paperflows.kernels.dispatch import use_triton

PASSAGES = "passages.safetensors"
TINY = "tiny"
SHARES = tuple(f"routing.{share}" for share in ("dropped", "rectified", "skipped", "padded", "useful"))


def all_workers(values: dict[str, float], group: Any) -> dict[str, float]:
    """Means over the workers, and sums of what they send and of the loads of experts."""
    sums = [name for name in values if name == "routing.bytes_sent" or name.startswith("load.")]
    return over_workers(values, group, add=sums)


def build_model(start: Mapping[str, Any], variant: Mapping[str, Any], *, seed: int, group: Any) -> nn.Module:
    """The decoder of one variant.

    Args:
        start: `model` ("tiny" or a pretrained decoder) and, for tiny, the arguments of `tiny_decoder`.
        variant: `experts` (0 is the dense reference) and the arguments of `Router` and `MoELayer`.
    """
    from transformers import AutoModelForCausalLM

    sizes = {name: value for name, value in start.items() if name != "model"}
    tiny = start["model"] == TINY
    model = tiny_decoder(**sizes, seed=seed) if tiny else load_pretrained(AutoModelForCausalLM, start["model"])
    if not variant["experts"]:
        return model
    router = Router(
        k=variant["k"], capacity_factor=variant["capacity_factor"], keep=variant["keep"], combine=variant["combine"]
    )
    return replace_ffn(
        model, experts=variant["experts"], router=router, rectify=variant["rectify"], group=group, copy=not tiny,
        seed=seed,
    )  # fmt: skip


def train_worker(
    *,
    group: Any,
    passages: Path,
    start: Mapping[str, Any],
    variant: Mapping[str, Any],
    steps: int,
    batch_size: int,
    learning_rate: float,
    balance: float,
    z: float,
    seed: int,
    checkpoints: Path,
    checkpoint_every: int,
    output: Path,
    device: str,
    on_step: Callable[[int, int, dict[str, float]], None],
) -> dict[str, Any]:
    """Train this worker's share of the model and score it on its share of the held-out texts.

    Returns:
        `history` of the training (`nats`: the mean next-token loss of all workers), `resumed_from` (the step of the
        checkpoint it went on from, 0 without one), and for each held-out split what `score_split` finds of this
        worker's texts. The shard of the model is saved as `output`/worker-<rank>.safetensors.
    """
    rank, workers = dist.get_rank(group), dist.get_world_size(group)
    data = load_file(passages / PASSAGES)
    model = build_model(start, variant, seed=seed, group=group)
    texts = torch.from_numpy(data["train"])
    batches = Batches(batch_size=batch_size, seed=seed, n=len(texts))

    def batch_at(step: int) -> dict[str, Any]:
        mine = batches.at(step)[rank::workers]
        return {"tokens": texts[torch.from_numpy(mine)].long(), "ids": mine.tolist()}

    shards = ShardedCheckpoints(checkpoints, group=group)
    said: dict[str, float] = {}

    def loss_fn(m: nn.Module, batch: Mapping[str, Any]) -> torch.Tensor:
        whole, nats = objective(m, batch["tokens"], balance=balance, z=z)
        said["nats"] = float(nats.detach())
        return whole

    done = train(
        model=model,
        batch_at=batch_at,
        loss_fn=loss_fn,
        steps=steps,
        learning_rate=learning_rate,
        seed=seed,
        measure=lambda m: all_workers({**said, **dict(routing_metrics(m))}, group),
        reduce_gradients=reduce_gradients(model, group),
        checkpoints=shards,
        checkpoint_every=checkpoint_every,
        device=device,
        on_step=on_step,
    )
    scored = {
        split: score_split(model, data, split, rank=rank, workers=workers, batch_size=batch_size // workers)
        for split in dict.fromkeys(name.split(".")[0] for name in data if name.startswith(("validation.", "test.")))
    }
    save_model(model, str(output / f"worker-{rank:03d}.safetensors"))
    dist.barrier(group=group)  # a worker that dies before has its checkpoints still, and so have all others
    shards.clear()
    return {"history": done.history, "resumed_from": done.resumed_from, **scored}


@torch.inference_mode()
def score_split(
    model: nn.Module, data: Mapping[str, np.ndarray], split: str, *, rank: int, workers: int, batch_size: int
) -> dict[str, dict[str, Any]]:
    """Bits per byte of this worker's texts of a split, and what the routing of its batches wasted.

    With a capacity a text's logits depend on its batch, so the corpora are mixed in batches as they are in training:
    by a permutation that is the same for every model.

    Args:
        data: `split`.<corpus> (P, T + 1) ids, of which the first is context only, and bytes.`split`.<corpus> (P,) bytes
            of what is predicted. All corpora together have a multiple of W texts.
        batch_size: texts of this worker in a batch.

    Returns:
        `bits`: corpus -> number of the text -> bits per byte; `shares`: mean over batches of the layers' routing shares
        (see `Plan.shares`), without any for a dense model.
    """
    corpora = [name.removeprefix(f"{split}.") for name in data if name.startswith(f"{split}.")]
    places = [(corpus, number) for corpus in corpora for number in range(len(data[f"{split}.{corpus}"]))]
    mine = [places[i] for i in np.random.default_rng(0).permutation(len(places))[rank::workers]]
    model.eval()
    device = next(model.parameters()).device
    bits: dict[str, dict[int, float]] = {corpus: {} for corpus in corpora}
    seen: list[dict[str, float]] = []
    for at in range(0, len(mine), batch_size):
        batch = mine[at : at + batch_size]
        ids = torch.from_numpy(np.stack([data[f"{split}.{corpus}"][number] for corpus, number in batch]))
        nats = next_token_loss(model, ids.long().to(device)).sum(1).double().tolist()
        for (corpus, number), value in zip(batch, nats, strict=True):
            bits[corpus][number] = value / math.log(2) / float(data[f"bytes.{split}.{corpus}"][number])
        seen.append({name: value for name, value in routing_metrics(model) if name in SHARES})
    shares = {name.removeprefix("routing."): fmean([point[name] for point in seen]) for name in seen[0]}
    return {"bits": bits, "shares": shares}


def time_worker(
    *,
    group: Any,
    passages: Path,
    start: Mapping[str, Any],
    variants: Mapping[str, Mapping[str, Any]],
    trained: Mapping[str, Path],
    batch_size: int,
    repeats: int,
    seed: int,
    device: str,
    on_step: Callable[[int, int, dict[str, float]], None],
) -> dict[str, Any]:
    """Seconds of a training step of each variant, in turns in one process, after training (when routing has settled).

    In the precision of the training, with all variants in memory at once.

    Args:
        trained: variant -> folder of its shards, as `train_worker` saved them.

    Returns:
        `seconds`: variant -> one figure a repeat; `flops`: variant -> floating-point operations of this worker in one
        step, forward and backward (twice the forward pass).
    """
    from safetensors.torch import load_model

    rank, workers = dist.get_rank(group), dist.get_world_size(group)
    place = accelerator(device)
    where = place.device
    texts = torch.from_numpy(load_file(passages / PASSAGES)["train"])
    batches = Batches(batch_size=batch_size, seed=seed, n=len(texts))
    models, reducers, optimizers = {}, {}, {}
    for name, variant in variants.items():
        models[name] = build_model(start, variant, seed=seed, group=group)
        load_model(models[name], str(trained[name] / f"worker-{rank:03d}.safetensors"))
        models[name].to(where).train()
        reducers[name] = reduce_gradients(models[name], group)
        optimizers[name] = torch.optim.AdamW(models[name].parameters(), lr=0.0, fused=True)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(repeats + 1):
        ids = texts[torch.from_numpy(batches.at(turn)[rank::workers])].long().to(where)
        for name, model in models.items():
            dist.barrier(group=group)
            began = time.perf_counter()
            with place.autocast():
                loss = objective(model, ids, balance=0.01, z=0.0)[0]
            loss.backward()
            reducers[name](list(model.parameters()))
            optimizers[name].step()
            optimizers[name].zero_grad()
            if where.type == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first is warm-up
                seconds[name].append(time.perf_counter() - began)
        on_step(turn, repeats, {})
    flops = {name: 3 * forward_flops(model, ids) for name, model in models.items()}
    return {"seconds": seconds, "flops": flops}


def forward_flops(model: nn.Module, ids: torch.Tensor) -> float:
    """Floating-point operations of this worker in a forward pass, a multiply-add as two.

    Of the experts all rows that they compute: those of other workers' tokens and padded slots too.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    # it counts the products of attention where they are written out, and not in every fused form
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        next_token_loss(model, ids)
    total = counter.get_total_flops()
    if use_triton(ids):  # the counter knows torch's products, not Triton's
        for layer in moe_layers(model):
            assert layer.record is not None
            total += layer.experts.flops(layer.record.rows)
    return float(total)
