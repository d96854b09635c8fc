"""The mixture-of-experts layer: against loops, against a dense layer of equal FLOPs, and what rectifying adds.

On a CUDA device the sizes are those of Llama 2 7B (and 64 small experts) in bfloat16, and transformers' experts, and
ScatterMoE's where it is installed, run on the same routing; without one the sizes are 4,096 tokens of width 512 in
float32, forward and backward.
"""

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from measure import interleaved
from torch import Tensor

from paperflows.components.moe.layer import MoELayer, Router

# experts whose scores vary up to `spread` times as much are chosen more often: at 4 a fifth is dropped, as in training
_SMALL = {"tokens": 4096, "width": 512, "hidden": 1024, "experts": 8, "k": 1}
CPU = {"8 experts of 1,024, even": {**_SMALL, "spread": 1.0}, "8 experts of 1,024, uneven": {**_SMALL, "spread": 4.0}}
CUDA = {
    "8 experts of 11,008": {"tokens": 16384, "width": 4096, "hidden": 11008, "experts": 8, "k": 1, "spread": 4.0},
    "64 experts of 1,408": {"tokens": 16384, "width": 4096, "hidden": 1408, "experts": 64, "k": 6, "spread": 4.0},
}


def loops(layer: MoELayer, x: Tensor) -> Tensor:
    """The layer token by token and expert by expert, for the routing of its last call."""
    assert layer.record is not None
    travel = layer.record.plan.travel
    y = torch.zeros_like(x)
    for token, expert in sorted(zip(travel.token.tolist(), travel.expert.tolist(), strict=True)):
        if token >= 0:
            gate, up = (x[token] @ layer.experts.gate_up[expert]).chunk(2)
            y[token] += (F.silu(gate) * up) @ layer.experts.down[expert]
    return y


def figures() -> list[dict[str, Any]]:
    """All of this section."""
    cuda = torch.cuda.is_available()
    found: list[dict[str, Any]] = []
    for name, sizes in (CUDA if cuda else CPU).items():
        found += one(name, **sizes, device="cuda" if cuda else "cpu", dtype=torch.bfloat16 if cuda else torch.float32)
    return found


def one(
    name: str,
    *,
    tokens: int,
    width: int,
    hidden: int,
    experts: int,
    k: int,
    spread: float,
    device: str,
    dtype: torch.dtype,
) -> list[dict[str, Any]]:
    """Figures of one size."""
    torch.manual_seed(0)
    x = torch.randn(tokens, width, device=device, dtype=dtype, requires_grad=True)
    kinds = {"plain": (), "fill": ("fill",), "rectified": ("fill", "intra"), "dropless": ()}
    layers = {}
    for kind, rectify in kinds.items():
        torch.manual_seed(1)
        router = Router(k=k, capacity_factor=None if kind == "dropless" else 1.0)
        with torch.device(device):
            made = MoELayer(width=width, hidden=hidden, experts=experts, router=router, rectify=rectify)
        with torch.no_grad():
            made.score.weight.mul_(torch.linspace(spread**-0.5, spread**0.5, experts, device=device)[:, None])
        layers[kind] = made.to(dtype)
    gate_up = torch.randn(width, 2 * hidden, device=device, dtype=dtype).mul_(width**-0.5).requires_grad_()
    down = torch.randn(hidden, width, device=device, dtype=dtype).mul_(hidden**-0.5).requires_grad_()
    layers["plain"](x)
    useful = int(layers["plain"].record.plan.load().sum())
    several = x.detach().repeat(-(-useful // tokens), 1)[:useful].requires_grad_()

    def dense() -> Tensor:
        gate, up = (several @ gate_up).chunk(2, dim=-1)
        return (F.silu(gate) * up) @ down

    def timed(forward: Callable[[], Tensor], trained: Iterable[Tensor]) -> Callable[[], None]:
        trained = list(trained)

        def run() -> None:
            torch.autograd.grad(forward().sum(), trained)  # not added to those of the step before, as a training does
            if device == "cuda":
                torch.cuda.synchronize()

        return run

    works: dict[str, Callable[[], Any]] = {
        kind: timed(lambda m=m: m(x), [x, *m.parameters()]) for kind, m in layers.items()
    }
    works["dense"] = timed(dense, [several, gate_up, down])
    pairs = [(several, gate_up), (torch.randn(useful, hidden, device=device, dtype=dtype), down)]
    grads = [torch.randn(useful, w.shape[1], device=device, dtype=dtype) for _, w in pairs]

    @torch.no_grad()
    def products() -> None:
        for (rows, weight), grad in zip(pairs, grads, strict=True):
            _ = rows @ weight, grad @ weight.t(), rows.t() @ grad
        if device == "cuda":
            torch.cuda.synchronize()

    works["products"] = products
    if device == "cuda":
        works |= peers(x, layers["plain"], k, timed)
    memory = {}
    if device == "cuda":
        for kind, work in works.items():
            work()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            work()
            memory[kind] = (torch.cuda.max_memory_allocated() - before) / 2**30
    times = interleaved(works, repeats=9)
    rectified, plain = times["rectified"], times["plain"]
    shares = layers["rectified"].record.plan.shares()
    more = int(layers["rectified"].record.plan.load().sum()) / useful
    legs = {kind: layers[kind].record.plan for kind in ("plain", "rectified")}
    rows = {kind: len(plan.travel.token) + len(plan.stay.token) for kind, plan in legs.items()}
    found = [
        {"what": f"{name}: plain layer", "value": 1e3 * plain, "unit": "ms", "ratio": plain / times["dense"],
         "to": "dense layer of equal useful FLOPs", "goal": 1.3 if device == "cpu" else ""},
        {"what": f"{name}: rectified layer", "value": 1e3 * rectified, "unit": "ms", "ratio": rectified / plain,
         "to": "plain layer"},
        {"what": f"{name}: rectified layer, time of a computed row", "value": 1e6 * rectified / rows["rectified"],
         "unit": "µs", "ratio": rectified / plain * rows["plain"] / rows["rectified"], "to": "the plain layer's",
         "goal": 1.05 if device == "cuda" else ""},
        {"what": f"{name}: rectified layer, share of a dense layer's rate", "value": 100 * times["dense"] * more / rectified,
         "unit": "%"},
        {"what": f"{name}: rectified layer, share of the rate of dense products alone", "unit": "%",
         "value": 100 * times["products"] * more / rectified, "goal": 70 if device == "cuda" else ""},
        {"what": f"{name}: filled layer", "value": 1e3 * times["fill"], "unit": "ms", "ratio": times["fill"] / plain,
         "to": "plain layer, same rows computed"},
        {"what": f"{name}: dropless layer", "value": 1e3 * times["dropless"], "unit": "ms",
         "ratio": times["dropless"] / times["dense"] * useful / (tokens * k), "to": "dense layer of equal FLOPs"},
        {"what": f"{name}: choices dropped and rectified", "value": 100 * shares["rectified"], "unit": "%"},
    ]  # fmt: skip
    for kind in [kind for kind in times if kind not in {*layers, "dense", "products"}]:
        for own, goal in (("dropless", ""), ("rectified", "at most 1")):
            ratio = {"ratio": times[own] / times[kind], "to": f"{own} layer's time over this", "goal": goal}
            found.append({"what": f"{name}: {kind}", "value": 1e3 * times[kind], "unit": "ms", **ratio})
    for kind, peak in memory.items():
        found.append(
            {
                "what": f"{name}: memory of a step beyond weights, gradients among it, {kind}",
                "value": peak,
                "unit": "GiB",
            }
        )
    if device == "cpu":
        with torch.no_grad():
            slow = interleaved({"loops": lambda: loops(layers["plain"], x), "plain": lambda: layers["plain"](x)}, 3)
        ratio = {"ratio": slow["loops"] / slow["plain"], "to": "the plain layer, forward only", "goal": "at least 5 x"}
        found.append(
            {"what": f"{name}: loops over experts and tokens", "value": 1e3 * slow["loops"], "unit": "ms", **ratio}
        )
    return found


def peers(x: Tensor, layer: MoELayer, k: int, timed: Any) -> dict[str, Callable[[], Any]]:
    """transformers' experts by grouped matrix products (its Mixtral layer) and ScatterMoE's, for our router's choices.

    They drop none.
    """
    from transformers import MixtralConfig
    from transformers.models.mixtral.modeling_mixtral import MixtralExperts

    experts, width, double = layer.experts.gate_up.shape
    config = MixtralConfig(
        hidden_size=width, intermediate_size=double // 2, num_local_experts=experts, num_experts_per_tok=k
    )
    config._experts_implementation = "grouped_mm"
    with torch.device(x.device):
        theirs = MixtralExperts(config).to(x.dtype)
    with torch.no_grad():
        for name, value in theirs.named_parameters():
            value.normal_(std=0.02)
            assert name in ("gate_up_proj", "down_proj"), name
    scores = layer._logits(x.detach()).softmax(-1)
    weights, choices = scores.detach().topk(k, dim=-1)
    works = {
        "transformers grouped_mm": timed(lambda: theirs(x, choices, weights.to(x.dtype)), [x, *theirs.parameters()])
    }
    if find_spec("scattermoe"):
        from scattermoe.mlp import GLUMLP

        with torch.device(x.device):
            scatter = GLUMLP(width, double // 2, experts, k).to(x.dtype)
        works["ScatterMoE"] = timed(lambda: scatter(x, weights.to(x.dtype), choices), [x, *scatter.parameters()])
    return works
