"""A trained multi-exit classifier in a folder: config, tokenizer, labels, safetensors weights."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from paperflows.components.early_exit.encoder import ExitEncoder
from paperflows.components.early_exit.exits import MultiExitClassifier
from paperflows.components.models.pretrained import load_tokenizer

NOTE = "exits.json"
WEIGHTS = "exits.safetensors"


def save_classifier(model: MultiExitClassifier, tokenizer: Any, labels: list[str], folder: Path) -> None:
    """Write everything `load_classifier` needs."""
    model.encoder.encoder.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_file({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}, folder / WEIGHTS)
    note = {"labels": labels, "depth": model.encoder.depth, "pooling": model.pooling}
    (folder / NOTE).write_text(json.dumps(note) + "\n", encoding="utf-8")


def load_classifier(
    folder: Path, *, depth: int | None = None, freeze_encoder: bool = False
) -> tuple[MultiExitClassifier, Any, list[str]]:
    """Model in evaluation mode, tokenizer and labels.

    Args:
        depth: layers and exits kept, the first ones; None keeps all.
        freeze_encoder: leave everything but the exits below the last, and the confidence head, out of the training.
    """
    from transformers import AutoConfig, AutoModel

    note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    tokenizer = load_tokenizer(str(folder))
    bare = AutoModel.from_config(AutoConfig.from_pretrained(folder))
    encoder = ExitEncoder(bare, depth=note["depth"], separator=tokenizer.sep_token_id)
    model = MultiExitClassifier(encoder, outputs=max(1, len(note["labels"])), pooling=note["pooling"])
    model.load_state_dict(load_file(folder / WEIGHTS))
    if depth is not None:
        model.cut(depth)
    encoder.encoder.embeddings.requires_grad_(False)
    if freeze_encoder:
        encoder.requires_grad_(False)
        model.exits[-1].requires_grad_(False)
    return model.eval(), tokenizer, note["labels"]
