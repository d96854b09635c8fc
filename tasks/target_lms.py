"""Decoders that are language models of code or of prose before they write records."""

from typing import Any

from paperflows.components.errors import InputError
from paperflows.tasks.data import DatasetArtifact, read_split
from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import Artifact, new_artifact, open_artifact
from paperflows.tasks.training import ModelArtifact, fit

TEXT, VOCABULARY, WEIGHTS = "text.txt", "vocabulary.json", "decoder.safetensors"


@cached_task(name="collect_code")
def collect_code(characters: int) -> Artifact:
    """Source of the running interpreter's standard library, in the order of its files, at most `characters`."""
    import sysconfig
    from pathlib import Path

    root, parts, size = Path(sysconfig.get_paths()["stdlib"]), [], 0
    for path in sorted(root.glob("*.py")):
        text = path.read_text(encoding="utf-8", errors="strict")[: characters - size]
        parts.append(text)
        size += len(text)
        if size >= characters:
            break
    with new_artifact() as (folder, artifact):
        (folder / TEXT).write_text("".join(parts), encoding="utf-8")
    return artifact


@cached_task(name="collect_prose")
def collect_prose(dataset: DatasetArtifact, characters: int) -> Artifact:
    """Texts of a train split, a line each, at most `characters`.

    Raises:
        InputError: the rows hold no text.
    """
    lines = [row["text"] for row in read_split(dataset, "train") if isinstance(row.get("text"), str)]
    if not lines:
        raise InputError(f"dataset {dataset['name']!r}: its rows hold no text to learn a language model from")
    with new_artifact() as (folder, artifact):
        (folder / TEXT).write_text("\n".join(lines)[:characters], encoding="utf-8")
    return artifact


@cached_task(name="learn_vocabulary")
def learn_vocabulary(corpora: list[Artifact], size: int) -> Artifact:
    """One byte-level vocabulary for all corpora, learnt from equal shares of them."""
    from paperflows.components.extraction.targets import train_vocabulary

    texts = [(open_artifact(corpus) / TEXT).read_text(encoding="utf-8") for corpus in corpora]
    least = min(len(text) for text in texts)
    lines = [line for text in texts for line in text[:least].split("\n")]
    with new_artifact() as (folder, artifact):
        train_vocabulary(lines, size=size).save(str(folder / VOCABULARY))
    return artifact


@cached_task(name="train_target_lm", task_run_name="{name}-lm-seed{seed}")
def train_target_lm(
    name: str, corpus: Artifact, vocabulary: Artifact, model: dict[str, Any], steps: int, batch_size: int,
    learning_rate: float, seed: int, device: str,
) -> ModelArtifact:  # fmt: skip
    """Train the decoder alone as a language model of one corpus, before it sees any target.

    Args:
        model: width, layers, heads, positions of the decoder.
    """
    import numpy as np
    import torch
    import torch.nn.functional as F
    from safetensors.torch import save_model

    from paperflows.components.extraction.copy_model import Decoder
    from paperflows.components.training.device import bf16_is_fast

    words = open_vocabulary(vocabulary)
    ids = np.array(words.encode((open_artifact(corpus) / TEXT).read_text(encoding="utf-8")).ids)
    length = min(128, model["positions"])
    if len(ids) <= length * batch_size:
        raise InputError(f"the {name} corpus gives {len(ids)} tokens; one batch needs {length * batch_size}")
    torch.manual_seed(seed)
    decoder = Decoder(vocabulary=words.get_vocab_size(), **model)

    def batch_at(step: int) -> dict[str, Any]:
        starts = np.random.default_rng([seed, step]).integers(0, len(ids) - length, batch_size)
        return {"tokens": torch.from_numpy(ids[starts[:, None] + np.arange(length)]), "ids": starts.tolist()}

    def loss_fn(trained: Any, batch: Any) -> Any:
        with torch.autocast(batch["tokens"].device.type, dtype=torch.bfloat16, enabled=bf16_is_fast(device)):
            said = trained(batch["tokens"][:, :-1])
        return F.nll_loss(said.flatten(0, 1), batch["tokens"][:, 1:].flatten())

    done = fit(
        f"{name}-lm-seed{seed}", {"corpus": name, "steps": steps, "seed": seed}, decoder, batch_at, loss_fn, steps,
        learning_rate, seed, device,
    )  # fmt: skip
    with new_artifact() as (out, artifact):
        save_model(decoder.cpu(), str(out / WEIGHTS))
    return ModelArtifact(**artifact, name=name, score=None, history=done.history)


def open_vocabulary(artifact: Artifact) -> Any:
    """The stored tokenizer."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(open_artifact(artifact) / VOCABULARY))
