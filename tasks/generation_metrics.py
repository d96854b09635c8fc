"""Metrics of generated text on pairs of candidate and reference, and the models behind them."""

import random
from typing import Any

from paperflows.components.errors import InputError
from paperflows.tasks.data import DatasetArtifact, read_dataset, read_rows, read_sentences, read_split
from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import GOLD, OUTPUTS, Artifact, new_artifact, open_artifact
from paperflows.tasks.training import ModelArtifact, fit

PAIRS = "pairs.jsonl"


class PairsToScore(Artifact):
    """Candidates and references (`pairs.jsonl`, by group) with human scores where there are some (`gold.safetensors`).

    `groups` are the minimal pairs' attributes; `human` the groups that people scored.
    """

    groups: list[str]
    human: list[str]


@cached_task(name="collect_pairs")
def collect_pairs(
    minimal: DatasetArtifact, human: list[DatasetArtifact], splits: dict[str, list[str]], limit: int
) -> PairsToScore:
    """All pairs that every metric scores: the minimal pairs, and pairs with human scores from the named splits.

    Args:
        limit: minimal pairs of an attribute, the first ones, and human-scored pairs of a split, drawn at random: they
            often stand in order of genre.
    """
    import numpy as np
    from safetensors.numpy import save_file

    from paperflows.components.data.jsonl import write_jsonl

    rows: list[dict[str, Any]] = []
    gold, groups = {}, []
    for attribute, pairs in sorted(read_dataset(minimal).items()):
        _check_minimal(minimal["name"], attribute, pairs)
        pairs = pairs[: 2 * limit]
        groups.append(attribute)
        rows += [{"group": attribute, "candidate": r["candidate"], "reference": r["reference"]} for r in pairs]
    for data in human:
        for split in splits[data["name"]]:
            group, pairs = f"{data['name']}.{split}", read_split(data, split)
            pairs = random.Random(group).sample(pairs, min(limit, len(pairs)))
            gold[group] = np.array([r["score"] for r in pairs], dtype=np.float64)
            rows += [{"group": group, "candidate": r["text"], "reference": r["text_pair"]} for r in pairs]
    with new_artifact() as (folder, artifact):
        write_jsonl(folder / PAIRS, rows)
        save_file(gold, folder / GOLD)
    return PairsToScore(**artifact, groups=groups, human=list(gold))


def _check_minimal(name: str, split: str, rows: list[dict[str, Any]]) -> None:
    order = [row["pair"] for row in rows]
    if order != [i // 2 for i in range(len(rows))]:
        raise InputError(f"dataset {name!r}, split {split}: rows 2k and 2k + 1 must be the candidates of pair k")


@cached_task(name="score_ngram", task_run_name="score_ngram-{metric}")
def score_ngram(pairs: PairsToScore, metric: str) -> Artifact:
    """An n-gram metric's scores of all pairs, by group."""
    from paperflows.components.generation_metrics.ngram import ngram_scores

    return _store(pairs, lambda texts: ngram_scores(metric, texts))


@cached_task(name="score_matching", task_run_name="score_matching-{metric}")
def score_matching(
    pairs: PairsToScore,
    metric: str,
    model: str,
    layer: int,
    device: str,
    idf_from: Artifact | None = None,
    adapters: Artifact | None = None,
    only: list[str] | None = None,
) -> Artifact:
    """BERTScore F1 ("bertscore") or the optimal-transport score ("moverscore") of all pairs, by group.

    Args:
        idf_from: sentences that word weights are counted in; None weighs all words alike.
        adapters: of `train_debiasing_adapters`.
        only: groups that are scored; None for all.
    """
    from paperflows.components.generation_metrics.matching import bert_score, mover_score
    from paperflows.components.generation_metrics.token_states import inverse_document_frequency, load_token_encoder

    folder = None if adapters is None else open_artifact(adapters)
    encoder = load_token_encoder(model, layer=layer, adapters=folder, device=device)
    idf = None if idf_from is None else inverse_document_frequency(encoder.table(read_sentences(idf_from)))
    if metric == "bertscore":
        return _store(pairs, lambda texts: bert_score(encoder, texts, idf=idf)[:, 2].tolist(), only)
    return _store(pairs, lambda texts: mover_score(encoder, texts, idf=idf).tolist(), only)


@cached_task(name="train_regression_metric", task_run_name="train_regression_metric-seed{seed}")
def train_regression_metric(
    model: str,
    data: DatasetArtifact,
    max_length: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    evaluations: int,
    validation: int,
    seed: int,
    device: str,
) -> ModelArtifact:
    """A cross-encoder fine-tuned on human scores of pairs, as BLEURT is; Spearman on validation picks the checkpoint.

    Args:
        validation: pairs of the validation split that are scored, the first ones.
    """
    import numpy as np
    import torch
    import torch.nn.functional as F

    from paperflows.components.evaluation.statistics import spearman
    from paperflows.components.generation_metrics.regression import load_regressor, pair_table, predict
    from paperflows.components.training.batching import Batches

    rows, held_out = read_split(data, "train"), read_split(data, "validation")[:validation]
    scale = max(r["score"] for r in rows)
    scores = torch.tensor([r["score"] / scale for r in rows], dtype=torch.float32)
    gold = np.array([r["score"] for r in held_out], dtype=np.float64)
    torch.manual_seed(seed)
    regressor, tokenizer = load_regressor(model)
    table, types = pair_table(tokenizer, [(r["text"], r["text_pair"]) for r in rows], max_length=max_length)
    batches = Batches(batch_size=batch_size, seed=seed, lengths=table.lengths)

    def batch_at(step: int) -> dict[str, Any]:
        chosen = batches.at(step)
        ids, mask = table.pad(chosen)
        return {
            "tokens": ids, "mask": mask, "types": types.pad(chosen)[0], "gold": scores[chosen], "ids": chosen.tolist()
        }  # fmt: skip

    def loss_fn(trained: Any, batch: Any) -> Any:
        out = trained(input_ids=batch["tokens"], attention_mask=batch["mask"], token_type_ids=batch["types"])
        return F.mse_loss(out.logits[:, 0].float(), batch["gold"])

    def evaluate(trained: Any) -> float:
        pairs = [(r["text"], r["text_pair"]) for r in held_out]
        return float(spearman(gold, predict(trained, tokenizer, pairs, max_length=max_length).numpy()))

    settings = {"model": model, "steps": steps, "learning_rate": learning_rate, "seed": seed}
    name = f"regression-seed{seed}"
    done = fit(
        name, settings, regressor, batch_at, loss_fn, steps, learning_rate, seed, device,
        evaluate=evaluate, evaluate_every=max(1, steps // evaluations),
    )  # fmt: skip
    with new_artifact() as (folder, artifact):
        regressor.cpu().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return ModelArtifact(**artifact, name=name, score=done.best_score, history=done.history)


@cached_task(name="score_regression")
def score_regression(pairs: PairsToScore, regressor: Artifact, max_length: int, device: str) -> Artifact:
    """The trained regression metric's scores of all pairs, by group."""
    from paperflows.components.generation_metrics.regression import load_regressor, predict
    from paperflows.components.training.device import accelerator

    model, tokenizer = load_regressor(str(open_artifact(regressor)))
    model.to(accelerator(device).device)
    return _store(pairs, lambda texts: predict(model, tokenizer, texts, max_length=max_length).tolist())


@cached_task(name="train_denoiser")
def train_denoiser(
    sentences: Artifact,
    width: int,
    layers: int,
    heads: int,
    vocab_size: int,
    max_length: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    device: str,
) -> ModelArtifact:
    """A small BART trained to restore corrupted `sentences`: the language model behind the generation metric."""
    import torch

    from paperflows.components.generation_metrics.likelihood import token_losses
    from paperflows.components.models.tiny_bert import train_wordpiece
    from paperflows.components.models.tiny_seq2seq import corrupt, tiny_bart
    from paperflows.components.training.batching import Batches, TokenTable

    texts = read_sentences(sentences)
    tokenizer = train_wordpiece(texts, vocab_size=vocab_size)
    tokenizer.model_max_length = max_length
    model = tiny_bart(tokenizer=tokenizer, width=width, layers=layers, heads=heads, positions=max_length, seed=seed)
    table = TokenTable.from_texts(texts, tokenizer, max_length=max_length)
    batches = Batches(batch_size=batch_size, seed=seed, lengths=table.lengths)

    def batch_at(step: int) -> dict[str, Any]:
        rows = batches.at(step)
        ids, mask = table.pad(rows)
        noise = torch.Generator().manual_seed(seed * 1_000_003 + step)
        source, inside = corrupt(ids, mask, tokenizer=tokenizer, masked=0.15, deleted=0.1, generator=noise)
        return {"source": source, "inside": inside, "target": ids, "mask": mask, "ids": rows.tolist()}

    def loss_fn(trained: Any, batch: Any) -> Any:
        return token_losses(trained, batch["source"], batch["inside"], batch["target"], batch["mask"]).mean()

    settings = {"width": width, "layers": layers, "steps": steps, "learning_rate": learning_rate, "seed": seed}
    done = fit("denoiser", settings, model, batch_at, loss_fn, steps, learning_rate, seed, device)
    with new_artifact() as (folder, artifact):
        model.cpu().save_pretrained(folder)  # type: ignore[operator]
        tokenizer.save_pretrained(folder)
    return ModelArtifact(**artifact, name="denoiser", score=None, history=done.history)


@cached_task(name="score_likelihood")
def score_likelihood(pairs: PairsToScore, model: Artifact | str, max_length: int, device: str) -> Artifact:
    """BARTScore-F of all pairs, by group, by a trained or a pretrained (folder, hub id) sequence-to-sequence model."""
    from transformers import AutoModelForSeq2SeqLM

    from paperflows.components.generation_metrics.likelihood import likelihood_score
    from paperflows.components.models.pretrained import load_pretrained, load_tokenizer
    from paperflows.components.training.device import accelerator

    name = model if isinstance(model, str) else str(open_artifact(model))
    loaded, tokenizer = load_pretrained(AutoModelForSeq2SeqLM, name), load_tokenizer(name)
    loaded.to(accelerator(device).device)
    return _store(pairs, lambda texts: likelihood_score(loaded, tokenizer, texts, max_length=max_length).tolist())


@cached_task(name="correlate")
def correlate(scores: Artifact, pairs: PairsToScore) -> dict[str, float]:
    """Spearman's rho with the human scores, by group."""
    from safetensors.numpy import load_file

    from paperflows.components.evaluation.statistics import spearman

    gold, found = load_file(open_artifact(pairs) / GOLD), load_file(open_artifact(scores) / OUTPUTS)
    return {group: float(spearman(gold[group], found[group])) for group in gold}


def _store(pairs: PairsToScore, score: Any, only: list[str] | None = None) -> Artifact:
    """`score(pairs)` of all pairs at once, so that texts that occur in several groups are encoded once; by group."""
    import numpy as np
    from safetensors.numpy import save_file

    wanted = [*pairs["groups"], *pairs["human"]] if only is None else only
    rows = [row for row in read_rows(open_artifact(pairs) / PAIRS) if row["group"] in wanted]
    values = np.asarray(score([(row["candidate"], row["reference"]) for row in rows]), dtype=np.float64)
    groups = np.array([row["group"] for row in rows])
    with new_artifact() as (folder, artifact):
        outputs = {group: values[groups == group].copy() for group in wanted}
        save_file(outputs, folder / OUTPUTS)
    return artifact
