import math
from pathlib import Path

import pytest
import torch
from torch import nn

from paperflows.components.training.checkpoint import Checkpoints
from paperflows.components.training.loop import DivergedError, _to_device, linear_warmup, train


def batch_at(step):
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(8, 4, generator=generator)
    return {"x": x, "y": x.sum(-1, keepdim=True), "ids": list(range(step, step + 8))}


def loss_fn(model, batch):
    return (model(batch["x"]) - batch["y"]).square().mean()


def model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, 1))


def fit(trained, steps=40, **options):
    return train(
        model=trained, batch_at=batch_at, loss_fn=loss_fn, steps=steps, learning_rate=0.05, device="cpu", **options
    )


def test_learns_what_can_be_learnt():
    trained = model()
    done = fit(trained, steps=200)
    losses = [point["loss"] for point in done.history]
    assert sum(losses[-10:]) < 0.2 * sum(losses[:10])
    assert done.steps == 200 and done.resumed_from == 0


def test_resuming_changes_no_bit(tmp_path):
    whole = model()
    fit(whole, seed=3)

    class Killed(Exception):
        pass

    def stop_at_25(step, steps, metrics):
        if step == 25:
            raise Killed

    broken = model()
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(Killed):
        fit(broken, seed=3, checkpoints=checkpoints, checkpoint_every=10, on_step=stop_at_25)
    resumed = model(seed=99)  # other weights: everything must come from the checkpoint
    done = fit(resumed, seed=3, checkpoints=checkpoints, checkpoint_every=10)
    assert done.resumed_from == 20
    for name, weights in whole.state_dict().items():
        assert torch.equal(weights, resumed.state_dict()[name]), name


def test_saving_takes_a_twentieth_of_the_time_at_most(tmp_path, monkeypatch):
    """A step takes a second and a checkpoint three: the first after ten, the next ones sixty seconds after the last."""
    from paperflows.components.training import loop

    clock, saved = [0.0], []
    monkeypatch.setattr(loop.time, "perf_counter", lambda: clock[0])

    class Slow(Checkpoints):
        def save(self, step, tensors, state):
            clock[0] += 3
            saved.append(step)

    def a_second_later(trained, batch):
        clock[0] += 1
        return loss_fn(trained, batch)

    train(
        model=model(), batch_at=batch_at, loss_fn=a_second_later, steps=200, learning_rate=0.05, device="cpu",
        checkpoints=Slow(tmp_path),
    )  # fmt: skip
    assert saved == [10, 70, 130, 190]
    assert Checkpoints(tmp_path, every_seconds=5, share=0.5).pause(4) == 8


def test_same_seed_same_weights_other_seed_others():
    weights = []
    for seed in (1, 1, 2):
        trained = model()
        fit(trained, seed=seed)
        weights.append(torch.cat([p.flatten() for p in trained.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_loss_that_is_not_finite_stops_and_names_its_place(tmp_path):
    def loss(trained, batch):
        value = loss_fn(trained, batch)
        return value * math.nan if batch["ids"][0] == 12 else value

    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(DivergedError, match=r"loss is nan at step 12 of 40 \(learning rate .*batch ids \[12, 13"):
        train(
            model=model(), batch_at=batch_at, loss_fn=loss, steps=40, learning_rate=0.01, device="cpu",
            checkpoints=checkpoints, checkpoint_every=5,
        )  # fmt: skip
    found = checkpoints.latest()
    assert found and found[0] == 10
    assert all(torch.isfinite(t).all() for t in found[1].values() if t.is_floating_point())


def test_best_weights_by_score_are_left_in_the_model():
    seen = []

    def evaluate(trained):
        assert not trained.training
        seen.append({k: v.clone() for k, v in trained.state_dict().items()})
        return 1.0 if len(seen) == 2 else 0.0

    trained = model()
    done = fit(trained, steps=40, evaluate=evaluate, evaluate_every=10)
    assert (done.best_step, done.best_score, len(seen)) == (20, 1.0, 4)
    assert all(torch.equal(seen[1][k], v) for k, v in trained.state_dict().items())


@pytest.mark.parametrize(("step", "factor"), [(0, 1 / 11), (9, 10 / 11), (10, 1.0), (55, 0.5), (100, 0.0)])
def test_linear_warmup(step, factor):
    assert linear_warmup(step, steps=100, warmup=10) == pytest.approx(factor)


def test_first_update_is_adamw_by_hand():
    weight = nn.Linear(1, 1, bias=False)
    nn.init.constant_(weight.weight, 2.0)
    train(
        model=weight, batch_at=lambda step: {"x": torch.ones(1, 1)}, loss_fn=lambda m, b: m(b["x"]).sum(), steps=1,
        learning_rate=0.1, warmup_share=0.0, weight_decay=0.5, device="cpu",
    )  # fmt: skip
    # decoupled decay 2 * (1 - 0.1 * 0.5) = 1.9; the first Adam step is lr * sign(gradient) = 0.1
    assert weight.weight.item() == pytest.approx(1.8, abs=1e-6)


def test_cuda_without_gpu_is_one_clear_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    from paperflows.components.errors import InputError

    with pytest.raises(InputError, match="cuda was asked for"):
        train(model=model(), batch_at=batch_at, loss_fn=loss_fn, steps=1, learning_rate=0.1, device="cuda")


def test_checkpoint_survives_truncation_at_every_place(tmp_path: Path, caplog):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"w": torch.arange(2000.0)}, {"a": 1})
    newest = checkpoints.save(2, {"w": torch.arange(2000.0) + 1}, {"a": 2})
    whole = newest.read_bytes()
    for size in range(0, len(whole), 997):
        newest.write_bytes(whole[:size])
        step, tensors, state = checkpoints.latest()
        assert (step, state["a"], tensors["w"][1].item()) == (1, 1, 1.0)
    assert "damaged" in caplog.text and newest.name in caplog.text


def test_checkpoint_keeps_two_and_clears_all(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path / "c")
    for step in range(5):
        checkpoints.save(step, {"w": torch.tensor([float(step)])}, {})
    assert len(list((tmp_path / "c").iterdir())) == 2
    (tmp_path / "c" / "step-9.tmp1").write_bytes(b"left over")
    checkpoints.clear()
    assert not (tmp_path / "c").exists()


def test_rates_scale_the_learning_rate_of_named_parts():
    before, still, fast = model(), model(), model()
    for trained, rates in ((still, {"0.": 0.0}), (fast, {"3.": 10.0})):
        fit(trained, steps=1, weight_decay=0.0, rates=rates)
    assert torch.equal(still[0].weight, before[0].weight) and not torch.equal(still[3].weight, before[3].weight)
    moved = [(m[3].weight - before[3].weight).abs().mean() for m in (still, fast)]
    assert float(moved[1] / moved[0]) == pytest.approx(10, rel=0.01)  # AdamW's first step is the rate itself


def test_a_loss_that_calls_parts_of_the_model_trains_in_the_devices_precision(monkeypatch):
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    from paperflows.components.training import loop

    def half(device):
        AcceleratorState._reset_state(reset_partial_state=True)
        return Accelerator(cpu=True, mixed_precision="bf16")

    monkeypatch.setattr(loop, "accelerator", half)
    seen = []

    def part_alone(model, batch):
        inner = model[0](batch["x"])
        seen.append(inner.dtype)
        return inner.float().square().mean()

    trained = model()
    train(model=trained, batch_at=batch_at, loss_fn=part_alone, steps=1, learning_rate=0.05, device="cpu")
    assert seen == [torch.bfloat16] and trained[0].weight.dtype == torch.float32
    AcceleratorState._reset_state(reset_partial_state=True)


def test_all_tensors_of_a_batch_go_to_the_device():
    one = torch.zeros(2)
    batch = {"a": one, "list": [one, one], "tuple": (one,), "deep": {"b": one}, "ids": [1, 2], "name": "x"}
    moved = _to_device(batch, torch.device("meta"))
    tensors = [moved["a"], *moved["list"], *moved["tuple"], moved["deep"]["b"]]
    assert len(tensors) == 5 and all(t.device.type == "meta" for t in tensors)
    assert moved["ids"] == [1, 2] and moved["name"] == "x"
