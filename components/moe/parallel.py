"""Training a model whose experts are spread over workers: gradients, their norm, and the start of shared weights.

Every worker computes the mean loss of its own texts. Experts already receive the gradients of all workers' tokens
through the exchange; everything else is averaged over the workers here.
"""

from collections.abc import Callable, Collection, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from paperflows.components.moe.exchange import Group
from paperflows.components.moe.experts import Experts


def expert_parameters(model: nn.Module) -> set[int]:
    """Ids of the parameters that differ between workers."""
    return {id(p) for m in model.modules() if isinstance(m, Experts) for p in m.parameters()}


def reduce_gradients(model: nn.Module, group: Group) -> Callable[[Sequence[nn.Parameter]], Tensor]:
    """A function for the training loop: makes the gradients those of the mean loss over all workers.

    It returns their norm over the whole model, which is the same on every worker.
    """
    own, workers = expert_parameters(model), dist.get_world_size(group)

    def reduce(parameters: Sequence[nn.Parameter]) -> Tensor:
        shared = [p.grad for p in parameters if p.grad is not None and id(p) not in own]
        expert = [p.grad for p in parameters if p.grad is not None and id(p) in own]
        flat = torch.cat([g.flatten() for g in shared])
        dist.all_reduce(flat, group=group)
        flat /= workers
        for grad, part in zip(shared, flat.split([g.numel() for g in shared]), strict=True):
            grad.copy_(part.view_as(grad))
        for grad in expert:
            grad /= workers
        squares = sum((g.square().sum() for g in expert), flat.new_zeros(()))
        dist.all_reduce(squares, group=group)
        return (squares + flat.square().sum()).sqrt()

    return reduce


def over_workers(values: dict[str, float], group: Group, *, add: Collection[str] = ()) -> dict[str, float]:
    """The same numbers averaged over the workers, and those named in `add` summed; all must ask for the same names."""
    packed = torch.tensor(list(values.values()), dtype=torch.float64)
    dist.all_reduce(packed, group=group)
    workers = dist.get_world_size(group)
    both = zip(values, packed.tolist(), strict=True)
    return {name: total if name in add else total / workers for name, total in both}
