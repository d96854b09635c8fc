"""Trained models with exits in a folder: config, tokenizer, labels, safetensors weights."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

from paperflows.components.early_exit.encoder import ExitEncoder
from paperflows.components.early_exit.exits import MultiExitClassifier
from paperflows.components.early_exit.token_exit import MultiExitTagger
from paperflows.components.models.pretrained import load_tokenizer

NOTE = "exits.json"
WEIGHTS = "exits.safetensors"


def save_model(model: nn.Module, tokenizer: Any, labels: list[str], folder: Path, **note: Any) -> None:
    """Write everything that loading needs; `note` holds what the weights do not tell."""
    encoder: Any = model.encoder
    encoder.encoder.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_file({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}, folder / WEIGHTS)
    told = {"labels": labels, "depth": encoder.depth, **note}
    (folder / NOTE).write_text(json.dumps(told) + "\n", encoding="utf-8")


def load_classifier(
    folder: Path, *, depth: int | None = None, freeze_embeddings: bool = True, freeze_encoder: bool = False
) -> tuple[MultiExitClassifier, Any, list[str]]:
    """Model in evaluation mode, tokenizer and labels.

    Args:
        depth: layers and exits kept, the first ones; None keeps all.
        freeze_embeddings: leave the embeddings out of the training.
        freeze_encoder: leave everything but the exits below the last, and the confidence head, out of the training.
    """
    note, tokenizer, encoder = _parts(folder)
    model = MultiExitClassifier(encoder, outputs=max(1, len(note["labels"])), pooling=note["pooling"])
    model.load_state_dict(load_file(folder / WEIGHTS))
    if depth is not None:
        model.cut(depth)
    encoder.encoder.embeddings.requires_grad_(not freeze_embeddings)
    if freeze_encoder:
        encoder.requires_grad_(False)
        model.exits[-1].requires_grad_(False)
    return model.eval(), tokenizer, note["labels"]


def load_tagger(folder: Path, *, freeze_embeddings: bool = True) -> tuple[MultiExitTagger, Any, list[str]]:
    """Model in evaluation mode, tokenizer and tags; `freeze_embeddings` leaves them out of the training."""
    note, tokenizer, encoder = _parts(folder)
    model = MultiExitTagger(encoder, outputs=len(note["labels"]))
    model.load_state_dict(load_file(folder / WEIGHTS))
    encoder.encoder.embeddings.requires_grad_(not freeze_embeddings)
    return model.eval(), tokenizer, note["labels"]


def _parts(folder: Path) -> tuple[dict[str, Any], Any, ExitEncoder]:
    from transformers import AutoConfig, AutoModel

    note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    tokenizer = load_tokenizer(str(folder))
    bare = AutoModel.from_config(AutoConfig.from_pretrained(folder))
    encoder = ExitEncoder(
        bare, depth=note["depth"], frozen=note.get("frozen", "copy"), separator=tokenizer.sep_token_id
    )
    return note, tokenizer, encoder
