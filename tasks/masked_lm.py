"""Masked language models: small ones trained from nothing, pretrained ones fetched."""

from typing import Any

from paperflows.components.errors import ServiceError
from paperflows.tasks.data import DatasetArtifact, read_sentences, read_split
from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import Artifact, new_artifact, open_artifact
from paperflows.tasks.training import ModelArtifact, fit

HELD_OUT = 200  # sentences that a masked LM is scored on and that its training does not see


@cached_task(name="train_masked_lm", task_run_name="train_masked_lm")
def train_masked_lm(
    sentences: Artifact,
    width: int,
    layers: int,
    heads: int,
    vocab_size: int,
    max_length: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    device: str,
    characters: int = 1000,
) -> ModelArtifact:
    """A BERT with its own WordPiece vocabulary, trained on `sentences` with the masked-language-model loss.

    Args:
        characters: most of them in the vocabulary; some thousands give a character encoder for Chinese.
    """

    from paperflows.components.models.tiny_bert import tiny_bert, train_wordpiece

    texts = read_sentences(sentences)
    tokenizer = train_wordpiece(texts, vocab_size=vocab_size, characters=characters)
    tokenizer.model_max_length = max_length
    model = tiny_bert(
        vocab_size=len(tokenizer), width=width, layers=layers, heads=heads, positions=max_length, seed=seed
    )
    batch_at = _masked_batches(texts, tokenizer, max_length, batch_size, seed)

    settings = {"width": width, "layers": layers, "steps": steps, "learning_rate": learning_rate, "seed": seed}
    done = fit("masked_lm", settings, model, batch_at, _loss, steps, learning_rate, seed, device)
    with new_artifact() as (folder, artifact):
        model.save_pretrained(folder)  # type: ignore[operator]
        tokenizer.save_pretrained(folder)
    return ModelArtifact(**artifact, name="masked_lm", score=None, history=done.history)


@cached_task(name="fetch_masked_lm", retries=2, retry_on=(ServiceError,))
def fetch_masked_lm(model: str) -> ModelArtifact:
    """A pretrained masked LM (folder or Hugging Face id) with its tokenizer, stored as safetensors."""
    from transformers import AutoModelForMaskedLM

    from paperflows.components.models.pretrained import load_pretrained, load_tokenizer

    with new_artifact() as (folder, artifact):
        load_pretrained(AutoModelForMaskedLM, model).save_pretrained(folder)
        load_tokenizer(model).save_pretrained(folder)
    return ModelArtifact(**artifact, name=model, score=None, history=[])


@cached_task(name="adapt_masked_lm", task_run_name="adapt_masked_lm")
def adapt_masked_lm(
    model: str,
    sentences: Artifact,
    max_length: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    encoder_rate: float,
    seed: int,
    device: str,
) -> ModelArtifact:
    """A masked LM of the pretrained encoder `model`: a head where it lacks one, trained on unlabelled sentences.

    Its `score` is the accuracy on masked tokens of sentences that the training did not see.

    Args:
        encoder_rate: factor on the learning rate of the encoder; 0 leaves it as it is, and so do 0 steps.
    """

    from paperflows.components.models.masked_lm_head import masked_accuracy, with_masked_lm_head
    from paperflows.components.models.pretrained import load_tokenizer

    built, _ = with_masked_lm_head(model, seed=seed)
    bert: Any = built
    tokenizer = load_tokenizer(model)
    texts = read_sentences(sentences)
    held, texts = texts[:HELD_OUT], texts[HELD_OUT:]
    batch_at = _masked_batches(texts, tokenizer, max_length, batch_size, seed)
    if not encoder_rate:
        bert.base_model.requires_grad_(False)

    history: list[dict[str, float]] = []
    if steps:
        settings = {"model": model, "steps": steps, "learning_rate": learning_rate, "seed": seed}
        done = fit(
            "adapt_masked_lm", settings, bert, batch_at, _loss, steps, learning_rate, seed, device,
            rates={f"{bert.base_model_prefix}.": encoder_rate},
        )  # fmt: skip
        history = done.history
    score, _ = masked_accuracy(bert, tokenizer, held, max_length=max_length, seed=seed)
    with new_artifact() as (folder, artifact):
        bert.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return ModelArtifact(**artifact, name="masked_lm", score=score, history=history)


@cached_task(name="score_masked_lm")
def score_masked_lm(model: Artifact, data: list[DatasetArtifact], max_length: int) -> dict[str, float]:
    """A masked LM on texts of the validation splits of `data`, which `collect_sentences` never gives to a training.

    Returns:
        "accuracy" on masked tokens, and "most_frequent": that of always naming the most frequent of them.
    """
    import random

    from transformers import AutoModelForMaskedLM

    from paperflows.components.models.masked_lm_head import masked_accuracy
    from paperflows.components.models.pretrained import load_pretrained, load_tokenizer

    folder = str(open_artifact(model))
    texts = sorted({row["text"] for d in data if "validation" in d["rows"] for row in read_split(d, "validation")})
    random.Random(0).shuffle(texts)
    accuracy, most_frequent = masked_accuracy(
        load_pretrained(AutoModelForMaskedLM, folder), load_tokenizer(folder), texts[:HELD_OUT],
        max_length=max_length, seed=0,
    )  # fmt: skip
    return {"accuracy": accuracy, "most_frequent": most_frequent}


def _masked_batches(texts: list[str], tokenizer: Any, max_length: int, batch_size: int, seed: int) -> Any:
    """Step -> batch of texts of like length with 15 % of their tokens masked, by step and seed alone."""
    import torch

    from paperflows.components.models.tiny_bert import mask_tokens
    from paperflows.components.training.batching import Batches, TokenTable

    table = TokenTable.from_texts(texts, tokenizer, max_length=max_length)
    batches = Batches(batch_size=batch_size, seed=seed, lengths=table.lengths)

    def batch_at(step: int) -> dict[str, Any]:
        rows = batches.at(step)
        ids, mask = table.pad(rows)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        corrupted, labels = mask_tokens(ids, mask, tokenizer=tokenizer, share=0.15, generator=generator)
        return {"tokens": corrupted, "mask": mask, "labels": labels, "ids": rows.tolist()}

    return batch_at


def _loss(model: Any, batch: Any) -> Any:
    from paperflows.components.models.tiny_bert import masked_lm_loss

    return masked_lm_loss(model, batch["tokens"], batch["mask"], batch["labels"])
