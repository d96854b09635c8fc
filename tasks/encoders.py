"""Train a small BERT from nothing, and sentence encoders from it; results are stored encoders and their history."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from paperflows.components.errors import ServiceError
from paperflows.tasks.data import DatasetArtifact, read_dataset, read_rows, read_sentences
from paperflows.tasks.environment import state_folder
from paperflows.tasks.policy import cached_task, current_key
from paperflows.tasks.progress import progress
from paperflows.tasks.store import Artifact, new_artifact, open_artifact
from paperflows.tasks.tracking import child


class EncoderArtifact(Artifact):
    """A stored encoder, its validation score and the history of its training."""

    name: str
    score: float | None
    history: list[dict[str, float]]


@cached_task(name="train_masked_lm", task_run_name="train_masked_lm")
def train_masked_lm(
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
) -> EncoderArtifact:
    """A BERT with its own WordPiece vocabulary, trained on `sentences` with the masked-language-model loss."""
    import torch

    from paperflows.components.models.tiny_bert import mask_tokens, masked_lm_loss, tiny_bert, train_wordpiece
    from paperflows.components.training.batching import Batches, TokenTable

    texts = read_sentences(sentences)
    tokenizer = train_wordpiece(texts, vocab_size=vocab_size)
    tokenizer.model_max_length = max_length
    model = tiny_bert(
        vocab_size=len(tokenizer), width=width, layers=layers, heads=heads, positions=max_length, seed=seed
    )
    table = TokenTable.from_texts(texts, tokenizer, max_length=max_length)
    batches = Batches(batch_size=batch_size, seed=seed, lengths=table.lengths)

    def batch_at(step: int) -> dict[str, Any]:
        rows = batches.at(step)
        ids, mask = table.pad(rows)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        corrupted, labels = mask_tokens(ids, mask, tokenizer=tokenizer, share=0.15, generator=generator)
        return {"tokens": corrupted, "mask": mask, "labels": labels, "ids": rows.tolist()}

    def loss_fn(trained: Any, batch: Any) -> Any:
        return masked_lm_loss(trained, batch["tokens"], batch["mask"], batch["labels"])

    settings = {"width": width, "layers": layers, "steps": steps, "learning_rate": learning_rate, "seed": seed}
    done = _train("masked_lm", settings, model, batch_at, loss_fn, steps, learning_rate, seed, device)
    with new_artifact() as (folder, artifact):
        model.save_pretrained(folder)  # type: ignore[operator]
        tokenizer.save_pretrained(folder)
    return EncoderArtifact(**artifact, name="masked_lm", score=None, history=done.history)


@cached_task(name="fetch_masked_lm", retries=2, retry_on=(ServiceError,))
def fetch_masked_lm(model: str) -> EncoderArtifact:
    """A pretrained masked LM (folder or Hugging Face id) with its tokenizer, stored as safetensors."""
    from transformers import AutoModelForMaskedLM

    from paperflows.components.models.pretrained import load_pretrained, load_tokenizer

    with new_artifact() as (folder, artifact):
        load_pretrained(AutoModelForMaskedLM, model).save_pretrained(folder)
        load_tokenizer(model).save_pretrained(folder)
    return EncoderArtifact(**artifact, name=model, score=None, history=[])


@cached_task(name="train_sentence_encoder", task_run_name="{method}-seed{seed}-lr{learning_rate}")
def train_sentence_encoder(
    method: str,
    start: Artifact,
    data: Artifact,
    validation: DatasetArtifact,
    pooling: str,
    max_length: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    temperature: float,
    smooth: str,
    evaluations: int,
    seed: int,
    device: str,
) -> EncoderArtifact:
    """Train the encoder `start` by `method`; the weights with the best validation Spearman are kept.

    Args:
        method: "regression" (pairs.jsonl: text, text_pair, score), "dropout" (sentences.jsonl: text), "triplets" or
            "scored_triplets" (triplets.jsonl: text, positive, negative[, score]).
        data: artifact with the method's file.
        validation: pair regression dataset; its validation split picks the checkpoint.
        evaluations: how often over the run.
    """
    import numpy as np

    from paperflows.components.contrastive import objectives
    from paperflows.components.evaluation.bootstrap import spearman
    from paperflows.components.evaluation.sts import cosine_scores
    from paperflows.components.models.encoder import SentenceEncoder, load_encoder

    loaded = load_encoder(str(open_artifact(start)), device="cpu", max_length=max_length)
    encoder = SentenceEncoder(loaded.encoder, loaded.tokenizer, pooling=pooling, max_length=max_length)  # type: ignore[arg-type]
    folder = open_artifact(data)
    common: dict[str, Any] = {"batch_size": batch_size, "seed": seed}
    if method == "regression":
        rows = read_rows(folder / "pairs.jsonl")
        objective = objectives.regression(encoder, [(r["text"], r["text_pair"], r["score"]) for r in rows], **common)
    elif method == "dropout":
        sentences = [row["text"] for row in read_rows(folder / "sentences.jsonl")]
        objective = objectives.dropout_pairs(encoder, sentences, temperature=temperature, **common)
    else:
        rows = read_rows(folder / "triplets.jsonl")
        objective = objectives.triplets(
            encoder,
            [(r["text"], r["positive"], r["negative"]) for r in rows],
            temperature=temperature,
            scores=[r["score"] for r in rows] if method == "scored_triplets" else None,
            smooth=smooth,  # type: ignore[arg-type]
            **common,
        )
    held_out = read_dataset(validation)["validation"]
    gold = np.array([row["score"] for row in held_out], dtype=np.float64)

    def evaluate(trained: Any) -> float:
        return float(spearman(gold, cosine_scores(trained.embed, held_out)))

    settings = {"method": method, "steps": steps, "learning_rate": learning_rate, "seed": seed}
    name = f"{method}-seed{seed}"
    done = _train(
        name, settings, encoder, objective.batch_at, objective.loss_fn, steps, learning_rate, seed, device,
        evaluate=evaluate, evaluate_every=max(1, steps // evaluations),
    )  # fmt: skip
    with new_artifact() as (out, artifact):
        encoder.cpu().save(out)
    return EncoderArtifact(**artifact, name=name, score=done.best_score, history=done.history)


def _train(
    name: str,
    settings: dict[str, Any],
    model: Any,
    batch_at: Callable[[int], Any],
    loss_fn: Callable[[Any, Any], Any],
    steps: int,
    learning_rate: float,
    seed: int,
    device: str,
    **evaluation: Any,
) -> Any:
    """`components.training.loop.train` with this task's checkpoints, progress and MLflow child run."""
    from paperflows.components.training.checkpoint import Checkpoints
    from paperflows.components.training.loop import train

    checkpoints = Checkpoints(Path(state_folder() / "checkpoints" / current_key()), every_seconds=10)
    with progress(name) as report, child(name, settings) as recorder:

        def on_step(step: int, total: int, metrics: dict[str, float]) -> None:
            report(step, total)
            recorder.metrics(step, metrics)

        done = train(
            model=model, batch_at=batch_at, loss_fn=loss_fn, steps=steps, learning_rate=learning_rate, seed=seed,
            device=device, checkpoints=checkpoints, on_step=on_step, **evaluation,
        )  # fmt: skip
    checkpoints.clear()
    return done
