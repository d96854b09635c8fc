"""The bias of metrics on minimal pairs, and adapters that reduce it."""

import random
import re
from typing import Any

from paperflows.tasks.claims import OUTPUTS
from paperflows.tasks.data import DatasetArtifact, read_dataset, read_rows, read_sentences, read_split
from paperflows.tasks.generation_metrics import PAIRS, PairsToScore
from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import Artifact, new_artifact, open_artifact
from paperflows.tasks.training import ModelArtifact, fit

NGRAM = ("bleu", "rouge", "meteor", "nist", "chrf")
"""Which recorded metrics count n-grams; all others ask a pretrained language model."""


class BiasArtifact(Artifact):
    """Absolute differences of every pair by attribute (`outputs.safetensors`), bias and polarised bias of each."""

    bias: dict[str, float]
    polarised: dict[str, float]


@cached_task(name="measure_bias")
def measure_bias(scores: Artifact, pairs: PairsToScore) -> BiasArtifact:
    """The bias of a metric on each attribute, from its scores."""
    from safetensors.numpy import load_file

    found = load_file(open_artifact(scores) / OUTPUTS)
    return _bias_of({attribute: found[attribute] for attribute in pairs["groups"]})


@cached_task(name="recorded_bias")
def recorded_bias(minimal: DatasetArtifact) -> dict[str, BiasArtifact]:
    """Metric (lower case) -> its bias, from the scores that the data set holds; empty where it holds none."""
    splits = read_dataset(minimal)
    names = sorted({name for rows in splits.values() for row in rows for name in row.get("scores") or {}})
    return {
        name.lower(): _bias_of({a: [row["scores"][name] for row in rows] for a, rows in splits.items()})
        for name in names
    }


def has_published_metrics(recorded: dict[str, BiasArtifact]) -> bool:
    """Whether every metric and attribute of the published table is there; another data set has its own."""
    from paperflows.components.bias.published import ATTRIBUTES, PUBLISHED

    return all(metric in recorded and set(ATTRIBUTES) <= recorded[metric]["bias"].keys() for metric in PUBLISHED)


@cached_task(name="compare_with_published")
def compare_with_published(recorded: dict[str, BiasArtifact]) -> Artifact:
    """For each cell of the published table 1 where the recomputed bias equals it to two decimals, else 0."""
    import numpy as np
    from safetensors.numpy import save_file

    from paperflows.components.bias.published import ATTRIBUTES, PUBLISHED

    equal = [
        round(recorded[metric]["bias"][attribute], 2) == value
        for metric, values in PUBLISHED.items()
        for attribute, value in zip(ATTRIBUTES, values, strict=True)
    ]
    with new_artifact() as (folder, artifact):
        save_file({"cells": np.array(equal, dtype=np.float64)}, folder / OUTPUTS)
    return artifact


@cached_task(name="combine_outputs")
def combine_outputs(artifacts: list[Artifact], weights: list[float]) -> Artifact:
    """The weighted sum of stored outputs, key by key (keys that all of them have)."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    found = [load_file(open_artifact(a) / OUTPUTS) for a in artifacts]
    keys = sorted(set.intersection(*(set(f) for f in found)))
    with new_artifact() as (folder, artifact):
        sums = {key: np.sum([w * f[key] for w, f in zip(weights, found, strict=True)], axis=0) for key in keys}
        save_file(sums, folder / OUTPUTS)
    return artifact


@cached_task(name="merge_outputs")
def merge_outputs(artifacts: list[Artifact], keys: list[list[str]]) -> Artifact:
    """One set of outputs: from each artifact those keys that are named for it."""
    from safetensors.numpy import load_file, save_file

    found = [load_file(open_artifact(a) / OUTPUTS) for a in artifacts]
    with new_artifact() as (folder, artifact):
        save_file({key: f[key] for f, names in zip(found, keys, strict=True) for key in names}, folder / OUTPUTS)
    return artifact


@cached_task(name="split_by_list")
def split_by_list(pairs: PairsToScore, measured: BiasArtifact) -> dict[str, float]:
    """Mean difference of pairs whose differing words are all in the attribute's word list, and of the others."""
    from safetensors.numpy import load_file

    from paperflows.components.bias.word_lists import WORD_LISTS

    rows = read_rows(open_artifact(pairs) / PAIRS)
    differences = load_file(open_artifact(measured) / OUTPUTS)
    sums = {"listed": [0.0, 0.0], "unlisted": [0.0, 0.0]}
    for attribute in pairs["groups"]:
        texts = [row["candidate"] for row in rows if row["group"] == attribute]
        known = WORD_LISTS[attribute].words if attribute in WORD_LISTS else frozenset()
        for first, second, value in zip(texts[0::2], texts[1::2], differences[attribute], strict=True):
            one, two = (set(re.findall(r"[a-z]+(?:-[a-z]+)?", text.lower())) for text in (first, second))
            differ = (one ^ two) - {"a", "an"}
            if not differ:  # the same words in another order
                continue
            which = "listed" if differ <= known else "unlisted"
            sums[which][0] += float(value)
            sums[which][1] += 1
    found = {which: total / count for which, (total, count) in sums.items() if count}
    return found | {f"{which}.pairs": count for which, (_, count) in sums.items()}


@cached_task(name="augment_counterfactually")
def augment_counterfactually(
    sentences: Artifact, attributes: list[str], held_out: list[str], per_attribute: int, seed: int
) -> Artifact:
    """Counterfactual sentences of the named attributes, those that have a word list (`counterfactuals.jsonl`).

    Args:
        held_out: attributes whose words are exchanged in none of them, also where another attribute's list has them.
    """
    from paperflows.components.bias.counterfactual import augment
    from paperflows.components.bias.word_lists import WORD_LISTS, without_words
    from paperflows.components.data.jsonl import write_jsonl

    hidden = frozenset(word for name in held_out if name in WORD_LISTS for word in WORD_LISTS[name].words)
    lists = {name: without_words(words, hidden) for name, words in WORD_LISTS.items() if name in attributes}
    found = augment(read_sentences(sentences), lists, per_attribute=per_attribute, seed=seed)
    with new_artifact() as (folder, artifact):
        write_jsonl(folder / "counterfactuals.jsonl", [vars(c) for c in found])
    return artifact


@cached_task(name="train_debiasing_adapters", task_run_name="adapters-{label}-seed{seed}")
def train_debiasing_adapters(
    model: str,
    layer: int,
    counterfactuals: Artifact,
    neutral: DatasetArtifact,
    neutral_limit: int,
    bottleneck: int,
    distil: float,
    steps: int,
    batch_size: int,
    learning_rate: float,
    max_length: int,
    label: str,
    seed: int,
    device: str,
) -> ModelArtifact:
    """Adapters in a frozen encoder that make BERTScore equal on counterfactuals and keep it on the neutral pairs.

    Args:
        neutral: pair regression; pairs of its train split, drawn at random, since its rows may stand in order of genre.
        neutral_limit: how many.
    """
    from paperflows.components.bias.counterfactual import Counterfactual
    from paperflows.components.bias.debias import DebiasObjective
    from paperflows.components.generation_metrics.token_states import load_token_encoder
    from paperflows.components.models.adapters import add_adapters, save_adapters

    encoder = load_token_encoder(model, layer=layer, max_length=max_length)
    rows = read_rows(open_artifact(counterfactuals) / "counterfactuals.jsonl")
    pairs = [(r["text"], r["text_pair"]) for r in read_split(neutral, "train")]
    pairs = random.Random(seed).sample(pairs, min(neutral_limit, len(pairs)))
    objective = DebiasObjective(
        encoder, [Counterfactual(**r) for r in rows], pairs, distil=distil, batch_size=batch_size, seed=seed
    )
    adapters = add_adapters(encoder.model, bottleneck, seed=seed)
    settings = {"adapters": label, "steps": steps, "learning_rate": learning_rate, "seed": seed}
    name = f"adapters-{label}-seed{seed}"
    done = fit(name, settings, encoder.model, objective.batch_at, objective.loss_fn, steps, learning_rate, seed, device)
    with new_artifact() as (folder, artifact):
        save_adapters(adapters, folder)
    return ModelArtifact(**artifact, name=name, score=None, history=done.history)


def _bias_of(scores: dict[str, Any]) -> BiasArtifact:
    import numpy as np
    from safetensors.numpy import save_file

    from paperflows.components.bias.scores import pair_differences

    signed = {attribute: pair_differences(values) for attribute, values in scores.items()}
    with new_artifact() as (folder, artifact):
        save_file({a: np.abs(d) for a, d in signed.items()}, folder / OUTPUTS)
    return BiasArtifact(
        **artifact,
        bias={a: float(np.abs(d).mean()) for a, d in signed.items()},
        polarised={a: float(d.mean()) for a, d in signed.items()},
    )
