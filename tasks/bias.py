"""The bias of metrics on minimal pairs, and adapters that reduce it."""

import random
import re
from collections import Counter
from typing import Any

from paperflows.components.errors import InputError
from paperflows.tasks.data import DatasetArtifact, read_dataset, read_rows, read_sentences, read_split
from paperflows.tasks.generation_metrics import PAIRS, PairsToScore
from paperflows.tasks.policy import cached_task
from paperflows.tasks.remarks import remark
from paperflows.tasks.store import OUTPUTS, Artifact, new_artifact, open_artifact
from paperflows.tasks.training import ModelArtifact, fit

_NGRAM = re.compile(r"(sacrebleu|gleu|bleu|rouge(l|lsum|w|su)?|meteor|nist|chrf|ter|wer|cider)(?![a-z])")
_MODEL = re.compile(r"bert|bart|bleurt|mover|prism|frugal|comet|gpt|t5|lm")


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
def recorded_bias(minimal: DatasetArtifact, limit: int | None = None) -> dict[str, BiasArtifact]:
    """Metric (lower case) -> its bias, from the scores that the data set holds; empty where it holds none.

    Args:
        limit: pairs of an attribute, the first ones; None for all.

    Raises:
        InputError: a row lacks a score that another row has.
    """
    splits = read_dataset(minimal)
    names = sorted({name for rows in splits.values() for row in rows for name in row.get("scores") or {}})
    for attribute, rows in splits.items():
        for row in rows:
            if lacking := next((name for name in names if name not in (row.get("scores") or {})), None):
                raise InputError(
                    f"dataset {minimal['name']!r}, split {attribute}, row {row['id']}: scores has no {lacking!r}, "
                    "which other rows have; give every row the same metrics, or none"
                )
    kept = {attribute: rows if limit is None else rows[: 2 * limit] for attribute, rows in splits.items()}
    return {
        name.lower(): _bias_of({a: [row["scores"][name] for row in rows] for a, rows in kept.items()}) for name in names
    }


def metric_families(metrics: list[str]) -> tuple[list[str], list[str]]:
    """Of metrics (lower case): those that compare words or characters, and those that ask a language model.

    They are told by their names (`rouge-l` is ROUGE, `bleurt` is not BLEU); the report says which belong to neither.
    """
    ngram = [m for m in metrics if _NGRAM.match(m)]
    models = [m for m in metrics if m not in ngram and _MODEL.search(m)]
    if unknown := [m for m in metrics if m not in ngram and m not in models]:
        remark(f"Recorded metrics of no known family, compared with none: {', '.join(unknown)}.")
    return ngram, models


def held_out_groups(groups: list[list[str]], attributes: list[str]) -> list[list[str]]:
    """The groups of `adapters.held_out` as far as the data has their attributes; the report names what it has not.

    Raises:
        InputError: an attribute that neither the data nor a word list has, or that stands twice; no list is left to
            train with.
    """
    from paperflows.components.bias.word_lists import WORD_LISTS, without_words

    named = [attribute for group in groups for attribute in group]
    for name, times in Counter(named).items():
        if name not in attributes and name not in WORD_LISTS:
            raise InputError(f"adapters.held_out: no attribute {name!r} in the data, which has {', '.join(attributes)}")
        if times > 1:
            raise InputError(f"adapters.held_out: {name!r} stands there {times} times; an attribute is held out once")
    if absent := [name for name in named if name not in attributes]:
        remark(f"The data has no pairs of {', '.join(absent)}: not measured with held-out adapters.")
    found = [kept for group in groups if (kept := [name for name in group if name in attributes])]
    for group in found:
        hidden = frozenset(word for name in group if name in WORD_LISTS for word in WORD_LISTS[name].words)
        if not any(without_words(words, hidden).words for words in WORD_LISTS.values()):
            raise InputError(f"adapters.held_out: without {', '.join(group)} no word list is left to train with")
    if unlisted := [name for name in attributes if name not in WORD_LISTS]:
        remark(f"No word list has {', '.join(unlisted)}: adapters exchange words of other attributes only.")
    return found


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
    """Mean difference of pairs whose differing words are all in the attribute's word list, and of the others.

    Pairs with the same words in another order (or but for `a` and `an`) are neither: `left_out.pairs` counts them.
    """
    from safetensors.numpy import load_file

    from paperflows.components.bias.word_lists import WORD_LISTS

    rows = read_rows(open_artifact(pairs) / PAIRS)
    differences = load_file(open_artifact(measured) / OUTPUTS)
    sums = {"listed": [0.0, 0.0], "unlisted": [0.0, 0.0], "left_out": [0.0, 0.0]}
    for attribute in pairs["groups"]:
        texts = [row["candidate"] for row in rows if row["group"] == attribute]
        known = WORD_LISTS[attribute].words if attribute in WORD_LISTS else frozenset()
        for first, second, value in zip(texts[0::2], texts[1::2], differences[attribute], strict=True):
            one, two = (Counter(re.findall(r"\w+(?:-\w+)*", text.lower())) for text in (first, second))
            differ = {*(one - two), *(two - one)} - {"a", "an"}
            which = "left_out" if not differ else "listed" if differ <= known else "unlisted"
            sums[which][0] += float(value)
            sums[which][1] += 1
    found = {which: total / count for which, (total, count) in sums.items() if count}
    return found | {f"{which}.pairs": count for which, (_, count) in sums.items() if count or which != "left_out"}


@cached_task(name="augment_counterfactually")
def augment_counterfactually(sentences: Artifact, held_out: list[str], per_attribute: int, seed: int) -> Artifact:
    """Counterfactual sentences by every word list (`counterfactuals.jsonl`), whatever attributes the data has.

    Args:
        held_out: attributes none of whose list's words is exchanged; other lists lose the words they share with them.

    Raises:
        InputError: no sentence names a group or a person.
    """
    from paperflows.components.bias.counterfactual import augment
    from paperflows.components.bias.word_lists import WORD_LISTS, without_words
    from paperflows.components.data.jsonl import write_jsonl

    hidden = frozenset(word for name in held_out if name in WORD_LISTS for word in WORD_LISTS[name].words)
    lists = {name: without_words(words, hidden) for name, words in WORD_LISTS.items() if name not in held_out}
    found = augment(read_sentences(sentences), lists, per_attribute=per_attribute, seed=seed)
    if not found:
        raise InputError("datasets.sentences: no sentence has a word of the lists or a noun for people")
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
        neutral: pair regression; pairs of its train split, drawn at random, since its rows may stand in order of genre,
            of those that have no word of any list: to keep the scores of the others would be to keep their bias.
        neutral_limit: how many.

    Raises:
        InputError: every pair has such a word.
    """
    from paperflows.components.bias.counterfactual import Counterfactual
    from paperflows.components.bias.debias import DebiasObjective
    from paperflows.components.generation_metrics.token_states import load_token_encoder
    from paperflows.components.models.adapters import add_adapters, save_adapters

    encoder = load_token_encoder(model, layer=layer, max_length=max_length)
    rows = read_rows(open_artifact(counterfactuals) / "counterfactuals.jsonl")
    pairs = neutral_pairs(read_split(neutral, "train"))
    if not pairs:
        raise InputError(f"dataset {neutral['name']!r}: every train pair has a word of the lists; none is neutral")
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


def neutral_pairs(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The pairs neither side of which has a word of any list."""
    from paperflows.components.bias.word_lists import WORD_LISTS

    listed = frozenset[str]().union(*(words.words for words in WORD_LISTS.values()))
    pairs = [(row["text"], row["text_pair"]) for row in rows]
    return [pair for pair in pairs if not listed & set(re.findall(r"\w+(?:-\w+)*", " ".join(pair).lower()))]


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
