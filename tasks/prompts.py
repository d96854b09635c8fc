"""Tune encoders on a handful of examples: by prompts, adapters, or whole."""

from collections.abc import Iterable
from typing import Any

from paperflows.tasks.data import DatasetArtifact, read_rows, read_split
from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import OUTPUTS, Artifact, new_artifact, open_artifact
from paperflows.tasks.training import fit

SPLITS = ("train", "dev", "test")


class ShotsArtifact(Artifact):
    """A few labelled examples, `train.jsonl` and `dev.jsonl`, and the test examples that judge, `test.jsonl`.

    `short`: classes that have fewer examples than asked for, and how many those are in train and dev together.
    """

    dataset: str
    pair: bool
    template: dict[str, Any]
    short: dict[str, list[int]]


class TunedArtifact(Artifact):
    """Right (1) or wrong (0) on every test example, and what was measured on the way."""

    dataset: str
    method: str
    layer: int
    rate: float
    score: float
    accuracy: float
    trained: int
    information: float
    history: list[dict[str, float]]


@cached_task(name="draw_shots", task_run_name="draw_shots-{data[name]}-seed{seed}")
def draw_shots(
    data: DatasetArtifact, shots: int, evaluated: int, templates: dict[str, Any] | None, seed: int
) -> ShotsArtifact:
    """`shots` examples of each class for training and as many others for dev; at most `evaluated` test examples.

    Args:
        templates: the user's own, by dataset; others come with the project. None: the task is not put in a template.

    A dataset without a training split, such as FewCLUE's, gives its `train_few` and `validation_few`; one without a
    test split, such as GLUE's on the hub, is judged on its validation split. Where a class has too few examples for
    both in train, and there is a validation split beside test, dev is drawn from that.
    """
    import random
    from collections import Counter
    from dataclasses import asdict

    from paperflows.components.data.jsonl import write_jsonl
    from paperflows.components.errors import InputError
    from paperflows.components.prompts.fewshot import few_shot
    from paperflows.components.prompts.verbalizer import template_of

    splits = ["train"] if "train" in data["rows"] else ["train_few", "validation_few"]
    rows = [row for split in splits for row in read_split(data, split)]
    test = read_split(data, "test" if "test" in data["rows"] else "validation")
    scarce = min(Counter(str(row["label"]) for row in rows).values()) < 2 * shots
    apart = read_split(data, "validation") if scarce and {"train", "validation", "test"} <= data["rows"].keys() else []
    template: dict[str, Any] = {}
    if templates is not None:
        found = template_of(data["name"], templates)
        template = asdict(found)
        if unknown := {str(row["label"]) for row in [*rows, *apart, *test]} - set(found.labels):
            raise InputError(
                f"dataset {data['name']!r}: its label {min(unknown)!r} is not in its template, which knows "
                f"{', '.join(found.labels)}: add it to words and sentences of templates.{data['name']}"
            )
    if apart:
        train, _ = few_shot(rows, train=shots, dev=0, seed=seed, without=test)
        dev, _ = few_shot(apart, train=shots, dev=0, seed=seed, without=[*test, *train])
    else:
        train, dev = few_shot(rows, train=shots, dev=shots, seed=seed, without=test)
    random.Random(0).shuffle(test)
    with new_artifact() as (folder, artifact):
        drawn: dict[str, list[Any]] = {"train": train, "dev": dev, "test": test[:evaluated]}
        for split, some in drawn.items():
            write_jsonl(folder / f"{split}.jsonl", [dict(row) for row in some])
    pair = bool(train[0].get("text_pair"))
    in_train, in_dev = (Counter(str(row["label"]) for row in some) for some in (train, dev))
    short = {name: [in_train[name], in_dev[name]] for name in in_train if min(in_train[name], in_dev[name]) < shots}
    return ShotsArtifact(**artifact, dataset=data["name"], pair=pair, template=template, short=short)


def check_layers(model: Artifact, layers: Iterable[int]) -> None:
    """Refuse layers at which no prompt can enter the stored encoder, before anything is trained.

    Raises:
        InputError: it names the layer and those there are.
    """
    from transformers import AutoConfig

    from paperflows.components.errors import InputError

    depth = AutoConfig.from_pretrained(open_artifact(model)).num_hidden_layers
    if wrong := [layer for layer in layers if not 0 < layer < depth]:
        raise InputError(f"layer {wrong[0]}: the encoder has layers 1 to {depth - 1} at which a prompt can enter")


def read_shots(shots: ShotsArtifact, parts: Any, max_length: int) -> dict[str, Any]:
    """The three splits as the encoder of `parts` reads them."""
    folder = open_artifact(shots)
    return {split: parts.texts(read_rows(folder / f"{split}.jsonl"), max_length=max_length) for split in SPLITS}


def parts_of(model: Artifact, head: str, shots: ShotsArtifact) -> Any:
    """The stored encoder with a head over the labels of `shots`."""
    from paperflows.components.prompts.loading import load_parts
    from paperflows.components.prompts.verbalizer import Template

    kind: Any = head
    return load_parts(open_artifact(model), kind, Template(**shots["template"]), pair=shots["pair"])


@cached_task(name="tune_encoder", task_run_name="{method}-layer{layer}-{shots[dataset]}-seed{seed}-lr{rate}")
def tune_encoder(
    method: str,
    model: Artifact,
    shots: ShotsArtifact,
    layer: int,
    rate: float,
    settings: dict[str, Any],
    seed: int,
    device: str,
) -> TunedArtifact:
    """Train what `method` names (see `components.prompts.tuning.build`) and score the test examples.

    The weights best on dev are kept. A late prompt trains on stored states of the layer it enters.

    Args:
        layer: where a late prompt enters, from 1.
        settings: head, length, bottleneck, rank, max_length, steps, batch_size, weight_decay, evaluations.
    """
    import tempfile
    from pathlib import Path

    from safetensors.torch import save_file

    from paperflows.components.evaluation.information import label_information
    from paperflows.components.prompts import tuning
    from paperflows.components.prompts.loading import all_logits, logits_and_means
    from paperflows.components.prompts.stored import store_states
    from paperflows.components.training.batching import Batches
    from paperflows.components.training.device import accelerator

    s = settings
    parts = parts_of(model, s["head"], shots)
    start = tuning.word_states(parts.encoder, count=s["length"], seed=seed)
    kind: Any = method
    built = tuning.build(
        kind, parts.encoder, parts.head, layer=layer, length=s["length"], bottleneck=s["bottleneck"], rank=s["rank"],
        start=start, seed=seed,
    ).to(accelerator(device).device)  # fmt: skip
    texts: dict[str, Any] = read_shots(shots, parts, s["max_length"])
    batches = Batches(batch_size=s["batch_size"], seed=seed, lengths=texts["train"].table.lengths)
    with tempfile.TemporaryDirectory() as place:
        if built.first:
            texts = {k: store_states(built, v, Path(place) / f"{k}.npy") for k, v in texts.items()}

        def evaluate(trained: Any) -> float:
            said = all_logits(trained, texts["dev"]).argmax(1)
            return float((said == texts["dev"].target).float().mean())

        name = f"{method}-layer{layer}-{shots['dataset']}-seed{seed}-lr{rate}"
        done = fit(
            name, {"method": method, "layer": layer, "seed": seed, "learning_rate": rate}, built,
            lambda step: texts["train"].batch(batches.at(step)), tuning.loss, s["steps"], rate, seed, device,
            weight_decay=s["weight_decay"], warmup_share=0.06, evaluate=evaluate,
            evaluate_every=max(1, s["steps"] // s["evaluations"]),
        )  # fmt: skip
        logits, means = logits_and_means(built, texts["test"])
        right = (logits.argmax(1) == texts["test"].target).float()
        known = label_information(means.numpy(), texts["test"].target.numpy())
    with new_artifact() as (folder, artifact):
        save_file({shots["dataset"]: right}, folder / OUTPUTS)
    return TunedArtifact(
        **artifact, dataset=shots["dataset"], method=method, layer=layer, rate=rate, score=done.best_score,
        accuracy=float(right.mean()), trained=tuning.trainable(built), information=known, history=done.history,
    )  # fmt: skip


@cached_task(name="probe_shots", task_run_name="probe-{shots[dataset]}")
def probe_shots(model: Artifact, shots: ShotsArtifact, settings: dict[str, Any], device: str) -> TunedArtifact:
    """A logistic regression on the frozen encoder's mean states; dev picks its strength.

    Args:
        settings: head, max_length.
    """
    import numpy as np
    from safetensors.numpy import save_file
    from sklearn.linear_model import LogisticRegression

    from paperflows.components.prompts.loading import all_means
    from paperflows.components.prompts.tuning import PromptedClassifier
    from paperflows.components.training.device import accelerator

    parts = parts_of(model, settings["head"], shots)
    texts = read_shots(shots, parts, settings["max_length"])
    plain = PromptedClassifier(parts.encoder, parts.head, {}).to(accelerator(device).device)
    states = {split: all_means(plain, some).numpy() for split, some in texts.items()}
    labels = {split: some.target.numpy() for split, some in texts.items()}
    probes = [
        LogisticRegression(C=strength, max_iter=1000).fit(states["train"], labels["train"])
        for strength in (0.1, 1.0, 10.0, 100.0)
    ]
    scores = [float(probe.score(states["dev"], labels["dev"])) for probe in probes]
    chosen = probes[int(np.argmax(scores))]
    right = (chosen.predict(states["test"]) == labels["test"]).astype(np.float32)
    with new_artifact() as (folder, artifact):
        save_file({shots["dataset"]: right}, folder / OUTPUTS)
    return TunedArtifact(
        **artifact, dataset=shots["dataset"], method="probe", layer=0, rate=0.0, score=max(scores),
        accuracy=float(right.mean()), trained=int(chosen.coef_.size + chosen.intercept_.size), information=0.0,
        history=[],
    )  # fmt: skip


@cached_task(name="time_tuning", task_run_name="time_tuning-{shots[dataset]}")
def time_tuning(
    model: Artifact, shots: ShotsArtifact, method: str, layer: int, settings: dict[str, Any], repeats: int, device: str
) -> dict[str, Any]:
    """Seconds and saved activations of a training step: a late prompt, from stored states too, input prompt, all.

    One process, interleaved, the same texts. Also whether training from stored states ends in the same answers.

    Returns:
        way -> artifact of (repeats,) seconds; "bytes <way>" -> artifact of bytes a batch; and plain numbers:
        "different" test answers with and without stored states, and bytes and medians by way.
    """
    import tempfile
    from collections.abc import Callable
    from functools import partial
    from pathlib import Path

    import numpy as np
    import torch
    from safetensors.numpy import save_file

    from paperflows.components.evaluation.activations import saved_bytes
    from paperflows.components.evaluation.timing import time_interleaved
    from paperflows.components.prompts import tuning
    from paperflows.components.prompts.loading import all_logits
    from paperflows.components.prompts.stored import store_states
    from paperflows.components.training.batching import Batches
    from paperflows.components.training.device import accelerator
    from paperflows.components.training.loop import train

    s, place = settings, accelerator(device).device

    def made(kind: Any) -> Any:
        parts = parts_of(model, s["head"], shots)
        start = tuning.word_states(parts.encoder, count=s["length"], seed=0)
        built = tuning.build(
            kind, parts.encoder, parts.head, layer=layer, length=s["length"], bottleneck=s["bottleneck"],
            rank=s["rank"], start=start, seed=0,
        )  # fmt: skip
        return parts, built.to(place)

    models: dict[str, Any] = {}
    for name, kind in (("late", method), ("stored", method), ("input", "input"), ("full", "full")):
        parts, models[name] = made(kind)
    texts = read_shots(shots, parts, s["max_length"])
    batches = Batches(batch_size=s["batch_size"], seed=0, lengths=texts["train"].table.lengths)
    with tempfile.TemporaryDirectory() as folder:
        stored = {k: store_states(models["stored"], v, Path(folder) / f"{k}.npy") for k, v in texts.items()}
        sources = {name: stored if name == "stored" else texts for name in models}

        def step(name: str) -> Callable[[], None]:
            built = models[name].train()
            optimizer = torch.optim.AdamW([p for p in built.parameters() if p.requires_grad], lr=0.0, fused=True)

            def run() -> None:
                for at in range(3):
                    batch = {k: v.to(place) for k, v in sources[name]["train"].batch(batches.at(at)).items()}
                    tuning.loss(built, batch).backward()
                    optimizer.step()
                    optimizer.zero_grad()
                if place.type == "cuda":
                    torch.cuda.synchronize()

            return run

        measured: dict[str, Any] = dict(time_interleaved({name: step(name) for name in models}, repeats=repeats))
        for name, built in models.items():
            sizes = []
            for at in range(min(8, batches.per_epoch)):
                batch = {k: v.to(place) for k, v in sources[name]["train"].batch(batches.at(at)).items()}
                sizes.append(float(saved_bytes(partial(tuning.loss, built, batch), built.parameters())))
            measured[f"bytes {name}"] = np.array(sizes)
        answers = {}
        for name in ("late", "stored"):
            _, fresh = made(method)
            source = sources[name]["train"]

            def batch_at(at: int, source: Any = source) -> dict[str, Any]:
                return source.batch(batches.at(at))

            train(
                model=fresh, batch_at=batch_at, loss_fn=tuning.loss, steps=min(20, s["steps"]), learning_rate=1e-3,
                device=device,
            )  # fmt: skip
            answers[name] = all_logits(fresh, sources[name]["test"]).argmax(1)
    result: dict[str, Any] = {"different": float((answers["late"] != answers["stored"]).sum())}
    for name, values in measured.items():
        with new_artifact() as (out, artifact):
            save_file({shots["dataset"]: values}, out / OUTPUTS)
        result[name] = artifact
        result[f"median {name}"] = float(np.median(values))
    return result


@cached_task(name="join_tuned")
def join_tuned(tuned: list[Artifact]) -> Artifact:
    """The outputs of several datasets in one artifact."""
    from safetensors.numpy import load_file, save_file

    with new_artifact() as (folder, artifact):
        save_file({k: v for one in tuned for k, v in load_file(open_artifact(one) / OUTPUTS).items()}, folder / OUTPUTS)
    return artifact
