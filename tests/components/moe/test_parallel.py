"""Two workers compute what one does: outputs, gradients, a step of training."""

import subprocess
import sys

import pytest
import torch
import torch.distributed as dist

from paperflows.components.errors import InputError
from paperflows.components.moe.layer import MoELayer, Router
from paperflows.components.moe.parallel import reduce_gradients
from paperflows.components.ports import free_port

WORKERS, TOKENS, WIDTH, EXPERTS = 2, 24, 8, 4
CASES = {
    "dropless": (Router(k=2, capacity_factor=None), ()),
    "capacity": (Router(k=1, capacity_factor=1.0), ()),
    "fill and intra": (Router(k=1, capacity_factor=1.0, combine="straight_through"), ("fill", "intra")),
    "top-2, fill and intra": (Router(k=2, capacity_factor=0.5, combine="normalised"), ("fill", "intra")),
}


def layer_of(case, group=None):
    router, rectify = CASES[case]
    layer = MoELayer(width=WIDTH, hidden=12, experts=EXPERTS, router=router, rectify=rectify, group=group).double()
    whole = torch.Generator().manual_seed(0)
    with torch.no_grad():
        layer.score.weight.copy_(torch.randn(EXPERTS, WIDTH, generator=whole, dtype=torch.float64))
        for target in (layer.experts.gate_up, layer.experts.down):
            every = torch.randn(EXPERTS, *target.shape[1:], generator=whole, dtype=torch.float64)
            target.copy_(every[layer.local.start : layer.local.stop])
    return layer


def data():
    generator = torch.Generator().manual_seed(5)
    return (torch.randn(TOKENS, WIDTH, generator=generator, dtype=torch.float64) for _ in range(2))


def work(rank, url, results):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=url, rank=rank, world_size=WORKERS)
    found = {}
    part = slice(rank * TOKENS // WORKERS, (rank + 1) * TOKENS // WORKERS)
    for case in CASES:
        layer = layer_of(case, dist.group.WORLD)
        x, pull = data()
        x = x[part].requires_grad_()
        y = layer(x)
        (y * pull[part]).sum().backward()
        local_gradient = x.grad.clone()
        norm = reduce_gradients(layer, dist.group.WORLD)(list(layer.parameters()))
        found[case] = {
            "y": y.detach(), "x": local_gradient, "router": layer.score.weight.grad, "up": layer.experts.gate_up.grad,
            "down": layer.experts.down.grad, "norm": norm,
        }  # fmt: skip
    try:
        MoELayer(width=4, hidden=4, experts=3, group=dist.group.WORLD)
    except InputError as error:
        found["refused"] = str(error)
    torch.save(found, f"{results}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    url = f"tcp://127.0.0.1:{free_port()}"
    command = [sys.executable, __file__, url, str(folder)]
    workers = [subprocess.Popen([*command, str(rank)]) for rank in range(WORKERS)]
    assert [worker.wait(120) for worker in workers] == [0] * WORKERS
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORKERS)]


@pytest.mark.parametrize("case", CASES)
def test_two_workers_equal_one(parts, case):
    """In one process: the two halves of the batch one after the other, each with the capacity and the local experts that
    its worker has.
    """
    layer = layer_of(case)
    x, pull = data()
    outputs, x_grads = [], []
    for rank in range(WORKERS):
        part = slice(rank * TOKENS // WORKERS, (rank + 1) * TOKENS // WORKERS)
        layer.local = range(rank * EXPERTS // WORKERS, (rank + 1) * EXPERTS // WORKERS)
        mine = x[part].clone().requires_grad_()
        y = _one_worker(layer, mine)
        ((y * pull[part]).sum()).backward()
        outputs.append(y.detach())
        x_grads.append(mine.grad)
    exact = {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(torch.cat([p[case]["y"] for p in parts]), torch.cat(outputs), **exact)
    torch.testing.assert_close(torch.cat([p[case]["x"] for p in parts]), torch.cat(x_grads), **exact)
    for part in parts:
        torch.testing.assert_close(part[case]["router"], layer.score.weight.grad / WORKERS, **exact)
    torch.testing.assert_close(torch.cat([p[case]["up"] for p in parts]), layer.experts.gate_up.grad / WORKERS, **exact)
    torch.testing.assert_close(torch.cat([p[case]["down"] for p in parts]), layer.experts.down.grad / WORKERS, **exact)
    squares = sum(p.grad.square().sum() for p in layer.parameters())
    for part in parts:
        torch.testing.assert_close(part[case]["norm"], squares.sqrt() / WORKERS, **exact)


def _one_worker(layer, x):
    """All experts live here; rectified rows count experts from the worker's first."""
    from paperflows.components.moe import layer as module

    original = module.plan_routing

    def with_all_experts(*args, **options):
        plan = original(*args, **options)
        full = torch.bincount(plan.stay.expert, minlength=EXPERTS)
        return module.Plan(
            plan.travel, type(plan.stay)(plan.stay.token, plan.stay.expert, full), plan.choices, plan.dropped,
            plan.tokens,
        )  # fmt: skip

    module.plan_routing = with_all_experts
    try:
        return layer(x)
    finally:
        module.plan_routing = original


def test_experts_that_cannot_be_spread_are_refused(parts):
    assert [p["refused"] for p in parts] == ["experts: 3 cannot be spread evenly over 2 workers"] * 2


if __name__ == "__main__":
    work(int(sys.argv[3]), sys.argv[1], sys.argv[2])
