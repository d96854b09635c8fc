import numpy as np
import pytest
import torch

from paperflows.components.errors import InputError
from paperflows.components.prompts import routed
from paperflows.components.prompts.modular import ModularPrompts
from paperflows.components.prompts.reading import Form, Reader, form_of, read
from paperflows.components.prompts.routed import (
    RoutedReader,
    population_losses,
    reading_loss,
    right_answers,
    search_from_nothing,
    search_router,
)
from paperflows.components.prompts.search import Step
from paperflows.components.training.loop import train

from .conftest import small

FORM = Form("is it good ?", {"neg": "bad", "pos": "good"})
LABELS = ["neg", "pos", "maybe", "yes", "no"]


def decoded(examples, tokenizer, i):
    ids, mask = examples.table.pad(np.array([i]))
    return tokenizer.convert_ids_to_tokens(ids[0][mask[0].bool()])


def test_the_right_span_holds_the_right_phrase_wherever_it_stands(tokenizer):
    rows = [{"text": "the film", "label": label} for label in LABELS * 8]
    made = read(rows, FORM, tokenizer, labels=LABELS, options=3, max_length=30, seed=0)
    places, orders = set(), set()
    for i, row in enumerate(rows):
        words = decoded(made, tokenizer, i)
        assert words[:6] == ["[CLS]", "is", "it", "good", "?", "[SEP]"] and words[-3:] == ["the", "film", "[SEP]"]
        shown = [words[a] for a, b in made.spans[i].tolist() if a == b]
        assert shown[made.target[i]] == FORM.phrase(row["label"]) and len(set(shown)) == 3
        places.add(made.spans[i, made.target[i], 0].item())
        orders.add(int(made.target[i]))
    assert places == {6, 8, 10} and orders == {0, 1, 2}, "neither place nor number tells the answer"


def test_choices_of_their_own_long_options_and_pairs(tokenizer):
    rows = [{"text": "a film", "choices": ["the film", "bad news", "yes"], "answer": 1}]
    made = read(rows, FORM, tokenizer, labels=[], options=3, max_length=40, seed=1)
    first, last = made.spans[0, made.target[0]].tolist()
    assert decoded(made, tokenizer, 0)[first : last + 1] == ["bad", "news"]
    pair = [{"text": "a " * 30, "text_pair": "the film", "label": "pos"}]
    words = decoded(read(pair, FORM, tokenizer, labels=["neg", "pos"], options=2, max_length=20, seed=1), tokenizer, 0)
    assert len(words) == 20 and words[-4:] == ["[SEP]", "the", "film", "[SEP]"]
    with pytest.raises(InputError, match="leaves no room"):
        read(pair, FORM, tokenizer, labels=LABELS, options=5, max_length=12, seed=1)
    with pytest.raises(InputError, match="'nowhere' has no question"):
        form_of("nowhere")


def test_a_long_text_is_cut_around_its_blank(tokenizer):
    words = ["a", "film", "of", "the", "news"] * 12
    form = Form("which ?", {}, blank="bad bad")
    for at in (0, 30, 60):
        text = " ".join([*words[:at], "bad", "bad", *words[at:]])
        row = {"text": text, "choices": ["yes", "no"], "answer": 0}
        made = read([row], form, tokenizer, labels=[], options=2, max_length=20, seed=0)
        kept = decoded(made, tokenizer, 0)[8:-1]
        assert len(kept) == 11 and kept.count("bad") == 2, at
        assert " ".join(kept) in text, "what is kept is one piece of the text"
    short = {"text": "the film is bad bad", "choices": ["yes", "no"], "answer": 0}
    made = read([short], form, tokenizer, labels=[], options=2, max_length=20, seed=0)
    assert decoded(made, tokenizer, 0)[8:-1] == short["text"].split()


def test_what_knows_nothing_of_the_texts_is_told(tokenizer):
    rows = [{"text": "a film", "label": label} for label in ["pos"] * 6 + ["neg"] * 2]
    made = read(rows, FORM, tokenizer, labels=LABELS, options=4, max_length=30, seed=0)
    assert made.majority == 0.75 and made.chance == 0.25
    rows = [{"text": "a", "choices": c, "answer": 0} for c in (["yes", "no"], ["no", "yes", "it", "film"])]
    made = read(rows, FORM, tokenizer, labels=[], options=4, max_length=30, seed=0)
    assert made.majority == 0.5 and made.chance == pytest.approx((1 / 2 + 1 / 4) / 2)


def test_a_label_that_is_none_of_the_tasks_is_said(tokenizer):
    with pytest.raises(InputError, match="label 'other' is none of bad, good"):
        read(
            [{"text": "fine", "label": "other"}], Form("Which ?", {}), tokenizer, labels=["bad", "good"], options=2,
            max_length=32, seed=0,
        )  # fmt: skip


def test_rows_with_fewer_choices_have_options_that_are_never_taken(tokenizer):
    rows = [
        {"text": "a film", "choices": ["the film", "bad news", "yes"], "answer": 1},
        {"text": "a film", "choices": ["yes", "no", "no"], "answer": 1},
    ]
    made = read(rows, FORM, tokenizer, labels=[], options=4, max_length=40, seed=1)
    assert made.spans.shape == (2, 3, 2) and made.spans[1, 2].tolist() == [0, 0], "a choice given twice is one"
    assert made.target[1] < 2
    scores = Reader(small().base_model)(made.batch(np.array([0, 1])))
    assert torch.isfinite(scores).tolist() == [[True] * 3, [True, True, False]]
    assert torch.isfinite(torch.nn.functional.cross_entropy(scores, made.target))


@pytest.fixture
def examples(tokenizer):
    random = np.random.default_rng(0)
    rows = []
    for i in range(24):
        label = ["neg", "pos"][i % 2]
        rows.append(
            {"text": " ".join([FORM.phrase(label), *random.choice(["film", "the", "news"], 1 + i % 3)]), "label": label}
        )
    return read(rows, FORM, tokenizer, labels=["neg", "pos"], options=2, max_length=24, seed=0)


def made(modules=3, tasks=2, layers=4):
    reader = Reader(small().base_model)
    prompts = ModularPrompts(
        modules=modules, tasks=tasks, layers=layers, dimensions=5, start=torch.randn(2, 16), scale=0.5
    )
    return RoutedReader(reader.eval(), prompts)


def test_scores_are_start_plus_end_logits(examples):
    reader = Reader(small().base_model).eval()
    batch = examples.batch(np.arange(4))
    states = reader.encoder.encoder(input_ids=batch["tokens"], attention_mask=batch["mask"]).last_hidden_state
    logits, scores = states @ reader.span.weight.T + reader.span.bias, reader(batch)
    for i in range(4):
        for c in range(2):
            a, b = batch["spans"][i, c].tolist()
            assert float(scores[i, c].detach()) == pytest.approx(
                float((logits[i, a, 0] + logits[i, b, 1]).detach()), abs=1e-5
            )


def test_gates_are_relaxed_bernoullis_and_prompts_their_weighted_mean():
    prompts = made().modular
    with torch.no_grad():
        prompts.router[1] = torch.tensor([2.0, 0.0, -2.0])
    torch.testing.assert_close(prompts.gates(1), torch.sigmoid(torch.tensor([2.0, 0.0, -2.0])))
    torch.testing.assert_close(prompts.gates(1, uniforms=torch.full((3,), 0.5)), prompts.gates(1))
    # sigmoid(log u - log(1 - u) + w) exceeds 1/2 with probability sigmoid(w)
    uniforms = torch.rand(20_000, 3, generator=torch.Generator().manual_seed(0))
    open_ = (prompts.gates(1, uniforms=uniforms) > 0.5).float().mean(0)
    torch.testing.assert_close(open_, prompts.gates(1).detach(), atol=0.02, rtol=0)
    gates = prompts.gates(1)
    mixed = prompts.mix(gates)
    for layer in range(4):
        each = [prompts.expand(prompts.prompts[k])[layer] for k in range(3)]
        by_hand = sum(g * p for g, p in zip(gates, each, strict=True)) / gates.sum()
        torch.testing.assert_close(mixed[layer], by_hand, atol=1e-5, rtol=0)
    many = prompts.mix(torch.stack([gates, prompts.gates(0)]))
    torch.testing.assert_close(many[2][0], mixed[2], atol=1e-6, rtol=0)


@pytest.mark.parametrize("modules", [1, 8])
def test_many_prompts_start_as_large_as_one(modules):
    prompts = ModularPrompts(
        modules=modules, tasks=2, layers=3, dimensions=400, start=torch.zeros(10, 16), scale=0.5, seed=1
    )
    for prompt in prompts.mix(prompts.gates(0)).values():
        assert float(prompt.detach().std()) == pytest.approx(0.5, rel=0.15)


def test_how_far_tasks_routers_are_apart():
    prompts = made(modules=2, tasks=3).modular
    assert prompts.tasks_apart == 0.0 and made(tasks=1).modular.tasks_apart == 0.0
    with torch.no_grad():
        prompts.router[0] = torch.logit(torch.tensor([0.9, 0.5]))
    # gates (0.9, 0.5), (0.5, 0.5), (0.5, 0.5): pairs at 0.2, 0.2 and 0
    assert prompts.tasks_apart == pytest.approx(0.4 / 3)


def test_the_router_learns_first_then_the_prompts_and_the_reader_never(examples):
    model = made(tasks=1)
    frozen = {k: v.clone() for k, v in model.reader.state_dict().items()}
    prompts, router = model.modular.prompts.detach().clone(), model.modular.router.detach().clone()

    def run(steps, only):
        batch = {**examples.batch(np.arange(24)), "router_only": only}
        train(
            model=model, batch_at=lambda _: batch, loss_fn=reading_loss, steps=steps, learning_rate=0.05,
            weight_decay=0.0, device="cpu",
        )  # fmt: skip

    run(3, True)
    assert torch.equal(model.modular.prompts, prompts) and not torch.equal(model.modular.router, router)
    run(3, False)
    assert not torch.equal(model.modular.prompts, prompts)
    assert all(torch.equal(v, frozen[k]) for k, v in model.reader.state_dict().items())


def test_a_populations_losses_are_those_of_its_members(examples):
    model = made(tasks=1)
    gates = torch.rand(4, 3)
    losses = population_losses(model.reader, examples.groups(10), model.modular.mix(gates))
    for gate, loss in zip(gates, losses, strict=True):
        batch = examples.batch(np.arange(24))
        scores = model.reader(batch, model.modular.mix(gate))
        expected = torch.nn.functional.cross_entropy(scores, batch["target"])
        assert float(loss) == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("router_calls, prompt_calls", [(24, 0), (8, 16)])
def test_searches_count_calls_lower_the_loss_and_keep_what_dev_likes_best(
    examples, router_calls, prompt_calls, monkeypatch
):
    asked = []

    def counting(reader, batches, prompts):
        asked.append(len(prompts[0]))
        return population_losses(reader, batches, prompts)

    model = made(tasks=1)
    groups = examples.groups(12)
    start = float(
        population_losses(
            model.reader, groups, {k: v[None] for k, v in model.modular.mix(model.modular.gates(0)).items()}
        )
    )
    scores = iter(range(100))
    monkeypatch.setattr(routed, "population_losses", counting)
    history, calls = search_router(
        model, groups, router_calls=router_calls, prompt_calls=prompt_calls, population=8, router_sigma=0.5, bound=5.0,
        prompt_sigma=0.5, seed=0, score=lambda: float(next(scores)), every=8,
    )  # fmt: skip
    assert sum(asked) == calls == 24 and [h["step"] for h in history] == [8, 16, 24]
    losses = [h["loss"] for h in history]
    assert losses == sorted(losses, reverse=True) and losses[-1] < start
    # dev liked the last best, so that is what stays, with the loss that was told
    left = model.modular.mix(model.modular.gates(0))
    assert float(population_losses(model.reader, groups, {k: v[None] for k, v in left.items()})) == pytest.approx(
        losses[-1], abs=1e-4
    )
    right = right_answers(model, examples).tolist()
    alone = [examples.batch(np.array([i])) for i in range(len(examples))]
    with torch.no_grad():
        assert right == [float(model(one).argmax() == one["target"]) for one in alone], "in the order of the examples"


@pytest.mark.parametrize("layers", [1, 4])
def test_a_search_from_nothing_is_bbt_with_the_readers_loss_at_the_calls_asked_for(examples, layers, monkeypatch):
    reader, start, counted, steps = made().reader, torch.randn(2, 16), [], []
    before = {k: v.clone() for k, v in reader.state_dict().items()}
    plain = routed.ForwardOnly.losses

    def counting(self, layer, candidates):
        counted.append((layer, candidates))
        losses = plain(self, layer, candidates)
        for prompt, loss in zip(candidates, losses, strict=True):
            prompts = {**self.prompts, layer: prompt}
            scores = reader(examples.batch(np.arange(24)), prompts)
            assert float(loss) == pytest.approx(
                float(torch.nn.functional.cross_entropy(scores, examples.target)), abs=1e-5
            )
        return losses

    def told(*args, **kwargs):
        for step in routed_search(*args, **kwargs):
            steps.append(step)
            yield step

    routed_search = routed.search_layers
    monkeypatch.setattr(routed.ForwardOnly, "losses", counting)
    monkeypatch.setattr(routed, "search_layers", told)
    seen = iter(range(100))
    prompts, history, calls = search_from_nothing(
        reader, examples, start, layers=layers, dimensions=5, alpha=0.1, calls=40, population=5, seed=0,
        score=lambda _: float(next(seen)), every=10,
    )  # fmt: skip
    assert calls == sum(len(c) for _, c in counted) == 40 and [layer for layer, _ in counted] == [*range(layers)] * (
        8 // layers
    )
    assert sorted(prompts) == list(range(layers)) and [h["step"] for h in history] == [10, 20, 30, 40]
    assert isinstance(steps[-1], Step) and history[-1]["loss"] == steps[-1].loss <= steps[0].loss
    # the first candidates lie around the start at a tenth of the scale of each layer's states
    stds = routed.state_stds(reader.encoder, examples, table=False)
    first = {layer: candidates for layer, candidates in reversed(counted)}
    for layer in range(layers):
        off = first[layer] - (start if layer == 0 else 0)
        assert 0.05 * stds[layer] < float(off.std()) < 0.2 * stds[layer]
    assert all(torch.equal(v, before[k]) for k, v in reader.state_dict().items())
