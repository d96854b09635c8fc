"""Questions with the passages of a corpus that support each of their answers."""

import random
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from paperflows.components.errors import InputError
from paperflows.tasks.corpora import CorpusArtifact, read_passages
from paperflows.tasks.data import DatasetArtifact, read_rows, read_split
from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import Artifact, new_artifact, open_artifact


class QuestionSet(BaseModel):
    """Questions of one dataset that has passages."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str = Field(description="Name of a question answering dataset with a split passages")
    builtin: bool = Field(False, description="Read from the built-in datasets, whatever the source of the others")
    every: bool = Field(description="Each answer is asked for; else the answers of a row are wordings of one")
    train: str = Field(description="Split that the scorer of support learns from")
    test: str = Field(description="Split that is evaluated")


class QuestionsArtifact(Artifact):
    """`train.jsonl` and `test.jsonl`: text, kind, answers, holders (passages by answer) and links."""

    kinds: dict[str, int]
    left_out: int


@cached_task(name="gather_questions")
def gather_questions(
    sets: list[QuestionSet], datasets: list[DatasetArtifact], corpus: CorpusArtifact, most_train: int, most_test: int
) -> QuestionsArtifact:
    """Questions of each dataset and kind, and the numbers of the passages that hold each answer.

    A passage without an answer that a row names as support is a link. A question is left out when an answer stands in
    none of its passages, or when a passage is not in the corpus.

    Args:
        datasets: those that the sets name, in the same order.
        most_train: questions of a kind in training, at most; most_test: in the evaluation.

    Raises:
        InputError: no question is left in a split.
    """
    from paperflows.components.data.jsonl import write_jsonl
    from paperflows.components.retrieval.closed_book import holds_answer

    passages = read_passages(corpus)
    numbers: dict[str, list[int]] = {}
    for number, passage in enumerate(passages):
        numbers.setdefault(passage["place"], []).append(number)

    def supported(row: dict[str, Any], name: str, every: bool) -> dict[str, Any] | None:
        groups = [numbers.get(f"{name}/{place}", []) for place in row.get("passages") or ()]
        answers = [[answer] for answer in row["answers"]] if every else [list(row["answers"])]
        inside = [number for group in groups for number in group]
        holders = [[n for n in inside if holds_answer(passages[n]["text"], wordings)] for wordings in answers]
        if not (answers and all(groups) and all(holders)):
            return None
        held = {n for some in holders for n in some}
        links = [group for group in groups if not held & set(group)]
        kind = row.get("relation") or name
        return {"text": row["question"], "kind": kind, "answers": answers, "holders": holders, "links": links}

    found: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    left_out = 0
    for one, data in zip(sets, datasets, strict=True):
        for part, split, most in (("train", one.train, most_train), ("test", one.test, most_test)):
            rows = [supported(row, data["name"], one.every) for row in read_split(data, split)]
            left_out += sum(row is None for row in rows)
            kinds: dict[str, list[dict[str, Any]]] = {}
            for row in filter(None, rows):
                kinds.setdefault(row["kind"], []).append(row)
            for kind, some in kinds.items():
                found[part] += random.Random(f"{data['name']} {part} {kind}").sample(some, min(most, len(some)))
    if not found["train"] or not found["test"]:
        raise InputError(f"no questions with support in the corpus: {', '.join(d['name'] for d in datasets)}")
    with new_artifact() as (folder, artifact):
        for part, some in found.items():
            write_jsonl(folder / f"{part}.jsonl", some)
    counts = {row["kind"]: 0 for row in found["test"]}
    for row in found["test"]:
        counts[row["kind"]] += 1
    return QuestionsArtifact(**artifact, kinds=counts, left_out=left_out)


def read_questions(questions: QuestionsArtifact, part: str) -> list[dict[str, Any]]:
    """The stored questions of `train` or `test`."""
    return read_rows(open_artifact(questions) / f"{part}.jsonl")
