"""What the flows on prompts share: their datasets, their encoder, and joined outputs."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import Field, model_validator

from paperflows.flows.params import Section
from paperflows.tasks.data import collect_sentences
from paperflows.tasks.exits import fetch_encoder
from paperflows.tasks.masked_lm import adapt_masked_lm
from paperflows.tasks.prompts import join_tuned


class Corpora(Section):
    """Names of datasets by their part in the flow."""

    tasks: tuple[str, ...] = Field(min_length=1, description="Classification of a text or of a pair")
    timed: str = Field(description="The task whose texts are timed")
    unlabelled: tuple[str, ...] = Field((), description="More texts for a masked-LM head; the tasks' are used too")

    @model_validator(mode="after")
    def _timed(self) -> "Corpora":
        if self.timed not in self.tasks:
            raise ValueError(f"timed: {self.timed} is none of the tasks {', '.join(self.tasks)}")
        return self


class MaskedLM(Section):
    """The masked-LM head of an encoder that lacks one, and how far the encoder goes with it."""

    steps: int = Field(ge=0, description="Masked-LM steps; 0 for a model that brings its head")
    batch_size: int = Field(ge=1, description="Texts a step")
    max_length: int = Field(ge=8, le=512, description="Tokens kept of a text")
    learning_rate: float = Field(gt=0, description="Of the head")
    encoder_rate: float = Field(ge=0, le=1, description="Factor on it for the encoder")
    sentences: int = Field(ge=1, description="Texts used, at most")


class Encoder(Section):
    """The frozen encoder, and how labels are read from it."""

    model: str = Field(description="minilm, a folder or a Hugging Face id of a BERT-like encoder or masked LM")
    head: str = Field(
        pattern="^(sentences|words)$",
        description="sentences: cosine of mean state and labels' sentences; words: label words at the mask",
    )
    masked_lm: MaskedLM = Field(description="Read when head is words")


class Tuning(Section):
    """One method's training; the same budget for all."""

    length: int = Field(ge=1, le=512, description="Vectors of a prompt")
    bottleneck: int = Field(ge=1, description="Width of the generators' and adapters' bottleneck")
    rank: int = Field(ge=1, description="Of LoRA's updates")
    max_length: int = Field(ge=8, le=512, description="Tokens kept of a text")
    steps: int = Field(ge=1, description="Optimiser steps")
    batch_size: int = Field(ge=1, description="Texts a step")
    weight_decay: float = Field(ge=0, description="AdamW's")
    evaluations: int = Field(ge=1, description="Looks at dev over a training; the best weights are kept")


def prepare_encoder(encoder: Encoder, texts: list[Any], held_out: list[Any], device: str, head: str = "") -> Any:
    """The encoder that everything starts from; with label words, one with a trained masked-LM head.

    Args:
        head: instead of the encoder's own.
    """
    if (head or encoder.head) == "sentences":
        return fetch_encoder(encoder.model)
    m = encoder.masked_lm
    corpus = collect_sentences(texts, held_out, 60, m.sentences, 0)
    return adapt_masked_lm(
        encoder.model, corpus, m.max_length, m.steps, m.batch_size, m.learning_rate, m.encoder_rate, 0, device
    )


def with_rates(methods: Iterable[str], rates: Mapping[str, Any]) -> None:
    """Refuse methods whose learning rates are not given.

    Raises:
        ValueError: it names them.
    """
    if missing := sorted(set(methods) - {method for method, some in rates.items() if some}):
        raise ValueError(f"rates: none for {', '.join(missing)}; given for {', '.join(sorted(rates))}")


def notes_on_shots(shots: list[list[Any]]) -> list[str]:
    """Classes too small for the shots asked for."""
    return [
        f"{s['dataset']}: fewer examples than `shots` asks for: "
        + ", ".join(f"{label} has {few} in train and {others} in dev" for label, (few, others) in s["short"].items())
        + "."
        for s in shots[0]
        if s["short"]
    ]  # fmt: skip


def joined(rows: list[list[Any]]) -> list[Any]:
    """For each seed, the outputs on all datasets in one artifact."""
    return [join_tuned([{"path": t["path"], "sha256": t["sha256"]} for t in row]) for row in rows]
