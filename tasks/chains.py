"""Chains of reasoning: recorded ones or a language model's, and the points that a judge without gold answers gives."""

import shutil
from contextlib import ExitStack
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from paperflows.components.errors import ServiceError
from paperflows.tasks.annotators import Annotator, open_client
from paperflows.tasks.chain_reading import READ
from paperflows.tasks.data import DatasetArtifact, read_split
from paperflows.tasks.environment import state_folder
from paperflows.tasks.policy import cached_task, current_key
from paperflows.tasks.store import GROUPS, Artifact, new_artifact, open_artifact

SCORES = "scores.safetensors"
INPUTS = "inputs.safetensors"


class Pool(BaseModel):
    """Questions with chains, which of the chains count, and who judges them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str = Field(description="Reasoning chains; the split test is used")
    answer: Literal["number", "option", "yes_no", "letters", "date", "text"] = Field(description="Kind of answer")
    judge: Literal["letters", "arithmetic", "verifier", "llm"] = Field(
        description="letters, arithmetic: a program that checks the stated steps; verifier: trained on other "
        "questions' chains; llm: the language model of the section llm, which also samples where the record ends"
    )
    styles: tuple[str, ...] = Field((), description="Only chains of these styles; all when empty")
    without_models: tuple[str, ...] = Field((), description="Leave out chains of these models")
    temperature: float | None = Field(None, ge=0, description="Only chains sampled at this temperature")
    first: int = Field(20, ge=1, description="Chains sampled at the start")
    most: int = Field(40, ge=1, description="Chains of a question at most")

    @property
    def unfiltered(self) -> "Pool":
        """The same, with every chain that there is."""
        return self.model_copy(update={"styles": (), "without_models": (), "temperature": None})

    @property
    def filters(self) -> dict[str, Any]:
        """Arguments of `read_questions`."""
        return {
            "kind": self.answer, "styles": self.styles, "without_models": self.without_models,
            "temperature": self.temperature,
        }  # fmt: skip


class ScoresArtifact(Artifact):
    """`scores.safetensors`: points (N,) 0-10 and probability (N,) of each chain, question by question; where several
    models wrote the chains also prior (N,), how often the chain's model is right on the questions of other folds.

    `auc` is None where all chains are right, or none.
    """

    auc: float | None
    how: str


class SampledArtifact(DatasetArtifact):
    """A dataset of reasoning chains whose chains are a language model's, its completions as they can be replayed
    (`sampler.completions.jsonl`), and the counters of its client.
    """

    usage: dict[str, float]


@cached_task(name="sample_chains", retries=2, retry_on=(ServiceError,))
def sample_chains(
    dataset: DatasetArtifact, pool: Pool, sampler: Annotator, temperature: float, limit: int, device: str
) -> SampledArtifact:
    """`pool.most` chains of a language model for each question, instead of the recorded ones: every method reads them.

    Args:
        limit: questions, the first ones.
    """
    from paperflows.components.data.jsonl import write_jsonl
    from paperflows.components.reasoning.aggregation import Sample
    from paperflows.components.reasoning.llm_judge import llm_sampler

    rows = read_split(dataset, "test")[:limit]
    work = state_folder() / "checkpoints" / current_key()
    with ExitStack() as opened:
        client = open_client(sampler, "sampler", device, work, opened)
        sample = llm_sampler(
            client, model=sampler.model, questions=[row["question"] for row in rows], kind=pool.answer,
            temperature=temperature,
        )  # fmt: skip
        sampled = sample([Sample(number, 0, pool.most) for number in range(len(rows))])
        usage = {name: float(value) for name, value in client.usage.counters.items()}
    with new_artifact() as (folder, artifact):
        for recorded in work.glob("*.completions.jsonl"):
            shutil.copyfile(recorded, folder / recorded.name)
        chains = [[{"model": sampler.model, "text": c.text, "answer": c.answer} for c in some] for some in sampled]
        write_jsonl(folder / "test.jsonl", [{**r, "chains": c} for r, c in zip(rows, chains, strict=True)])
    shutil.rmtree(work, ignore_errors=True)
    return SampledArtifact(**{**dataset, **artifact, "rows": {"test": len(rows)}, "usage": usage})


@cached_task(name="describe_chains")
def describe_chains(dataset: DatasetArtifact, pool: Pool, embed: bool, device: str) -> Artifact:
    """`inputs.safetensors` for verifiers: what each chain states (N, F), how the others agree (N, 2) and, with `embed`,
    MiniLM's embedding of each chain and its product with that of the question (N, 2D).
    """
    import numpy as np
    from safetensors.numpy import save_file

    from paperflows.components.reasoning import verifier
    from paperflows.components.reasoning.recorded import read_questions

    questions = read_questions(read_split(dataset, "test"), **pool.filters)
    stated = np.array([verifier.features(q.text, c.text, c.answer) for q in questions for c in q.chains])
    inputs = {"stated": stated.astype(np.float64), "evidence": verifier.evidence(questions)}
    if embed:
        inputs["encoder"] = _embedded(questions, device)
    with new_artifact() as (folder, artifact):
        save_file(inputs, folder / INPUTS)
    return artifact


@cached_task(name="score_chains", task_run_name="score_chains-{how}-seed{seed}")
def score_chains(
    dataset: DatasetArtifact, pool: Pool, how: str, described: Artifact | None, folds: int, share: float, seed: int
) -> ScoresArtifact:
    """Points of every chain by an offline judge that sees no gold answer of a question it judges.

    Args:
        how: "letters", "arithmetic" (programs), "trees", "pairwise" (verifiers on what the chain states), "encoder"
            (pairwise, with MiniLM's embeddings of question and chain) or "evidence" (trees, with the agreement of the
            other chains: votes by the back door, for comparison only).
        described: from `describe_chains`; None where the judge is a program.
        folds: of the questions, for verifiers and the models' priors.
        share: of the training questions, for learning curves.
    """
    import numpy as np
    from safetensors.numpy import load_file

    from paperflows.components.reasoning import steps, verifier
    from paperflows.components.reasoning.recorded import read_questions

    questions = read_questions(read_split(dataset, "test"), **pool.filters)
    right = verifier.correct(questions, pool.answer)
    if described is None:
        judge = steps.score_letters if how == "letters" else steps.score_arithmetic
        points = np.array([judge(q.text, c.text, c.answer) for q in questions for c in q.chains], dtype=np.float64)
        probability = points / 10
    else:
        known = load_file(open_artifact(described) / INPUTS)
        inputs = np.concatenate([known["stated"], known[how]], axis=1) if how in known else known["stated"]
        method: Literal["trees", "pairwise"] = "pairwise" if how in ("pairwise", "encoder") else "trees"
        scores = verifier.out_of_fold(questions, inputs, right, method=method, folds=folds, seed=seed, share=share)
        points = verifier.to_points(scores)
        fold = verifier.fold_of_chains(questions, folds, seed)
        probability = scores if method == "trees" else verifier.calibrate(scores, right, fold)
    return _store_scores(questions, right, points, probability, folds, seed, how)


@cached_task(name="score_read_chains", task_run_name="score_read_chains-seed{seed}")
def score_read_chains(dataset: DatasetArtifact, pool: Pool, folds: list[Artifact], seed: int) -> ScoresArtifact:
    """Points and probabilities of all chains from the scores of each fold, as `read_chains` gives them."""
    import numpy as np
    from safetensors.numpy import load_file

    from paperflows.components.reasoning import verifier
    from paperflows.components.reasoning.recorded import read_questions

    questions = read_questions(read_split(dataset, "test"), **pool.filters)
    right, fold = verifier.correct(questions, pool.answer), verifier.fold_of_chains(questions, len(folds), seed)
    scores = np.zeros(len(fold))
    for number, part in enumerate(folds):
        scores[fold == number] = load_file(open_artifact(part) / READ)["scores"]
    scores = verifier.align(scores, fold)
    chance = verifier.calibrate(scores, right, fold)
    return _store_scores(questions, right, verifier.to_points(scores), chance, len(folds), seed, "cross_encoder")


@cached_task(name="group_by_topic")
def group_by_topic(dataset: DatasetArtifact, pool: Pool, limit: int) -> Artifact:
    """The topic of each question, by number: questions that share a context are no independent evidence.

    Args:
        limit: questions, the first ones.
    """
    import numpy as np
    from safetensors.numpy import save_file

    from paperflows.components.reasoning.recorded import read_questions

    questions = read_questions(read_split(dataset, "test"), **pool.filters)[:limit]
    topics = np.unique([question.topic for question in questions], return_inverse=True)[1]
    with new_artifact() as (folder, artifact):
        save_file({dataset["name"]: topics}, folder / GROUPS)
    return artifact


def _store_scores(
    questions: Any, right: Any, points: Any, probability: Any, folds: int, seed: int, how: str
) -> ScoresArtifact:
    """A judge's points (N,) and probabilities (N,) of all chains, with the models' priors where there are several."""
    import numpy as np
    from safetensors.numpy import save_file

    from paperflows.components.reasoning import model_prior, verifier

    given = {"points": points, "probability": np.ascontiguousarray(probability)}
    if (prior := model_prior.out_of_fold(questions, right, folds=folds, seed=seed)) is not None:
        given["prior"] = prior
    with new_artifact() as (folder, artifact):
        save_file(given, folder / SCORES)
    return ScoresArtifact(**artifact, auc=verifier.auc(points, right), how=how)


def _embedded(questions: Any, device: str) -> Any:
    """(N, 2D) MiniLM embeddings of each chain, and their product with the question's."""
    import numpy as np

    from paperflows.components.models.encoder import load_encoder

    encoder = load_encoder("minilm", device=device, max_length=160)
    chains = encoder.embed([c.text for q in questions for c in q.chains]).numpy()
    asked = encoder.embed([q.text for q in questions]).numpy()
    asked = np.repeat(asked, [len(q.chains) for q in questions], axis=0)
    return np.concatenate([chains, chains * asked], axis=1).astype(np.float64)
