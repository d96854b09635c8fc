"""Media of a dataset in the store, and the tokenizers learnt from their training splits."""

import random
from pathlib import Path
from typing import Any

from paperflows.components.errors import InputError
from paperflows.tasks.data import _state_of, read_rows
from paperflows.tasks.policy import cached_task
from paperflows.tasks.remarks import remark
from paperflows.tasks.store import Artifact, new_artifact, open_artifact
from paperflows.tasks.training import fit

TASKS = {"picture": "image", "drawing": "image", "speech": "speech", "music": "music"}
RATE = 8_000
SIDE = 32  # of a drawing


class MediaArtifact(Artifact):
    """Signals (`<split>.safetensors`) and their captions (`<split>.jsonl`) of one modality.

    `classes`: facet -> how many values it has in the training captions.
    """

    name: str
    modality: str
    content: str
    rows: dict[str, int]
    classes: dict[str, int]
    left_out: int
    warnings: list[str]


class TokenizedArtifact(Artifact):
    """A tokenizer (its weights and `settings.json`) and the ids of every item it was given."""

    modality: str
    n_ids: int
    perplexity: float
    length: float


def load_media(source: str, name: str, modality: str, bars: int) -> MediaArtifact:
    """Read, check and store a dataset of one modality (task `load_media`); a folder's files are looked at each time.

    Args:
        modality: picture, speech, music or drawing.
        bars: whole bars kept of a tune.

    Raises:
        InputError: unknown name, another task type, or a file that is no picture or sound.
    """
    loaded: MediaArtifact = _load_media(source, name, modality, bars, _state_of(source, name))
    for warning in loaded["warnings"]:
        remark(f"{name}: {warning}.")
    return loaded


@cached_task(name="load_media", task_run_name="load_media-{modality}")
def _load_media(source: str, name: str, modality: str, bars: int, state: str) -> MediaArtifact:
    from paperflows.components.data.jsonl import write_jsonl
    from paperflows.components.data.sources import load
    from paperflows.components.multimodal.captions import FACETS, NO_TONE, caption, facets

    data = load(source, name)
    if data.task != TASKS[modality]:
        raise InputError(f"dataset {name!r} of {source} is {data.task}; {modality} needs {TASKS[modality]}")
    left_out = 0
    with new_artifact() as (folder, artifact):
        kept: dict[str, int] = {}
        for split, rows in data.splits.items():
            signals = [_signal(data, row, modality, bars) for row in rows]
            good = [i for i, signal in enumerate(signals) if signal is not None]
            random.Random(0).shuffle(good)  # so that the first N are a fair sample
            left_out += len(rows) - len(good)
            if not good:
                raise InputError(f"dataset {name!r}, split {split}: no item can be read as {modality}")
            kept[split] = len(good)
            write_jsonl(folder / f"{split}.jsonl", [{**rows[i], "caption": caption(modality, rows[i])} for i in good])
            write_signals(folder / f"{split}.safetensors", modality, [signals[i] for i in good])
    found = [facets(modality, caption(modality, row)) for row in data.splits.get("train", ())]
    without = {"tone": {NO_TONE}}
    classes = {facet: len({one[facet] for one in found} - without.get(facet, set())) for facet in FACETS[modality]}
    return MediaArtifact(
        **artifact, name=name, modality=modality, content=data.sha256, rows=kept, classes=classes, left_out=left_out,
        warnings=list(data.warnings),
    )  # fmt: skip


def _signal(data: Any, row: dict[str, Any], modality: str, bars: int) -> Any:
    from paperflows.components.data.media import picture_of, sound_of
    from paperflows.components.multimodal.music import NoMelody, excerpt, read_abc

    if modality == "speech":
        return sound_of(data, row, RATE)
    if modality == "music":
        try:
            return excerpt(read_abc(row["abc"], meter=row["meter"], key=row["key"], unit=row.get("unit") or ""), bars)
        except NoMelody:
            return None
    pixels = picture_of(data, row)
    if modality == "drawing" and pixels.shape[:2] != (SIDE, SIDE):
        raise InputError(
            f"dataset {data.name!r}: drawings must be {SIDE} x {SIDE}, {row['image']} is {pixels.shape[:2]}"
        )
    return pixels


def write_signals(path: Path, modality: str, signals: list[Any]) -> None:
    """Pictures as one array, recordings and events as one flat array with their lengths."""
    import numpy as np
    from safetensors.numpy import save_file

    if modality in ("picture", "drawing"):
        shapes = {s.shape for s in signals}
        if len(shapes) > 1:
            raise InputError(f"{modality}: all pictures of a dataset must have one size, got {sorted(shapes)[:3]}")
        save_file({"pixels": np.stack(signals)}, path)
        return
    if modality == "speech":
        flat = [np.clip(s * 32767, -32768, 32767).astype(np.int16) for s in signals]
    else:
        flat = [np.array([(i, e.pitch, e.ticks) for i, bar in enumerate(s) for e in bar], np.int32) for s in signals]
    save_file({"flat": np.concatenate(flat), "lengths": np.array([len(f) for f in flat])}, path)


def read_signals(media: MediaArtifact, split: str) -> tuple[list[dict[str, Any]], list[Any]]:
    """Rows and signals of a split.

    Raises:
        InputError: the dataset has no such split.
    """
    import numpy as np
    from safetensors.numpy import load_file

    from paperflows.components.multimodal.music import Event

    folder = open_artifact(media)
    if split not in media["rows"]:
        raise InputError(f"dataset {media['name']!r} has no split {split} (it has {', '.join(media['rows'])})")
    rows, stored = read_rows(folder / f"{split}.jsonl"), load_file(folder / f"{split}.safetensors")
    if "pixels" in stored:
        return rows, list(stored["pixels"])
    parts = np.split(stored["flat"], np.cumsum(stored["lengths"])[:-1])
    if media["modality"] == "speech":
        return rows, [(part / 32767).astype(np.float32) for part in parts]
    tunes = []
    for part in parts:
        bars: list[list[Event]] = [[] for _ in range(int(part[-1, 0]) + 1)]
        for bar, pitch, ticks in part.tolist():
            bars[bar].append(Event(pitch, ticks))
        tunes.append(bars)
    return rows, tunes


@cached_task(name="train_media_tokenizer", task_run_name="train_tokenizer-{media[modality]}")
def train_media_tokenizer(media: MediaArtifact, settings: dict[str, Any], seed: int, device: str) -> TokenizedArtifact:
    """Learn a modality's tokenizer from the training split alone, and write the ids of all splits.

    Args:
        settings: patch, codes, steps (picture); codes, steps (speech); width, codes, levels, steps, batch_size,
            learning_rate (drawing); nothing for music, whose ids are events.
    """
    import json

    from paperflows.components.data.jsonl import write_jsonl
    from paperflows.components.multimodal.tokenizers import perplexity

    modality = media["modality"]
    _, signals = read_signals(media, "train")
    kind = {
        "modality": modality,
        "shape": list(signals[0].shape) if modality in ("picture", "drawing") else [],
        **settings,
    }
    tokenizer = _build(kind)
    if modality == "drawing":
        _train_drawings(tokenizer, signals, settings, seed, device)
    elif modality != "music":
        tokenizer.fit(signals, steps=settings["steps"], seed=seed)
    with new_artifact() as (folder, artifact):
        tokenizer.save(folder)
        (folder / "settings.json").write_text(json.dumps(kind), encoding="utf-8")
        for split in media["rows"]:
            rows, some = read_signals(media, split)
            ids = tokenizer.encode(some)
            if split == "train":
                use, length = perplexity(ids, tokenizer.n_ids), sum(map(len, ids)) / len(ids)
            write_jsonl(
                folder / f"{split}.jsonl",
                [{"caption": row["caption"], "ids": one} for row, one in zip(rows, ids, strict=True)],
            )
    return TokenizedArtifact(**artifact, modality=modality, n_ids=tokenizer.n_ids, perplexity=use, length=length)


def open_tokenizer(tokenized: TokenizedArtifact) -> Any:
    """The stored tokenizer."""
    import json

    folder = open_artifact(tokenized)
    return _build(json.loads((folder / "settings.json").read_text(encoding="utf-8"))).restore(folder)


def _build(kind: dict[str, Any]) -> Any:
    from paperflows.components.multimodal.music import MusicTokenizer
    from paperflows.components.multimodal.pictures import DrawingTokenizer, PatchTokenizer
    from paperflows.components.multimodal.speech import SpeechTokenizer

    if kind["modality"] == "picture":
        return PatchTokenizer(shape=tuple(kind["shape"]), patch=kind["patch"], codes=kind["codes"])
    if kind["modality"] == "speech":
        return SpeechTokenizer(codes=kind["codes"])
    if kind["modality"] == "music":
        return MusicTokenizer()
    return DrawingTokenizer(
        channels=kind["shape"][2], width=kind["width"], codes=kind["codes"], levels=kind["levels"]
    )  # fmt: skip


def _train_drawings(tokenizer: Any, signals: list[Any], settings: dict[str, Any], seed: int, device: str) -> None:
    import torch

    from paperflows.components.multimodal.pictures import as_tensor, reconstruction_loss
    from paperflows.components.training.batching import Batches

    torch.manual_seed(seed)
    batches = Batches(batch_size=settings["batch_size"], seed=seed, n=len(signals))

    def batch_at(step: int) -> dict[str, Any]:
        return {"pixels": as_tensor([signals[i] for i in batches.at(step)])}

    fit(
        "drawing-tokenizer", settings, tokenizer.model, batch_at, reconstruction_loss, settings["steps"],
        settings["learning_rate"], seed, device,
    )  # fmt: skip
    tokenizer.model.cpu().eval()
