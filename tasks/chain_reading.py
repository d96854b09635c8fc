"""The verifier that reads: an encoder of question and chain, trained on pairs of right and wrong chains."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from paperflows.tasks.chains import INPUTS, SCORES, Pool, ScoresArtifact, store_scores
from paperflows.tasks.data import DatasetArtifact, read_split
from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import Artifact, new_artifact, open_artifact
from paperflows.tasks.training import fit


class ChainReading(BaseModel):
    """How an encoder is trained to score chains."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    datasets: tuple[str, ...] = Field((), description="Pools on which it is a further judge, of those of a verifier")
    model: str = Field(description="minilm, a folder or a Hugging Face id")
    layers: int = Field(ge=1, description="Layers kept, the first ones")
    max_length: int = Field(ge=8, description="Tokens of question and chain")
    folds: int = Field(ge=2, description="Parts of the questions, an encoder trained for each on the others")
    steps: int = Field(ge=1, description="Optimiser steps")
    batch_size: int = Field(ge=1, description="Pairs of chains a step")
    learning_rate: float = Field(gt=0, description="Highest")


@cached_task(name="read_chains", task_run_name="read_chains-fold{fold}-seed{seed}")
def read_chains(
    dataset: DatasetArtifact, pool: Pool, described: Artifact, settings: ChainReading, fold: int, seed: int, device: str
) -> Artifact:
    """Scores of the chains of one fold by an encoder trained on the others (`scores.safetensors`, in their order).

    Each step of the training sees right and wrong chains of one question each and lowers the logistic loss of the
    difference of their scores. Training begins at the ranking of the regression on what chains state (`pairwise`).
    """
    import numpy as np
    import torch
    import torch.nn.functional as F
    from safetensors.numpy import load_file, save_file
    from transformers import AutoModel

    from paperflows.components.models.adapters import keep_layers
    from paperflows.components.models.pretrained import load_pretrained, load_tokenizer
    from paperflows.components.reasoning import verifier
    from paperflows.components.reasoning.chain_encoder import ChainEncoder, ChainTable
    from paperflows.components.reasoning.recorded import read_questions
    from paperflows.components.training.batching import Batches

    questions = read_questions(read_split(dataset, "test"), **pool.filters)
    right, owner = verifier.correct(questions, pool.answer), verifier.owners(questions)
    random = np.random.default_rng(seed)
    held = verifier.fold_of_each(questions, settings.folds, random)[owner] == fold
    stated = load_file(open_artifact(described) / INPUTS)["stated"]
    simple = verifier.fit_pairs(stated[~held], right[~held], owner[~held], seed)
    base = torch.from_numpy(simple(stated)).float()
    learnt = np.flatnonzero(~held)
    pairs = learnt[verifier.draw_pairs(owner[learnt], right[learnt], settings.steps * settings.batch_size, random)]

    encoder = load_pretrained(AutoModel, settings.model)
    keep_layers(encoder, settings.layers)
    if hasattr(encoder, "pooler"):
        encoder.pooler = None
    torch.manual_seed(seed)
    model = ChainEncoder(encoder)
    tokenizer = load_tokenizer(settings.model)
    table = ChainTable(
        tokenizer, [questions[i].text for i in owner], [c.text for q in questions for c in q.chains],
        settings.max_length,
    )  # fmt: skip
    if len(pairs):
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
        save_file({"scores": scores}, folder / SCORES)
    return artifact


@cached_task(name="score_read_chains", task_run_name="score_read_chains-seed{seed}")
def score_read_chains(dataset: DatasetArtifact, pool: Pool, folds: list[Artifact], seed: int) -> ScoresArtifact:
    """Points and probabilities of all chains from the scores of each fold, as `read_chains` gives them."""
    import numpy as np
    from safetensors.numpy import load_file

    from paperflows.components.reasoning import verifier
    from paperflows.components.reasoning.recorded import read_questions

    questions = read_questions(read_split(dataset, "test"), **pool.filters)
    right, owner = verifier.correct(questions, pool.answer), verifier.owners(questions)
    fold = verifier.fold_of_each(questions, len(folds), np.random.default_rng(seed))[owner]
    scores = np.zeros(len(owner))
    for number, part in enumerate(folds):
        scores[fold == number] = load_file(open_artifact(part) / SCORES)["scores"]
    chance = verifier.calibrate(scores, right, fold)
    return store_scores(questions, right, verifier.to_points(scores), chance, len(folds), seed, "cross_encoder")
