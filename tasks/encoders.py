"""Train sentence encoders; the result is a stored encoder and its history."""

from typing import Any

from paperflows.tasks.data import DatasetArtifact, read_rows, read_split
from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import Artifact, new_artifact, open_artifact
from paperflows.tasks.training import ModelArtifact, fit


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
) -> ModelArtifact:
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
    from paperflows.components.evaluation.statistics import spearman
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
    held_out = read_split(validation, "validation")
    gold = np.array([row["score"] for row in held_out], dtype=np.float64)

    def evaluate(trained: Any) -> float:
        return float(spearman(gold, cosine_scores(trained.embed, held_out)))

    settings = {"method": method, "steps": steps, "learning_rate": learning_rate, "seed": seed}
    name = f"{method}-seed{seed}"
    done = fit(
        name, settings, encoder, objective.batch_at, objective.loss_fn, steps, learning_rate, seed, device,
        evaluate=evaluate, evaluate_every=max(1, steps // evaluations),
    )  # fmt: skip
    with new_artifact() as (out, artifact):
        encoder.cpu().save(out)
    return ModelArtifact(**artifact, name=name, score=done.best_score, history=done.history)
