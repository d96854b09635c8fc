"""A corpus of passages from several datasets, its vectors and its indexes."""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from paperflows.components.errors import InputError
from paperflows.tasks.data import DatasetArtifact, read_dataset
from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import Artifact, new_artifact, open_artifact

PASSAGES = "passages.jsonl"


class Prefixes(BaseModel):
    """What an encoder was trained to see before texts; its model card says (E5, BGE), and without it finds less."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    query: str = Field(description="Before a question")
    passage: str = Field(description="Before a passage")


class CorpusArtifact(Artifact):
    """`passages.jsonl`: one line a passage with place (dataset/id of the whole one), title and text."""

    passages: int


class IndexArtifact(Artifact):
    """`dense.faiss`, `vectors.safetensors` (N, D) and the folder `bm25` of a corpus."""

    model: str
    kind: str
    prefixes: dict[str, str]


@cached_task(name="build_corpus")
def build_corpus(
    datasets: list[DatasetArtifact], distractors: list[DatasetArtifact], max_words: int, most: int | None
) -> CorpusArtifact:
    """The passages of `datasets` and all texts of `distractors`, cut at sentence ends; equal texts once.

    Args:
        max_words: of a passage.
        most: passages kept: those that a question needs, then a sample of the others, whatever dataset they are of.
            None keeps all.

    Raises:
        InputError: a dataset has no passages, or a distractor has no text.
    """
    from paperflows.components.data.jsonl import write_jsonl
    from paperflows.components.data.world.hashing import stable_number
    from paperflows.components.retrieval.chunking import chunk

    found: dict[str, dict[str, str]] = {}
    needed: set[str] = set()
    for data in datasets:
        splits = read_dataset(data)
        if "passages" not in splits:
            raise InputError(f"dataset {data['name']!r} has no split passages (it has {', '.join(splits)})")
        for split, rows in splits.items():
            needed |= {
                f"{data['name']}/{place}" for row in rows if split != "passages" for place in row.get("passages") or ()
            }
        for row in splits["passages"]:
            for text in chunk(row["text"], max_words=max_words):
                passage = {"place": f"{data['name']}/{row['id']}", "title": row.get("title") or "", "text": text}
                found.setdefault(text, passage)
    for data in distractors:
        for split, rows in read_dataset(data).items():
            for number, row in enumerate(rows):
                if not row.get("text"):
                    raise InputError(f"dataset {data['name']!r}, split {split}: a row has no text to search in")
                for text in chunk(row["text"], max_words=max_words):
                    found.setdefault(text, {"place": f"{data['name']}/{split}{number}", "title": "", "text": text})
    rows = sorted(found.values(), key=lambda row: (row["place"] not in needed, stable_number(row["text"])))[:most]
    with new_artifact() as (folder, artifact):
        write_jsonl(folder / PASSAGES, rows)
    return CorpusArtifact(**artifact, passages=len(rows))


@cached_task(name="index_corpus")
def index_corpus(corpus: CorpusArtifact, model: str, kind: str, prefixes: Prefixes, device: str) -> IndexArtifact:
    """Encode every passage once, and index it by its vector and by its words."""
    from safetensors.numpy import save_file

    from paperflows.components.retrieval.bm25 import build_bm25
    from paperflows.components.retrieval.dense import build_dense, encode, passage_encoder

    texts = [shown(passage) for passage in read_passages(corpus)]
    vectors = encode(passage_encoder(model, device=device), texts, prefix=prefixes.passage)
    with new_artifact() as (folder, artifact):
        build_bm25(texts).save(folder / "bm25")
        build_dense(vectors, kind).save(folder / "dense.faiss")  # type: ignore[arg-type]
        save_file({"vectors": vectors}, folder / "vectors.safetensors")
    return IndexArtifact(**artifact, model=model, kind=kind, prefixes=prefixes.model_dump())


def read_passages(corpus: CorpusArtifact) -> list[dict[str, Any]]:
    """The passages of a stored corpus, in the order of their numbers."""
    with (open_artifact(corpus) / PASSAGES).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def shown(passage: dict[str, Any]) -> str:
    """A passage as it is indexed and read: its title, then its text."""
    return f"{passage['title']}: {passage['text']}" if passage["title"] else str(passage["text"])
