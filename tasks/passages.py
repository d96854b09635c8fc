"""Passages of equal length from different kinds of text, for training and scoring language models."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from paperflows.components.errors import InputError
from paperflows.tasks.data import DatasetArtifact, read_split
from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import Artifact, new_artifact

SPLITS = ("train", "validation", "test")


class Corpus(BaseModel):
    """Texts of one kind: a field of a dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str = Field(description="Name of a dataset")
    field: str = Field("text", description="The field that holds the text")

    @property
    def name(self) -> str:
        """The dataset, with the field when it is not `text`."""
        return self.dataset if self.field == "text" else f"{self.dataset}.{self.field}"


class PassagesArtifact(Artifact):
    """`passages.safetensors`: train (P, T + 1), validation.<corpus> and test.<corpus>, and the bytes of each."""

    counts: dict[str, int]
    vocabulary: int


@cached_task(name="build_passages")
def build_passages(
    corpora: list[Corpus], datasets: list[DatasetArtifact], model: str, length: int, train: int, held_out: int,
    batch: int, seed: int,
) -> PassagesArtifact:  # fmt: skip
    """Cut the texts of each corpus and split, joined by line ends, into passages of `length` tokens and one before.

    Passages are drawn evenly over a split. A corpus with fewer than the others has a smaller part of the mix.

    Args:
        datasets: those that the corpora name, in the same order.
        model: tokens are bytes for "tiny", else those of this model's tokenizer.
        length: tokens predicted in a passage.
        train: passages of a corpus, at most.
        held_out: passages of a corpus in validation and in test, at most; cut down to a multiple of `batch`.

    Raises:
        InputError: a corpus lacks a split or the field, or has too little text (corpus and both sizes are named).
    """
    import numpy as np
    from safetensors.numpy import save_file

    from paperflows.components.data.passages import byte_tokens, cut_passages, model_tokens

    tokenise, vocabulary = (byte_tokens, 256) if model == "tiny" else model_tokens(model)
    tensors: dict[str, Any] = {}
    training, counts = [], {}
    for corpus, data in zip(corpora, datasets, strict=True):
        for split in SPLITS:
            texts = _texts(data, split, corpus)
            wanted = train if split == "train" else held_out
            ids, sizes = cut_passages(texts, tokenise, length=length, limit=wanted, seed=seed)
            keep = len(ids) // batch * batch
            if not keep:
                raise InputError(
                    f"corpus {corpus.name}: its {split} split gives {len(ids)} passages of {length} tokens, "
                    f"fewer than one batch of {batch}"
                )
            if split == "train":
                training.append(ids)
                counts[corpus.name] = len(ids)
                continue
            tensors[f"{split}.{corpus.name}"], tensors[f"bytes.{split}.{corpus.name}"] = ids[:keep], sizes[:keep]
    with new_artifact() as (folder, artifact):
        save_file({"train": np.concatenate(training), **tensors}, folder / "passages.safetensors")
    return PassagesArtifact(**artifact, counts=counts, vocabulary=vocabulary)


def _texts(data: DatasetArtifact, split: str, corpus: Corpus) -> list[str]:
    rows = read_split(data, split)
    texts = [row[corpus.field] for row in rows if isinstance(row.get(corpus.field), str)]
    if not texts:
        raise InputError(
            f"dataset {data['name']!r}, split {split}: no row has a text in the field {corpus.field!r} "
            f"(fields: {', '.join(sorted(rows[0]))})"
        )
    return texts
