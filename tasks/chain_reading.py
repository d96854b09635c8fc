"""The verifier that reads: an encoder of question and chain, trained on pairs of right and wrong chains."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from paperflows.components.errors import InputError
from paperflows.tasks.data import DatasetArtifact, read_split
from paperflows.tasks.policy import cached_task
from paperflows.tasks.remarks import remark
from paperflows.tasks.store import Artifact, new_artifact
from paperflows.tasks.training import fit

READ = "read.safetensors"


class ChainReading(BaseModel):
    """How an encoder is trained to score chains."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(description="minilm, a folder or a Hugging Face id")
    layers: int = Field(ge=1, description="Layers kept, the first ones")
    max_length: int = Field(ge=8, description="Tokens of question and chain")
    folds: int = Field(ge=2, description="Parts of the questions, an encoder trained for each on the others")
    steps: int = Field(ge=1, description="Optimiser steps")
    batch_size: int = Field(ge=1, description="Pairs of chains a step")
    learning_rate: float = Field(gt=0, description="Highest")


@cached_task(name="read_chains", task_run_name="read_chains-fold{fold}-seed{seed}")
def read_chains(
    dataset: DatasetArtifact, filters: dict[str, Any], settings: ChainReading, fold: int, seed: int, device: str
) -> Artifact:
    """Scores of the chains of one fold by an encoder trained on the others (`read.safetensors`, in their order).

    Each step of the training sees right and wrong chains of one question each and lowers the logistic loss of the
    difference of their scores. Training begins at the ranking of the regression on what chains state (`pairwise`).

    Args:
        filters: which chains count (`Pool.filters`).

    Raises:
        InputError: the encoder has fewer positions than `max_length`.
    """
    import numpy as np
    import torch
    import torch.nn.functional as F
    from safetensors.numpy import save_file
    from transformers import AutoModel

    from paperflows.components.models.adapters import keep_layers
    from paperflows.components.models.pretrained import load_pretrained, load_tokenizer
    from paperflows.components.reasoning import verifier
    from paperflows.components.reasoning.chain_encoder import ChainEncoder, ChainTable
    from paperflows.components.reasoning.recorded import read_questions
    from paperflows.components.training.batching import Batches

    questions = read_questions(read_split(dataset, "test"), **filters)
    right, owner = verifier.correct(questions, filters["kind"]), verifier.owners(questions)
    random = np.random.default_rng(seed)
    held = verifier.fold_of_chains(questions, settings.folds, seed) == fold
    learnt = np.flatnonzero(~held)
    pairs = learnt[verifier.draw_pairs(owner[learnt], right[learnt], settings.steps * settings.batch_size, random)]
    scores = np.zeros(int(held.sum()))
    if len(scores) and not len(pairs):
        remark(
            f"{dataset['name']}: no question of the other folds has right and wrong chains, so that the encoder learnt "
            f"nothing for fold {fold}, whose chains score alike."
        )
    if len(scores) and len(pairs):
        stated = np.array([verifier.features(q.text, c.text, c.answer) for q in questions for c in q.chains])
        simple = verifier.fit_pairs(stated[learnt], right[learnt], owner[learnt], seed)
        base = torch.from_numpy(simple(stated)).float()
        encoder, tokenizer = load_pretrained(AutoModel, settings.model), load_tokenizer(settings.model)
        positions = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
        if settings.max_length > positions:
            raise InputError(f"max_length: {settings.max_length} tokens, {settings.model} reads {positions} at most")
        keep_layers(encoder, settings.layers)
        if hasattr(encoder, "pooler"):
            encoder.pooler = None
        torch.manual_seed(seed)
        model = ChainEncoder(encoder)
        texts = [c.text for q in questions for c in q.chains]
        table = ChainTable(tokenizer, [questions[i].text for i in owner], texts, settings.max_length)
        full = float((table.lengths == settings.max_length).mean())
        if full > 0.01:
            remark(
                f"{dataset['name']}: {full:.0%} of the chains have {settings.max_length} tokens or more with their "
                "question; the encoder reads their ends."
            )
        batches = Batches(batch_size=settings.batch_size, seed=seed, lengths=table.lengths[pairs].max(1))

        def batch_at(step: int) -> dict[str, Any]:
            chosen = pairs[batches.at(step)].T.reshape(-1)  # the right ones, then the wrong ones
            return {"inputs": (*table.pad(chosen), base[chosen]), "ids": chosen.tolist()}

        def loss_fn(trained: Any, batch: Any) -> Any:
            good, bad = trained(*batch["inputs"]).chunk(2)
            return F.softplus(bad - good).mean()

        fit(
            f"read-{dataset['name']}-fold{fold}-seed{seed}", settings.model_dump(), model, batch_at, loss_fn,
            settings.steps, settings.learning_rate, seed, device, rates={"head": 10.0, "scale": 10.0},
        )  # fmt: skip
        scores = model.score(table, base, np.flatnonzero(held))
    with new_artifact() as (folder, artifact):
        save_file({"scores": scores}, folder / READ)
    return artifact
