"""Train the scorer of support that selects and verifies passages offline."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from paperflows.components.errors import InputError
from paperflows.tasks.corpora import CorpusArtifact, IndexArtifact, read_passages, shown
from paperflows.tasks.policy import cached_task
from paperflows.tasks.questions import QuestionsArtifact, read_questions
from paperflows.tasks.store import new_artifact, open_artifact
from paperflows.tasks.training import ModelArtifact, fit


class SupportTraining(BaseModel):
    """The cross-encoder that selects and verifies offline."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(description="What it starts from: minilm, a folder or a Hugging Face id")
    layers: int | None = Field(None, ge=1, description="Layers kept; empty keeps all")
    max_length: int = Field(ge=16, le=512, description="Tokens kept of a question with a passage")
    negatives: int = Field(ge=1, description="Wrong passages for each part of a question, from the nearest 20")
    steps: int = Field(ge=1, description="Optimiser steps")
    batch_size: int = Field(ge=1, description="Pairs a step")
    learning_rate: float = Field(gt=0, description="Of the encoder; the heads learn ten times as fast")


class SupportArtifact(ModelArtifact):
    """A scorer of support with the thresholds of `belongs` and `answers`, set on held-out training questions."""

    thresholds: list[float]


@cached_task(name="train_support", task_run_name="train_support-seed{seed}")
def train_support(
    questions: QuestionsArtifact, corpus: CorpusArtifact, index: IndexArtifact, settings: SupportTraining, seed: int,
    device: str,
) -> SupportArtifact:  # fmt: skip
    """A cross-encoder that says whether a passage belongs to what a part asks, answers it, and helps the question.

    No passage that supports an evaluated question is read. One training question in eight is held out, and the
    thresholds are those of the best F1 (belongs) and F0.5 (answers) on its pairs.

    Raises:
        InputError: no right or no wrong pair is left to learn from, or to set the thresholds on.
    """
    import numpy as np
    import torch
    from torch.nn import functional as F

    from paperflows.components.retrieval.cross_encoder import new_cross_encoder
    from paperflows.components.retrieval.names import TitleLinks
    from paperflows.components.retrieval.support import OUTPUTS as LABELS
    from paperflows.components.retrieval.support import best_f_threshold
    from paperflows.components.retrieval.support_pairs import UNKNOWN, build_pairs, parts_of
    from paperflows.components.training.batching import Batches

    passages, train = read_passages(corpus), read_questions(questions, "train")
    links = TitleLinks(passage["title"] for passage in passages)
    parts = [text for q in train for text in (q["text"], *(parts_of(q, passages, links) if q["links"] else ()))]
    _, cosine, search = similarity(index, device)
    nearest = dict(zip(parts, search(parts, 20), strict=True))
    forbidden = supporting(questions)
    held, read = train[::8], [question for number, question in enumerate(train) if number % 8]
    pairs, checks = (
        build_pairs(some, passages, nearest, forbidden, links, negatives=settings.negatives, seed=seed)
        for some in (read, held)
    )
    for some, use in ((pairs, "to learn from"), (checks, "to set its thresholds on")):
        if not {0, 1} <= {answers for _, _, _, answers, _ in some}:
            raise InputError(
                f"the scorer of support has no right or no wrong passage {use}: of {len(train)} training questions "
                "those passages are left out that support an evaluated question, and one question in eight is held out"
            )
    texts, places = [part for part, *_ in pairs], [place for _, place, *_ in pairs]
    torch.manual_seed(seed)
    model = new_cross_encoder(
        settings.model, outputs=len(LABELS), max_length=settings.max_length, layers=settings.layers
    )
    model.encoder.embeddings.requires_grad_(False)  # a few hundred pairs touch a small part of the vocabulary
    table = model.tokens(texts, [shown(passages[place]) for place in places])
    near = torch.from_numpy(cosine(texts, places))
    labels = torch.tensor([pair[2:] for pair in pairs], dtype=torch.float32)
    batches = Batches(batch_size=settings.batch_size, seed=seed, lengths=table.lengths)

    def batch_at(step: int) -> dict[str, Any]:
        some = batches.at(step)
        ids, mask, types = table.pad(some)
        rows = torch.from_numpy(some)
        return {"ids": ids, "mask": mask, "types": types, "cosine": near[rows], "labels": labels[rows]}

    def loss(m: Any, batch: dict[str, Any]) -> Any:
        logits = m(batch["ids"], batch["mask"], batch["types"], batch["cosine"])
        each = F.binary_cross_entropy_with_logits(logits, batch["labels"].clamp(min=0), reduction="none")
        known = (batch["labels"] != UNKNOWN).float()
        return (each * known).sum() / known.sum()

    done = fit(
        f"support-seed{seed}", settings.model_dump(), model, batch_at, loss, settings.steps, settings.learning_rate,
        seed, device, rates={"head": 10.0, "scale": 100.0},
    )  # fmt: skip
    texts, places = [part for part, *_ in checks], [place for _, place, *_ in checks]
    logits = model.cpu().score(texts, [shown(passages[place]) for place in places], cosine(texts, places))
    truth = np.array([pair[2:] for pair in checks], int).reshape(-1, len(LABELS))
    chance = (1 / (1 + np.exp(-logits))).astype(np.float32)
    known = truth != UNKNOWN
    # a verifier that says yes too early ends the search; one that says no too often only costs a round
    thresholds = [
        best_f_threshold(chance[known[:, i], i], truth[known[:, i], i] == 1, beta=beta)
        for i, beta in enumerate((1.0, 0.5))
    ]
    with new_artifact() as (folder, artifact):
        model.save(folder)
    history = [
        *done.history,
        {"step": float(done.steps), "pairs": float(len(pairs)), "right": float(np.mean(labels.numpy() == 1))},
    ]
    return SupportArtifact(**artifact, name=f"support-seed{seed}", score=None, history=history, thresholds=thresholds)


def supporting(questions: QuestionsArtifact) -> set[int]:
    """Passages that support an evaluated question."""
    rows = read_questions(questions, "test")
    return {place for row in rows for group in (*row["holders"], *row["links"]) for place in group}


def similarity(index: IndexArtifact, device: str) -> tuple[Any, Any, Any]:
    """`encoded(texts, kind)`, their unit vectors as queries or as passages, `cosine(texts, places)` of queries with
    passages, and `search(texts, depth)`, the numbers of those found, best first.

    Each text is encoded once.
    """
    import numpy as np
    from safetensors.numpy import load_file

    from paperflows.components.retrieval.dense import encode, open_dense, passage_encoder

    folder = open_artifact(index)
    vectors, dense = load_file(folder / "vectors.safetensors")["vectors"], open_dense(folder / "dense.faiss")
    encoder = passage_encoder(index["model"], device=device)
    seen: dict[str, dict[str, Any]] = {"query": {}, "passage": {}}

    def encoded(texts: Any, kind: str = "query") -> Any:
        known = seen[kind]
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known.update(zip(new, encode(encoder, new, prefix=index["prefixes"][kind]), strict=True))
        return np.stack([known[text] for text in texts]) if len(texts) else np.zeros((0, vectors.shape[1]), np.float32)

    def cosine(texts: Any, places: Any) -> Any:
        return (encoded(texts) * vectors[np.asarray(places, np.int64)]).sum(1)

    def search(texts: Any, depth: int) -> Any:
        found = dense.search(encoded(texts), depth)[1].tolist() if len(texts) else []
        return [[place for place in row if place >= 0] for row in found]

    return encoded, cosine, search
