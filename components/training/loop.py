"""The one training loop: accelerate for device and precision, resumable to the bit, stops on a loss that is not finite.

The step itself (the method) stays with the caller: `batch_at(step)` makes the batch, `loss_fn(model, batch)` the loss.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from paperflows.components.errors import InputError
from paperflows.components.training.checkpoint import Checkpoints
from paperflows.components.training.device import accelerator
from paperflows.components.training.sharded import ShardedCheckpoints

log = logging.getLogger(__name__)
WARMUP = 0.1  # share of the steps


class DivergedError(InputError):
    """The loss became NaN or infinite; the message names the step, the learning rate and the batch."""


@dataclass(frozen=True)
class Trained:
    """What a training run did. `history` holds {"step", "loss", "lr", ...} about 100 times over the run."""

    steps: int
    seconds: float
    resumed_from: int
    best_step: int
    best_score: float | None
    history: list[dict[str, float]] = field(default_factory=list)


def linear_warmup(step: int, *, steps: int, warmup: int) -> float:
    """Factor on the learning rate: 0 -> 1 over `warmup` steps, then 1 -> 0 at `steps`."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return max(0.0, (steps - step) / max(1, steps - warmup))


def train(
    *,
    model: nn.Module,
    batch_at: Callable[[int], Mapping[str, Any]],
    loss_fn: Callable[[nn.Module, Mapping[str, Any]], Tensor],
    steps: int,
    learning_rate: float,
    warmup_share: float = WARMUP,
    weight_decay: float = 0.01,
    rates: Mapping[str, float] | None = None,
    max_grad_norm: float = 1.0,
    seed: int = 0,
    evaluate: Callable[[nn.Module], float] | None = None,
    evaluate_every: int = 0,
    measure: Callable[[nn.Module], Mapping[str, float]] | None = None,
    reduce_gradients: Callable[[Sequence[nn.Parameter]], Tensor] | None = None,
    checkpoints: Checkpoints | ShardedCheckpoints | None = None,
    checkpoint_every: int = 0,
    device: str = "auto",
    on_step: Callable[[int, int, dict[str, float]], None] | None = None,
) -> Trained:
    """Train `model` in place with AdamW and linear warm-up and decay; leaves the best weights by `evaluate` in it.

    Args:
        batch_at: step -> batch of tensors (moved to the device) and other values; must depend on `step` alone, so
            that a resumed run sees the same batches. A value named "ids" is quoted when the loss diverges.
        loss_fn: (model, batch) -> scalar loss.
        steps: optimiser steps in all; `warmup_share` of them warm up.
        rates: prefix of parameter names -> factor on their learning rate, such as that of fresh heads; others have 1.
        evaluate: score of the model on validation data, higher is better; called every `evaluate_every` steps and at
            the end, with the model in evaluation mode.
        measure: further metrics of a step, asked for where a step is reported.
        reduce_gradients: for a model spread over processes: makes the gradients of these parameters those of the whole
            batch and returns their norm over all processes.
        checkpoints: where to resume from and save to; saved every `checkpoint_every` steps (0: after its `pause`).
        on_step: called with (step, steps, metrics) about 100 times over the run.

    Raises:
        DivergedError: the loss is NaN or infinite. The last good checkpoint stays.
    """
    started = time.perf_counter()
    torch.manual_seed(seed)
    speed = accelerator(device)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(_decay_groups(model, weight_decay, rates or {}), lr=learning_rate, fused=True)
    model, optimizer = speed.prepare(model, optimizer)
    bare = speed.unwrap_model(model)
    history: list[dict[str, float]] = []
    best: tuple[float, int, dict[str, Tensor]] | None = None
    first = 0
    if checkpoints and (found := checkpoints.latest()):
        first, tensors, state = found
        log.warning("going on from step %d of %d", first, steps)
        best = _restore(tensors, state, bare, optimizer)
        history = state["history"]
    warmup, report_every = int(warmup_share * steps), max(1, steps // 100)
    saved_at, pause = time.perf_counter(), checkpoints.pause() if checkpoints else 0.0
    model.train()
    for step in range(first, steps):
        lr = learning_rate * linear_warmup(step, steps=steps, warmup=warmup)
        for group in optimizer.param_groups:
            group["lr"] = lr * group["factor"]
        batch = _to_device(batch_at(step), speed.device)
        with speed.autocast():  # `prepare` does it for the model's own forward, not for a loss that calls its parts
            loss = loss_fn(model, batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            ids = list(batch.get("ids", []))[:8]
            raise DivergedError(f"loss is {value} at step {step} of {steps} (learning rate {lr:.3g}, batch ids {ids})")
        speed.backward(loss)
        if reduce_gradients:
            norm = reduce_gradients(parameters)
            torch.nn.utils.clip_grads_with_norm_(parameters, max_grad_norm, norm)
        else:
            speed.clip_grad_norm_(parameters, max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        done = step + 1
        metrics = {"loss": value, "lr": lr}
        if evaluate and (done == steps or (evaluate_every and done % evaluate_every == 0)):
            model.eval()
            with torch.inference_mode():
                metrics["score"] = float(evaluate(bare))
            model.train()
            if best is None or metrics["score"] > best[0]:
                best = (metrics["score"], done, {k: v.detach().clone() for k, v in bare.state_dict().items()})
        if done % report_every == 0 or done == steps or "score" in metrics:
            metrics |= measure(bare) if measure else {}
            history.append({"step": done, **metrics})
            if on_step:
                on_step(done, steps, metrics)
        if checkpoints and done < steps and _due(done, checkpoint_every, saved_at + pause):
            began = time.perf_counter()
            checkpoints.save(done, *_snapshot(bare, optimizer, best, history))
            saved_at = time.perf_counter()
            pause = checkpoints.pause(saved_at - began)
    if best:
        bare.load_state_dict(best[2])
    model.eval()
    return Trained(
        steps=steps,
        seconds=time.perf_counter() - started,
        resumed_from=first,
        best_step=best[1] if best else steps,
        best_score=best[0] if best else None,
        history=history,
    )


def _due(done: int, every: int, next_at: float) -> bool:
    return done % every == 0 if every else time.perf_counter() >= next_at


def _decay_groups(model: nn.Module, weight_decay: float, rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """Biases and normalisation weights (one dimension) are not decayed; `factor` scales a group's learning rate."""
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups: dict[tuple[float, float], list[nn.Parameter]] = {(1.0, weight_decay): [], (1.0, 0.0): []}
    for name, parameter in trainable:
        factor = next((rate for prefix, rate in rates.items() if name.startswith(prefix)), 1.0)
        groups.setdefault((factor, weight_decay if parameter.ndim > 1 else 0.0), []).append(parameter)
    return [{"params": some, "weight_decay": decay, "factor": factor} for (factor, decay), some in groups.items()]


def _to_device(value: Any, device: torch.device) -> Any:
    """Tensors in a batch, also those in lists of it, on the device; other values as they are."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {k: _to_device(v, device) for k, v in value.items()}
    if isinstance(value, list | tuple) and value and isinstance(value[0], Tensor):
        return [_to_device(v, device) for v in value]
    return value


def _snapshot(
    model: nn.Module, optimizer: Any, best: tuple[float, int, dict[str, Tensor]] | None, history: list[dict[str, float]]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    optim = optimizer.state_dict()
    tensors = {f"model.{k}": v.clone() for k, v in model.state_dict().items()}
    tensors |= {f"optim.{i}.{k}": torch.as_tensor(v).clone() for i, s in optim["state"].items() for k, v in s.items()}
    tensors["rng.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    if best:
        tensors |= {f"best.{k}": v for k, v in best[2].items()}
    return tensors, {"groups": optim["param_groups"], "best": best[:2] if best else None, "history": history}


def _restore(
    tensors: dict[str, Tensor], state: dict[str, Any], model: nn.Module, optimizer: Any
) -> tuple[float, int, dict[str, Tensor]] | None:
    model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optim."):
            _, index, slot = name.split(".", 2)
            slots.setdefault(int(index), {})[slot] = value
    optimizer.load_state_dict({"state": slots, "param_groups": state["groups"]})
    torch.set_rng_state(tensors["rng.cpu"])
    if "rng.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng.cuda"])
    if state["best"] is None:
        return None
    return state["best"][0], state["best"][1], {k[5:]: v for k, v in tensors.items() if k.startswith("best.")}
