"""AI feedback on sentence pairs: a writer makes pairs of graded similarity, a judge scores them."""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from paperflows.components.errors import InputError, ServiceError
from paperflows.tasks.annotators import Annotator, open_judge, open_writer
from paperflows.tasks.data import DatasetArtifact, read_rows, read_sentences, read_split
from paperflows.tasks.environment import state_folder
from paperflows.tasks.policy import cached_task, current_key
from paperflows.tasks.progress import progress
from paperflows.tasks.store import Artifact, new_artifact, open_artifact

SHARD = 1000  # pairs between two checkpoints of the annotation


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
    write, write_usage = open_writer(writer, masked_lm, device, work, opened)
    score, judge_usage = open_judge(judge, device, work, opened)

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
    rows = read_split(dataset, "train")
    low, high = min(r["score"] for r in rows), max(r["score"] for r in rows)
    with new_artifact() as (folder, artifact):
        scaled = [
            {"text": r["text"], "text_pair": r["text_pair"], "score": (r["score"] - low) / (high - low)} for r in rows
        ]
        _write_rows(folder / "pairs.jsonl", scaled)
    return artifact


def _write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    from paperflows.components.data.jsonl import write_jsonl

    write_jsonl(path, rows)


def _named(stage: str, usage: Mapping[str, float]) -> dict[str, float]:
    return {f"{stage}.{name}": float(value) for name, value in usage.items()}
