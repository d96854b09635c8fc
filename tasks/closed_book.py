"""What a model answers from memory, and its states."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from paperflows.tasks.policy import cached_task
from paperflows.tasks.requests import RequestsArtifact, read_requests
from paperflows.tasks.store import Artifact, new_artifact
from paperflows.tasks.training import fit


class ClosedBookSettings(BaseModel):
    """The model that answers: an encoder with a memory trained in the flow, or a causal language model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["memory", "causal"] = Field(description="memory: trained in the flow; causal: a transformers LM")
    model: str = Field(description="The encoder (memory) or the LM (causal): minilm, a folder or a Hugging Face id")
    hidden: int = Field(ge=8, description="Units of the memory")
    topics: int = Field(ge=2, description="Clusters of questions")
    share: float = Field(gt=0, lt=1, description="Share of the topics that the model has read about")
    steps: int = Field(ge=1, description="Training steps of the memory")
    batch_size: int = Field(ge=1, description="Questions a step")
    learning_rate: float = Field(gt=0, description="Of the memory")


class KnowledgeArtifact(Artifact):
    """`knowledge.safetensors`: states (N, D), right (N,), confidence (N,) of every request."""

    settings: dict[str, Any]
    measures: dict[str, float]


@cached_task(name="recall_answers", task_run_name="recall_answers-{settings.kind}")
def recall_answers(
    requests: RequestsArtifact, settings: ClosedBookSettings, seed: int, device: str
) -> KnowledgeArtifact:
    """What the model answers from memory: which factual questions it gets right, how sure it is, and its states."""
    import numpy as np
    from safetensors.numpy import save_file

    rows = read_requests(requests)
    facts = np.array([row["kind"] == "facts" for row in rows])
    recall = _recall_by_memory if settings.kind == "memory" else _recall_by_language_model
    with new_artifact() as (folder, artifact):
        states, right, confidence, measures = recall(rows, facts, settings, seed, device)
        arrays = {"states": states, "right": right & facts, "confidence": confidence}
        save_file(
            {name: np.ascontiguousarray(value) for name, value in arrays.items()}, folder / "knowledge.safetensors"
        )
    measures["known"] = float(right[facts].mean())
    return KnowledgeArtifact(**artifact, settings=settings.model_dump(), measures=measures)


def _recall_by_memory(
    rows: list[dict[str, Any]], facts: Any, settings: ClosedBookSettings, seed: int, device: str
) -> Any:
    import numpy as np
    import torch
    from torch.nn import functional as F

    from paperflows.components.models.encoder import load_encoder
    from paperflows.components.retrieval.closed_book import ClosedBook, choose_read, fold, recite
    from paperflows.components.retrieval.dense import encode
    from paperflows.components.training.batching import Batches

    encoder = load_encoder(settings.model, device=device)
    both = encode(encoder, [row["bare"] for row in rows] + [row["text"] for row in rows])  # most are the same text
    bare, dressed = torch.from_numpy(both[: len(rows)]), both[len(rows) :]
    places = np.flatnonzero(facts)
    read = places[choose_read(bare[places].numpy(), topics=settings.topics, share=settings.share, seed=seed)]
    first = [fold(rows[i]["answers"][0]) for i in read]
    known = {answer: number for number, answer in enumerate(dict.fromkeys(first))}
    targets = torch.tensor([known[answer] for answer in first])
    torch.manual_seed(seed)
    model = ClosedBook(bare.shape[1], settings.hidden, len(known))
    batches, inputs = Batches(batch_size=settings.batch_size, seed=seed, n=len(read)), bare[torch.from_numpy(read)]

    def batch_at(step: int) -> dict[str, Any]:
        some = torch.from_numpy(batches.at(step))
        return {"inputs": inputs[some], "targets": targets[some]}

    def loss(m: Any, batch: dict[str, Any]) -> Any:
        return F.cross_entropy(m(batch["inputs"]), batch["targets"])

    fit(
        "closed_book",
        settings.model_dump(),
        model,
        batch_at,
        loss,
        settings.steps,
        settings.learning_rate,
        seed,
        device,
    )
    model.cpu()
    said, confidence = recite(model, bare)
    named = list(known)
    right = np.array([named[a] in map(fold, row["answers"]) for a, row in zip(said, rows, strict=True)])
    unread = np.setdiff1d(places, read)
    measures = {"read": len(read) / len(places), "known_of_read": float(right[read].mean())}
    return dressed, right, confidence, measures | {"known_of_unread": float(right[unread].mean())}


def _recall_by_language_model(
    rows: list[dict[str, Any]], facts: Any, settings: ClosedBookSettings, seed: int, device: str
) -> Any:
    import numpy as np

    from paperflows.components.retrieval.causal import CausalReader
    from paperflows.components.retrieval.closed_book import holds_answer

    reader = CausalReader(settings.model, device=device)
    said, confidence = reader.answers([row["bare"] for row in rows])
    right = np.array([holds_answer(text, row["answers"]) for text, row in zip(said, rows, strict=True)])
    return reader.states([row["text"] for row in rows]), right, confidence, {}


def open_model(settings: Mapping[str, Any], device: str) -> Any:
    """texts -> (N, D) states of the model that the heads stand on; `RetrievalDecider` takes it.

    Args:
        settings: `kind` and `model` of `ClosedBookSettings`.
    """
    if settings["kind"] == "causal":
        from paperflows.components.retrieval.causal import CausalReader

        return CausalReader(settings["model"], device=device).states
    from paperflows.components.models.encoder import load_encoder
    from paperflows.components.retrieval.dense import encode

    encoder = load_encoder(settings["model"], device=device)
    return lambda texts: encode(encoder, texts)
