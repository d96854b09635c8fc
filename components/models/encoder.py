"""Sentence encoders: a Hugging Face encoder and a pooling. Letters: N texts, B batch, T tokens, D width."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from paperflows.components.errors import InputError
from paperflows.components.models.pretrained import load_pretrained, load_tokenizer, model_location
from paperflows.components.training.batching import TokenTable, token_budget_batches

log = logging.getLogger(__name__)
Pooling = Literal["mean", "cls"]
POOLING_FILE = "pooling.json"


class SentenceEncoder(nn.Module):
    """An encoder that gives one vector a sentence.

    Args:
        encoder: a transformers encoder whose output has `last_hidden_state` (B, T, D).
        tokenizer: its fast tokenizer.
        pooling: "mean" over the tokens that are not padding, or "cls", the first token.
        max_length: tokens kept of a text.
    """

    def __init__(self, encoder: nn.Module, tokenizer: Any, *, pooling: Pooling, max_length: int = 128) -> None:
        super().__init__()
        self.encoder, self.tokenizer, self.pooling, self.max_length = encoder, tokenizer, pooling, max_length

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, T) token ids and mask -> (B, D) sentence embeddings, not normalised."""
        hidden = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        if self.pooling == "cls":
            return hidden[:, 0]
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(1) / weights.sum(1)

    def tokens(self, texts: Sequence[str]) -> TokenTable:
        """`texts` tokenised for this encoder."""
        return TokenTable.from_texts(texts, self.tokenizer, max_length=self.max_length)

    @torch.inference_mode()
    def embed(self, texts: Sequence[str], *, token_budget: int | None = None) -> Tensor:
        """Embeddings (N, D) float32 on the CPU, in the order of `texts`; each distinct text is encoded once.

        Args:
            token_budget: padded tokens a batch; by default 65,536 on a GPU, and on CPU what keeps a layer's activations
                in its caches: 2,048 at width 384, more for narrower models.
        """
        distinct = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        if not distinct:
            return torch.zeros(0, self.encoder.config.hidden_size)  # type: ignore[union-attr, arg-type]
        device = next(self.parameters()).device
        width: int = self.encoder.config.hidden_size  # type: ignore[union-attr, assignment]
        budget = token_budget or (max(2048, 2048 * 384 // width) if device.type == "cpu" else 65536)
        table = self.tokens(list(distinct))
        training = self.training
        self.eval()
        out: Tensor | None = None
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            for indices in token_budget_batches(table.lengths, budget=budget):
                ids, mask = table.pad(indices)
                vectors = self(ids.to(device), mask.to(device)).float().cpu()
                out = torch.empty(len(distinct), vectors.shape[1]) if out is None else out
                out[torch.from_numpy(indices)] = vectors
        self.train(training)
        assert out is not None
        return out[torch.from_numpy(np.fromiter((distinct[text] for text in texts), dtype=np.int64, count=len(texts)))]

    def save(self, folder: Path) -> None:
        """Write config, safetensors weights, tokenizer and pooling into `folder`."""
        self.encoder.save_pretrained(folder)  # type: ignore[operator]
        self.tokenizer.save_pretrained(folder)
        note = {"pooling": self.pooling, "max_length": self.max_length}
        (folder / POOLING_FILE).write_text(json.dumps(note) + "\n", encoding="utf-8")


def load_encoder(
    model: str,
    *,
    pooling: Pooling | None = None,
    max_length: int = 128,
    device: str = "auto",
    revision: str | None = None,
) -> SentenceEncoder:
    """A sentence encoder by name: `minilm` (offline), a folder written by `SentenceEncoder.save`, or a hub id.

    Args:
        pooling: default: what the model says (its own note, or sentence-transformers' `1_Pooling`), else "mean".
        device: "auto", "cpu" or "cuda".

    Raises:
        InputError: the folder is missing, holds code, has no safetensors or not all of the encoder's weights, or asks
            for another pooling than these.
        ServiceError: the hub cannot be reached.
    """
    from transformers import AutoModel

    note_file = Path(model_location(model)) / POOLING_FILE
    if note_file.is_file():
        note = json.loads(note_file.read_text(encoding="utf-8"))
        pooling, max_length = pooling or note["pooling"], note["max_length"]
    encoder, found = load_pretrained(AutoModel, model, revision=revision, output_loading_info=True)
    absent = sorted(key for key in found["missing_keys"] if not key.startswith("pooler."))
    if absent:
        raise InputError(f"model {model!r}: its weights lack {len(absent)} of the encoder's, {absent[0]} for one")
    if hasattr(encoder, "pooler"):
        encoder.pooler = None  # no pooling here reads it, and a masked LM leaves it at random values
    tokenizer = load_tokenizer(model, revision=revision)
    pooling = pooling or _published_pooling(model, revision) or "mean"
    built = SentenceEncoder(encoder, tokenizer, pooling=pooling, max_length=max_length)
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    return built.to("cuda" if cuda else "cpu").eval()


def _published_pooling(model: str, revision: str | None) -> Pooling | None:
    """What a model made with sentence-transformers says; None where it says nothing, or cannot be asked (a warning)."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    place, name = model_location(model), "1_Pooling/config.json"
    found = Path(place) / name
    if not Path(place).is_dir():
        try:
            found = Path(hf_hub_download(place, name, revision=revision))
        except LocalEntryNotFoundError:  # the weights were in the cache, and the hub is out of reach
            log.warning("model %r: the hub cannot be asked how it pools; mean is assumed", model)
            return None
        except EntryNotFoundError:
            return None
    if not found.is_file():
        return None
    modes = [name for name, used in json.loads(found.read_text(encoding="utf-8")).items() if used is True]
    known: dict[str, Pooling] = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    named = [mode for mode in modes if mode.startswith("pooling_mode_")]
    if len(named) != 1 or named[0] not in known:
        raise InputError(f"model {model!r} pools by {', '.join(named) or 'nothing'}; mean and cls are known")
    return known[named[0]]
