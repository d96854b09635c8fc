"""Teach a model to write its decoding settings, and score what it and every other way of choosing them answers."""

from typing import Any

from paperflows.tasks.data import DatasetArtifact, read_rows, read_split
from paperflows.tasks.decoding import (
    LABELS,
    FamilyArtifact,
    Labels,
    configuration_of,
    draw_rows,
    fluency_of,
    items_in,
    open_writer,
    sample_scores,
    scores_in,
)
from paperflows.tasks.policy import cached_task
from paperflows.tasks.progress import progress
from paperflows.tasks.store import OUTPUTS, Artifact, new_artifact, open_artifact
from paperflows.tasks.training import ModelArtifact, fit


@cached_task(name="tune_writer", task_run_name="tune_writer-seed{seed}")
def tune_writer(
    model: str, stored: Artifact | None, families: list[FamilyArtifact], labelled: list[Artifact],
    grid: dict[str, list[float]], training: dict[str, Any], seed: int, device: str,
) -> ModelArtifact:  # fmt: skip
    """Teach the model to write the settings of an input, and to answer when it is told some: half of every batch each.

    The told ones are random, so that no way of choosing them is strange to the model.

    Args:
        labelled: of `label_inputs`, a family each.
        training: steps, batch_size, learning_rate, rank (of LoRA; 0 tunes all weights).
    """
    import torch

    from paperflows.components.decoding.configurations import draw
    from paperflows.components.decoding.writer import sequence_loss
    from paperflows.components.training.device import bf16_is_fast

    writer = open_writer(model, stored, grid, "cpu")
    if training["rank"]:
        writer.adapt(training["rank"], torch.bfloat16 if bf16_is_fast(device) else torch.float32)
    asked, answered = [], []
    for number, (family, labels) in enumerate(zip(families, labelled, strict=True)):
        rows = read_rows(open_artifact(labels) / LABELS)
        if rows:  # none where no configuration matters to any input and flat ones are dropped
            asked.append(
                writer.settings_rows([r["prompt"] for r in rows], [configuration_of(r["configuration"]) for r in rows])
            )
        items = items_in(family, "train")
        told = draw(grid, len(items), [seed, number])
        answered.append(writer.answer_rows([i.prompt for i in items], [i.answer for i in items], told))
    t, half = training, training["batch_size"] // 2

    def batch_at(step: int) -> dict[str, Any]:
        rows = draw_rows(asked, half, seed, 2 * step) + draw_rows(answered, t["batch_size"] - half, seed, 2 * step + 1)
        return {**writer.batch(rows, whole=False), "ids": [step]}

    done = fit(
        f"tuned-seed{seed}", {"seed": seed, **t}, writer.model, batch_at, sequence_loss, t["steps"],
        t["learning_rate"], seed, device,
    )  # fmt: skip
    with new_artifact() as (folder, artifact):
        writer.model.cpu()
        if training["rank"]:
            writer.merge()
        writer.save(folder)
    return ModelArtifact(**artifact, name="tuned", score=None, history=done.history)


@cached_task(name="select_by_embedding", task_run_name="select-{family[name]}")
def select_by_embedding(
    family: FamilyArtifact, families: list[FamilyArtifact], swept: list[Artifact], encoder: str, inputs: int,
    device: str,
) -> list[int]:  # fmt: skip
    """Configuration (its number) of each test input by a ridge regression of all scores on a frozen embedding.

    One regression for all families: it must find the family from the input, as the model does.
    """
    import numpy as np
    from sklearn.linear_model import RidgeCV

    from paperflows.components.decoding.labels import normalise
    from paperflows.components.models.encoder import load_encoder

    embed = load_encoder(encoder, device=device).embed
    x, y = [], []
    for each, scores in zip(families, swept, strict=True):
        means = scores_in(scores, each["name"]).mean(2)
        x += [item.prompt for item in items_in(each, "validation")[: len(means)]]
        y.append(normalise(means, means.mean(0).min(), means.mean(0).max()))
    ridge = RidgeCV(alphas=np.logspace(-2, 4, 13)).fit(embed(x).numpy(), np.concatenate(y))
    test = [item.prompt for item in items_in(family, "test")[:inputs]]
    return [int(k) for k in ridge.predict(embed(test).numpy()).argmax(1)]


@cached_task(name="answer_by_methods", task_run_name="answer-seed{seed}")
def answer_by_methods(
    model: str, stored: Artifact, families: list[FamilyArtifact], kinds: list[str], labels: list[Labels],
    fixed: dict[str, list[list[float]]], selected: list[list[int]], configurations: list[list[float]],
    grid: dict[str, list[float]], inputs: int, samples: int, longest: int, seed: int, device: str,
) -> dict[str, Any]:  # fmt: skip
    """Scores of test inputs when each method chooses the configuration, and the tuned model is told it and answers.

    Args:
        fixed: method -> its configuration for each family; "hag", "random" and "selector" are added.
        selected: of `select_by_embedding`, a family each.

    Returns:
        `of`: method -> artifact of one normalised score an input, by family; for `hag` also `valid` (0 or 1) and
        `information` (pointwise bits between temperature and family). `raw`: method -> family -> mean score.
        `temperatures`: family -> mean temperature that the model wrote.
    """
    import numpy as np
    from safetensors.numpy import save_file

    from paperflows.components.decoding.configurations import draw
    from paperflows.components.decoding.labels import mutual_information, normalise

    outputs: dict[str, dict[str, Any]] = {method: {} for method in [*fixed, "hag", "random", "selector"]}
    raw: dict[str, dict[str, float]] = {method: {} for method in outputs}
    valid, said, of = [], [], []
    writer = open_writer(model, stored, grid, device)
    for number, (family, kind, label) in enumerate(zip(families, kinds, labels, strict=True)):
        items = items_in(family, "test")[:inputs]
        own, fine = writer.settle([item.prompt for item in items])
        valid += fine
        said += [c.temperature for c in own]
        of += [family["name"]] * len(items)
        choices = {method: [configuration_of(by[number])] * len(items) for method, by in fixed.items()}
        choices["hag"] = [configuration.effective() for configuration in own]
        choices["random"] = draw(grid, len(items), [seed, number])
        choices["selector"] = [configuration_of(configurations[k]) for k in selected[number]]
        with progress(f"answer {family['name']}"):
            fluency = fluency_of(family, kind)
            drawn = sample_scores(writer, kind, fluency, items, choices, samples, longest, seed, told=True)
        for method, scores in drawn.items():
            outputs[method][family["name"]] = normalise(scores.mean(1), label["low"], label["high"])
            raw[method][family["name"]] = float(scores.mean())
    bits, terms = mutual_information(said, of)
    outputs["hag"] |= {"valid": np.array(valid, dtype=np.float64), "information": terms}
    found = {}
    for method, by_family in outputs.items():
        with new_artifact() as (folder, artifact):
            save_file(by_family, folder / OUTPUTS)
        found[method] = artifact
    temperatures = {
        f["name"]: float(np.mean([t for t, n in zip(said, of, strict=True) if n == f["name"]])) for f in families
    }
    return {"of": found, "raw": raw, "temperatures": temperatures, "information": bits, "valid": float(np.mean(valid))}


@cached_task(name="best_by_input")
def best_by_input(families: list[FamilyArtifact], swept: list[Artifact], labels: list[Labels]) -> dict[str, Any]:
    """Mean normalised score of the best configuration of each test input, chosen and scored on different samples."""
    from paperflows.components.decoding.labels import half_split_oracle, normalise

    found = {}
    for family, scores, label in zip(families, swept, labels, strict=True):
        best = half_split_oracle(scores_in(scores, family["name"]))
        found[family["name"]] = float(normalise(best, label["low"], label["high"]).mean())
    return found


@cached_task(name="constant_outputs")
def constant_outputs(like: Artifact, values: dict[str, float]) -> Artifact:
    """Outputs of the shape of some datasets of `like` that are one number throughout: a bar to pass."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    shapes = load_file(open_artifact(like) / OUTPUTS)
    with new_artifact() as (folder, artifact):
        save_file({name: np.full_like(shapes[name], value) for name, value in values.items()}, folder / OUTPUTS)
    return artifact


@cached_task(name="choose_recorded", task_run_name="choose_recorded-seed{seed}")
def choose_recorded(data: DatasetArtifact, encoder: str, folds: int, seed: int, device: str) -> dict[str, Any]:
    """Choose a configuration for each recorded question, and score it by the samples recorded under it.

    A configuration is a prompt style and a temperature. The selector, a ridge regression on frozen embeddings, and the
    best fixed configuration are chosen on the questions of other contexts (`folds` of them).

    Returns:
        `of`: "selector", "fixed" and "random" -> artifact of (contexts, 2): accuracies summed over a context's
        questions, and questions. `mean`: the same as accuracies, with "half_split_oracle".

    Raises:
        InputError: the chains of a question lack a configuration that others have.
    """
    import numpy as np
    from safetensors.numpy import save_file
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import GroupKFold

    from paperflows.components.decoding.labels import half_split_oracle
    from paperflows.components.decoding.recorded import scores_by_configuration
    from paperflows.components.models.encoder import load_encoder

    rows = read_split(data, "test")
    names, scores = scores_by_configuration(rows)
    contexts = [row.get("context") or row["question"] for row in rows]
    embedded = load_encoder(encoder, device=device).embed([row["question"] for row in rows]).numpy()
    means = scores.mean(2)
    chosen = {"selector": np.empty(len(rows)), "fixed": np.empty(len(rows)), "random": means.mean(1)}
    for train, test in GroupKFold(folds, shuffle=True, random_state=seed).split(embedded, groups=contexts):
        ridge = RidgeCV(alphas=np.logspace(-2, 4, 13)).fit(embedded[train], means[train])
        chosen["selector"][test] = means[test, ridge.predict(embedded[test]).argmax(1)]
        chosen["fixed"][test] = means[test, means[train].mean(0).argmax()]
    _, group = np.unique(contexts, return_inverse=True)
    found = {}
    for method, value in chosen.items():
        with new_artifact() as (folder, artifact):
            sums = np.stack([np.bincount(group, value), np.bincount(group).astype(float)], 1)
            save_file({data["name"]: sums}, folder / OUTPUTS)
        found[method] = artifact
    mean = {method: float(value.mean()) for method, value in chosen.items()}
    mean["half_split_oracle"] = float(half_split_oracle(scores).mean())
    return {"of": found, "mean": mean, "configurations": names}
