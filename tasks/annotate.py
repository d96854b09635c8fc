"""AI feedback on sentence pairs: a writer makes pairs of graded similarity, a judge scores them."""

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from paperflows.components.errors import InputError, ServiceError
from paperflows.tasks.data import DatasetArtifact, read_dataset, read_rows, read_sentences
from paperflows.tasks.environment import state_folder
from paperflows.tasks.policy import cached_task, current_key
from paperflows.tasks.progress import progress
from paperflows.tasks.store import Artifact, new_artifact, open_artifact
from paperflows.tasks.tracking import trace_calls

SHARD = 1000  # pairs between two checkpoints of the annotation


class Annotator(BaseModel):
    """Who writes or judges: an offline model of this project, or a language model behind one of its backends."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["offline", "endpoint", "local", "replay", "tiny"] = Field(
        "offline",
        description="offline: the writer is the masked LM trained in the flow, the judge an encoder's cosine; "
        "endpoint: an OpenAI-compatible server; local: a transformers causal LM; replay: recorded completions; "
        "tiny: a small LM folder",
    )
    model: str = Field(
        "minilm", description="encoder (offline judge), model name (endpoint), folder or id (local, tiny)"
    )
    base_url: str | None = Field(None, description="address of the endpoint, such as http://127.0.0.1:8000/v1")
    api_key_variable: str = Field("OPENAI_API_KEY", description="name of the environment variable that holds the key")
    replay_path: str | None = Field(None, description="recorded completions (JSON lines) for kind replay")
    concurrency: int = Field(8, ge=1, le=512, description="requests in flight at once")
    requests_per_minute: int | None = Field(None, ge=1, description="sending limit; empty for none")
    max_requests: int | None = Field(None, ge=1, description="stop before sending more requests than this")
    max_tokens: int | None = Field(None, ge=1, description="stop before more tokens than this, in and out together")
    max_cost: float | None = Field(None, gt=0, description="stop before spending more than this, in USD")
    price_in: float = Field(0.0, ge=0, description="USD per million prompt tokens")
    price_out: float = Field(0.0, ge=0, description="USD per million completion tokens")


class PairsArtifact(Artifact):
    """Annotated pairs (`pairs.jsonl`) and what happened to those that were dropped."""

    counts: dict[str, int]
    usage: dict[str, float]


@cached_task(name="annotate_pairs", retries=2, retry_on=(ServiceError,))
def annotate_pairs(
    sentences: Artifact,
    masked_lm: Artifact,
    writer: Annotator,
    judge: Annotator,
    rates: Sequence[float],
    limit: int,
    identity_share: float,
    random_share: float,
    seed: int,
    device: str,
) -> PairsArtifact:
    """For each sentence and mask rate a written partner and its judged similarity, post-processed as in the paper.

    Work is done in shards kept on disk until the task ends, so that a killed run continues at the first missing one;
    answers of a language model are cached one by one.

    Args:
        limit: sentences annotated, the first ones of `sentences`.
        identity_share, random_share: pairs added with similarity 1 (a sentence and itself) and 0 (two sentences drawn
            at random), as shares of the written pairs.
    """
    from paperflows.components.annotation.filtering import Annotated, post_process
    from paperflows.components.annotation.shards import Shards

    texts = read_sentences(sentences)[:limit]
    jobs = [(text, rate) for rate in rates for text in texts]
    work = state_folder() / "checkpoints" / current_key()
    opened = ExitStack()
    write, write_usage = _writer(writer, masked_lm, device, work, opened)
    score, judge_usage = _judge(judge, device, work, opened)

    def annotate(shard: int, part: list[tuple[str, float]]) -> list[dict[str, Any]]:
        written = write([text for text, _ in part], [rate for _, rate in part], seed * 1_000_003 + shard)
        asked = [i for i, new in enumerate(written) if new]
        judged = dict(zip(asked, score([(part[i][0], str(written[i])) for i in asked]), strict=True))
        rows = []
        for i, (text, rate) in enumerate(part):
            verdict = judged.get(i)
            rows.append(
                {
                    "text": text,
                    "text_pair": written[i],
                    "rate": rate,
                    "score": verdict.score if verdict else None,
                    "explanation": verdict.explanation if verdict else "",
                }
            )
        return rows

    shards = Shards(work, size=SHARD)
    with opened, progress("annotate pairs") as report:
        rows = shards.run(jobs, annotate, on_progress=report)
    annotated = [Annotated(**row) for row in rows]
    kept, counts = post_process(annotated, identity_share=identity_share, random_share=random_share, seed=seed)
    if not kept:
        raise InputError(f"the annotation left no pairs: {counts}")
    with new_artifact() as (folder, artifact):
        _write_rows(folder / "pairs.jsonl", kept)
        for recorded in work.glob("*.completions.jsonl"):
            shutil.copyfile(recorded, folder / recorded.name)
    shutil.rmtree(work, ignore_errors=True)
    return PairsArtifact(
        **artifact, counts=counts, usage={**_named("writer", write_usage), **_named("judge", judge_usage)}
    )


@cached_task(name="harden_labels")
def harden_labels(pairs: Artifact, thresholds: tuple[float, float]) -> Artifact:
    """The same pairs with labels 0, 0.5 and 1 (DINO's grades): below the first threshold, between, above the second."""
    from paperflows.components.annotation.filtering import hard_label

    rows = read_rows(open_artifact(pairs) / "pairs.jsonl")
    with new_artifact() as (folder, artifact):
        hard = [{**row, "score": hard_label(row["score"], *thresholds)} for row in rows]
        _write_rows(folder / "pairs.jsonl", hard)
    return artifact


@cached_task(name="gold_pairs")
def gold_pairs(dataset: DatasetArtifact) -> Artifact:
    """Human-scored pairs of a train split as training pairs, scores mapped to [0, 1] by the split's range."""
    rows = read_dataset(dataset)["train"]
    low, high = min(r["score"] for r in rows), max(r["score"] for r in rows)
    with new_artifact() as (folder, artifact):
        scaled = [
            {"text": r["text"], "text_pair": r["text_pair"], "score": (r["score"] - low) / (high - low)} for r in rows
        ]
        _write_rows(folder / "pairs.jsonl", scaled)
    return artifact


@cached_task(name="score_triplets", retries=2, retry_on=(ServiceError,))
def score_triplets(
    dataset: DatasetArtifact, held_out: list[DatasetArtifact], judge: Annotator, limit: int, device: str
) -> Artifact:
    """NLI triplets (premise, entailed, contradicting) of the train split, with the judge's similarity of the positive.

    Triplets with a sentence of any evaluation split are left out; one the judge cannot score counts as similarity 1.

    Args:
        limit: triplets used, the first ones.
    """
    from paperflows.components.contrastive.objectives import nli_triplets

    forbidden = {
        text.casefold()
        for data in [*held_out, dataset]
        for split, rows in read_dataset(data).items()
        if split != "train"
        for row in rows
        for text in (row["text"], row.get("text_pair") or "")
    }
    found = nli_triplets(read_dataset(dataset)["train"])
    found = [t for t in found if not any(text.casefold() in forbidden for text in t)][:limit]
    if not found:
        raise InputError(f"dataset {dataset['name']!r}: no premise has both an entailment and a contradiction")
    with ExitStack() as opened:
        score, _ = _judge(judge, device, state_folder() / "checkpoints" / current_key(), opened)
        judged = score([(premise, positive) for premise, positive, _ in found])
    with new_artifact() as (folder, artifact):
        rows = [
            {"text": a, "positive": p, "negative": n, "score": 1.0 if j.score is None else j.score}
            for (a, p, n), j in zip(found, judged, strict=True)
        ]
        _write_rows(folder / "triplets.jsonl", rows)
    return artifact


def _writer(
    settings: Annotator, masked_lm: Artifact, device: str, work: Path, opened: ExitStack
) -> tuple[Any, Mapping[str, float]]:
    """`write(sentences, rates, seed)` and its usage counters, filled while it works."""
    if settings.kind == "offline":
        from transformers import AutoModelForMaskedLM

        from paperflows.components.annotation.writers import MLMWriter
        from paperflows.components.models.pretrained import load_pretrained, load_tokenizer

        folder = str(open_artifact(masked_lm))
        model = load_pretrained(AutoModelForMaskedLM, folder)
        return MLMWriter(model, load_tokenizer(folder), device=device).write, {}
    from paperflows.components.annotation.llm import LLMWriter

    llm = _llm(settings, "writer", device, work, opened)
    return LLMWriter(llm, model=settings.model).write, llm.usage.counters


def _judge(settings: Annotator, device: str, work: Path, opened: ExitStack) -> tuple[Any, Mapping[str, float]]:
    """`score(pairs)` and its usage counters."""
    if settings.kind == "offline":
        from paperflows.components.annotation.judges import EncoderJudge
        from paperflows.components.models.encoder import load_encoder

        return EncoderJudge(load_encoder(settings.model, device=device).embed).score, {}
    from paperflows.components.annotation.llm import LLMJudge

    llm = _llm(settings, "judge", device, work, opened)
    return LLMJudge(llm, model=settings.model).score, llm.usage.counters


def _llm(settings: Annotator, stage: str, device: str, work: Path, opened: ExitStack) -> Any:
    """A client whose completions are recorded beside the task's other work and traced to MLflow."""
    from paperflows.components.llm.backends import LLMSettings, open_llm
    from paperflows.components.llm.recording import Recorder

    values = settings.model_dump(exclude={"api_key_variable", "price_in", "price_out"})
    prices = {settings.model: (settings.price_in, settings.price_out)}
    llm = open_llm(
        LLMSettings(**values, prices=prices, cache_path=state_folder() / "completions.sqlite", device=device),
        api_key=os.environ.get(settings.api_key_variable),
        observers=[Recorder(work / f"{stage}.completions.jsonl"), trace_calls(stage)],
    )
    opened.callback(llm.close)
    return llm


def _write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    from paperflows.components.data.jsonl import write_jsonl

    write_jsonl(path, rows)


def _named(stage: str, usage: Mapping[str, float]) -> dict[str, float]:
    return {f"{stage}.{name}": float(value) for name, value in usage.items()}
