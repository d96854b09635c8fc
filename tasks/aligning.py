"""One model over text and media tokens: a text LM, its alignment on pairs, its tuning on conversations."""

import random
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from paperflows.components.errors import InputError
from paperflows.tasks.data import DatasetArtifact, read_rows, read_split
from paperflows.tasks.media import TokenizedArtifact, open_tokenizer
from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import Artifact, new_artifact, open_artifact
from paperflows.tasks.training import ModelArtifact, fit

TINY = "tiny"
ORDER = ("picture", "speech", "music", "drawing")  # of the blocks in every vocabulary


class FittedArtifact(ModelArtifact):
    """A trained model, and how many examples of which kind were longer than a row, so that it never saw them."""

    too_long: dict[str, int]


class Mixture(BaseModel):
    """Which directions a model is aligned on, and how often each is seen."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    modalities: tuple[Literal["picture", "speech", "music", "drawing"], ...] = Field(
        min_length=1, description="Read and written"
    )
    directions: tuple[str, ...] | None = Field(
        None, description="Only these, such as picture_to_text; empty for both ways"
    )
    balanced: bool = Field(True, description="Each direction as often as any other; else in proportion to its pairs")
    marks: bool = Field(True, description="Begin and end tokens around a block of media")

    def chosen(self) -> list[str]:
        """Its directions in order."""
        if self.directions is not None:
            return list(self.directions)
        return [d for m in ORDER if m in self.modalities for d in (f"{m}_to_text", f"text_to_{m}")]


def modality_of(direction: str) -> str:
    """`text_to_speech` -> `speech`."""
    return direction.removeprefix("text_to_").removesuffix("_to_text")


@cached_task(name="train_text_lm")
def train_text_lm(
    texts: DatasetArtifact, tokenized: list[TokenizedArtifact], sizes: dict[str, int], training: dict[str, Any],
    seed: int, device: str,
) -> FittedArtifact:  # fmt: skip
    """The language model before any medium: a tiny decoder trained on plain texts.

    Args:
        sizes: of `tiny_decoder`; `vocabulary` is that of the text tokenizer, learnt from the texts, the captions of the
            training splits and the instructions.
        training: texts (at most), steps, batch_size, learning_rate.

    Raises:
        InputError: no text fits in the model's positions.
    """
    from paperflows.components.models.tiny_decoder import tiny_decoder
    from paperflows.components.multimodal.conversations import all_words
    from paperflows.components.multimodal.dialogue import Tokens, wordings
    from paperflows.components.multimodal.packing import collate, weights_of
    from paperflows.components.multimodal.vocabulary import Vocabulary, train_text_tokenizer

    plain = [row["text"] for row in read_split(texts, "train")][: training["texts"]]
    captions = [row["caption"] for one in tokenized for row in read_rows(open_artifact(one) / "train.jsonl")]
    asked = [w for one in tokenized for d in _both(one["modality"]) for w in wordings(d)]
    spoken = all_words()
    tokenizer = train_text_tokenizer([*plain, *captions, *asked * 5, *spoken * 5], size=sizes["vocabulary"])
    vocabulary = Vocabulary(tokenizer, {})
    width = sizes["positions"]
    rows = [[*vocabulary.text(text), vocabulary.eom] for text in plain]
    pool = [Tokens(ids, [(0, len(ids))]) for ids in rows if len(ids) <= width]
    if not pool:
        raise InputError(f"dataset {texts['name']!r}: no text fits in {width} tokens (sizes.positions)")
    model = tiny_decoder(**{**sizes, "vocabulary": vocabulary.size}, seed=seed)

    def batch_at(step: int) -> dict[str, Any]:
        draw = random.Random(seed * 1_000_003 + step)
        some = draw.choices(pool, k=training["batch_size"])
        weights = [weights_of(one, "paper", prompt=1.0, answers_only=False) for one in some]
        return collate(some, weights, width=width, pad=vocabulary.pad)

    return _fit(
        "text-lm", training, model, vocabulary, batch_at, training["steps"], training["learning_rate"], seed, device,
        {"text": len(rows) - len(pool)},
    )  # fmt: skip


@cached_task(name="align", task_run_name="align-{name}-seed{seed}")
def align(
    name: str, mixture: Mixture, start: str, text_lm: Artifact | None, tokenized: list[TokenizedArtifact],
    training: dict[str, Any], seed: int, device: str,
) -> FittedArtifact:  # fmt: skip
    """Stage 1: every pair both ways as a dialogue of one turn, in packed rows, all weights trained.

    Args:
        start: `tiny` takes `text_lm`, else a Hugging Face id or folder of a causal LM.
        training: steps (a direction; the joint model takes as many for each of its directions), batch_size (pairs),
            learning_rate, row (tokens), weighting, prompt (loss weight), dropped (text conditions).

    Raises:
        InputError: the mixture names a modality of which there is no data, or no pair of a direction fits in a row.
    """
    import torch

    from paperflows.components.multimodal.dialogue import pair_lengths, pair_sequence
    from paperflows.components.multimodal.packing import collate, weights_of
    from paperflows.components.multimodal.vocabulary import extend_vocabulary

    model, vocabulary = _start(start, text_lm, tokenized, mixture)
    extend_vocabulary(model, vocabulary.size, known=vocabulary.known, seed=seed)
    torch.manual_seed(seed)
    directions = mixture.chosen()
    rows = {one["modality"]: read_rows(open_artifact(one) / "train.jsonl") for one in tokenized}
    pairs, too_long = {}, {}
    for d in directions:
        every = [_pair(d, row) for row in rows[modality_of(d)]]
        lengths = pair_lengths(vocabulary, d, every)
        pairs[d] = [one for one, length in zip(every, lengths, strict=True) if length <= training["row"]]
        too_long[d] = len(every) - len(pairs[d])
        if not pairs[d]:
            raise InputError(
                f"{d}: no pair fits in a row of {training['row']} tokens, the shortest has {min(lengths)} "
                "(alignment.row)"
            )
    sizes = [len(pairs[d]) for d in directions]
    batch = training["batch_size"]

    def batch_at(step: int) -> dict[str, Any]:
        draw = random.Random(seed * 1_000_003 + step)
        if mixture.balanced:
            chosen = [directions[(step * batch + j) % len(directions)] for j in range(batch)]
        else:
            chosen = draw.choices(directions, weights=sizes, k=batch)
        some = [pair_sequence(vocabulary, d, *draw.choice(pairs[d]), draw, dropped=training["dropped"]) for d in chosen]
        weights = [
            weights_of(one, training["weighting"], prompt=training["prompt"], answers_only=False) for one in some
        ]
        return collate(some, weights, width=training["row"], pad=vocabulary.pad)

    steps = training["steps"] * len(directions)
    settings = {"method": name, "seed": seed, **mixture.model_dump(mode="json"), **training}
    return _fit(
        f"{name}-seed{seed}", settings, model, vocabulary, batch_at, steps, training["learning_rate"], seed, device,
        too_long,
    )  # fmt: skip


@cached_task(name="tune_on_conversations", task_run_name="tune-seed{seed}")
def tune_on_conversations(
    model: ModelArtifact, mixture: Mixture, tokenized: list[TokenizedArtifact], conversations: Artifact,
    training: dict[str, Any], seed: int, device: str,
) -> FittedArtifact:  # fmt: skip
    """Stage 2: the conversations with their media as tokens, loss on the assistant's messages alone.

    Args:
        training: steps, batch_size (conversations), learning_rate, row (tokens), weighting.

    Raises:
        InputError: no conversation fits in a row.
    """
    import torch

    from paperflows.components.multimodal.dialogue import dialogue
    from paperflows.components.multimodal.packing import collate, weights_of
    from paperflows.tasks.synthesis import read_conversations

    network, vocabulary = open_model(model, tokenized, mixture)
    tokenizers = {one["modality"]: open_tokenizer(one) for one in tokenized}
    found = [dialogue(vocabulary, turns) for turns in read_conversations(conversations, tokenizers)]
    pool = [one for one in found if len(one.ids) <= training["row"]]
    if not pool:
        raise InputError(f"no conversation fits in a row of {training['row']} tokens (tuning.row)")
    torch.manual_seed(seed)

    def batch_at(step: int) -> dict[str, Any]:
        some = random.Random(seed * 1_000_003 + step).choices(pool, k=training["batch_size"])
        weights = [weights_of(one, training["weighting"], prompt=0.0, answers_only=True) for one in some]
        return collate(some, weights, width=training["row"], pad=vocabulary.pad)

    settings = {"method": "tuned", "seed": seed, "conversations": len(pool), **training}
    return _fit(
        f"tuned-seed{seed}", settings, network, vocabulary, batch_at, training["steps"], training["learning_rate"],
        seed, device, {"conversation": len(found) - len(pool)},
    )  # fmt: skip


def open_model(model: ModelArtifact, tokenized: list[TokenizedArtifact], mixture: Mixture) -> tuple[Any, Any]:
    """A stored model in eval mode and its vocabulary."""
    return _open(str(open_artifact(model)), tokenized, mixture)


def _open(place: str, tokenized: list[TokenizedArtifact], mixture: Mixture) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM

    from paperflows.components.models.pretrained import load_pretrained, load_tokenizer
    from paperflows.components.multimodal.vocabulary import Vocabulary

    by_name = {one["modality"]: one for one in tokenized}
    if missing := [m for m in mixture.modalities if m not in by_name]:
        raise InputError(f"models: a mixture names {', '.join(missing)}, of which the source has no dataset")
    tokenizers: dict[str, Any] = {m: open_tokenizer(by_name[m]) for m in ORDER if m in mixture.modalities}
    vocabulary = Vocabulary(load_tokenizer(place), tokenizers, marks=mixture.marks)
    return load_pretrained(AutoModelForCausalLM, place).eval(), vocabulary


def _start(
    start: str, text_lm: Artifact | None, tokenized: list[TokenizedArtifact], mixture: Mixture
) -> tuple[Any, Any]:
    if start == TINY and text_lm is None:
        raise InputError("model tiny needs a text LM trained before")
    place = str(open_artifact(text_lm)) if start == TINY and text_lm is not None else start
    model, vocabulary = _open(place, tokenized, mixture)
    if not hasattr(model, "model") or not hasattr(model, "lm_head"):
        raise InputError(f"model {start!r}: expected a Llama-like decoder (a body `model` and a head `lm_head`)")
    return model.train(), vocabulary


def _fit(
    name: str, settings: dict[str, Any], model: Any, vocabulary: Any, batch_at: Any, steps: int, learning_rate: float,
    seed: int, device: str, too_long: dict[str, int],
) -> FittedArtifact:  # fmt: skip
    from paperflows.components.multimodal.packing import weighted_loss

    done = fit(name, settings, model, batch_at, weighted_loss, steps, learning_rate, seed, device)
    with new_artifact() as (folder, artifact):
        model.cpu().save_pretrained(folder)
        vocabulary.tokenizer.save_pretrained(folder)
    return FittedArtifact(**artifact, name=name, score=None, history=done.history, too_long=too_long)


def _pair(direction: str, row: dict[str, Any]) -> tuple[Any, Any]:
    medium, words = (modality_of(direction), row["ids"]), ("text", row["caption"])
    return (medium, words) if direction.endswith("_to_text") else (words, medium)


def _both(modality: str) -> tuple[str, str]:
    return f"{modality}_to_text", f"text_to_{modality}"
