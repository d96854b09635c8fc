"""Two workers compute what one does: outputs, gradients, a step of training."""

import os
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist

from paperflows.components.errors import InputError
from paperflows.components.models.tiny_decoder import tiny_decoder
from paperflows.components.moe.language_model import objective, replace_ffn, routing_metrics
from paperflows.components.moe.layer import MoELayer, Router
from paperflows.components.moe.parallel import over_workers, reduce_gradients
from paperflows.components.moe.worker import forward_flops
from paperflows.components.ports import free_port
from paperflows.components.training.loop import train

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
    found["flops"] = flops(dist.group.WORLD)
    found["trained"] = trained(dist.group.WORLD)
    torch.save(found, f"{results}/{rank}.pt")
    dist.destroy_process_group()


def flops(group):
    """Kernels and routing -> operations of a model on this worker's half of the texts, and what the workers sent."""
    rank = 0 if group is None else dist.get_rank(group)
    whole = torch.randint(0, 64, (4, 17), generator=torch.Generator().manual_seed(2))
    ids = whole if group is None else whole[2 * rank : 2 * rank + 2]
    found = {}
    for kernels in ("reference", "triton"):
        os.environ["PAPERFLOWS_KERNELS"] = kernels
        for name, factor in (("dropless", None), ("top1", 1.0)):
            decoder = tiny_decoder(vocabulary=64, width=16, layers=1, heads=2, hidden=24, positions=16, seed=0)
            model = replace_ffn(decoder, experts=EXPERTS, router=Router(capacity_factor=factor), group=group)
            found[kernels, name] = forward_flops(model, ids)
            if group is not None:
                metrics = over_workers(dict(routing_metrics(model)), group, add=["routing.bytes_sent"])
                found["bytes", name] = metrics["routing.bytes_sent"]
                counts = model.model.layers[0].mlp.record.plan.travel.counts
                found["to others", name] = int(counts.sum() - counts[2 * rank : 2 * rank + 2].sum())
    del os.environ["PAPERFLOWS_KERNELS"]
    return found


def trained(group):
    """Weights after three steps of a dropless model, each worker on its half of every batch, and the last step's nats."""
    rank, workers = (0, 1) if group is None else (dist.get_rank(group), WORKERS)
    texts = torch.randint(0, 64, (3, 4, 17), generator=torch.Generator().manual_seed(3))
    decoder = tiny_decoder(vocabulary=64, width=16, layers=2, heads=2, hidden=24, positions=16, seed=0)
    model = replace_ffn(decoder, experts=EXPERTS, router=Router(capacity_factor=None), group=group).double()
    said = {}

    def loss_fn(m, batch):
        whole, nats = objective(m, batch["tokens"], balance=0.0, z=0.01)
        said["nats"] = float(nats.detach())
        return whole

    done = train(
        model=model, batch_at=lambda step: {"tokens": texts[step][rank::workers]}, loss_fn=loss_fn, steps=3,
        learning_rate=1e-3, seed=0, device="cpu",
        measure=(lambda _: over_workers(dict(said), group)) if group else (lambda _: dict(said)),
        reduce_gradients=reduce_gradients(model, group) if group else None,
    )  # fmt: skip
    return model.state_dict(), done.history[-1]["nats"]


def test_a_training_of_two_workers_is_that_of_one(parts):
    """All of a step: the loss, the sum of gradients, their common norm, the optimiser. Without the balance loss, which
    each worker takes over its own tokens.
    """
    weights, nats = trained(None)
    (first, first_nats), (second, second_nats) = (part["trained"] for part in parts)
    assert first_nats == second_nats == pytest.approx(nats, rel=1e-10)
    spread = 0
    for name, whole in weights.items():
        if first[name].shape == whole.shape:
            torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)
            both = first[name]
        else:
            both, spread = torch.cat([first[name], second[name]]), spread + 1
        torch.testing.assert_close(both, whole, rtol=1e-8, atol=1e-10, msg=name)
    assert spread == 4, "two matrices of experts in two layers"


def test_operations_of_all_workers_are_those_that_were_executed(parts, monkeypatch):
    """Dropless and top-1 with as many slots as tokens compute equally many rows, wherever their experts live."""
    monkeypatch.setenv("PAPERFLOWS_KERNELS", "auto")  # put back what it was
    alone, (first, second) = flops(None), (part["flops"] for part in parts)
    assert first["reference", "dropless"] != second["reference", "dropless"], "the experts' load is uneven"
    for kernels in ("reference", "triton"):
        for name in ("dropless", "top1"):
            assert first[kernels, name] + second[kernels, name] == alone["reference", "dropless"], (kernels, name)
    for name in ("dropless", "top1"):
        rows = first["to others", name] + second["to others", name]
        # each row there and its result back, forward and backward: four times 16 numbers of 4 bytes
        assert first["bytes", name] == second["bytes", name] == 4 * rows * 16 * 4 > 0


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
