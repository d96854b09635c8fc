"""A cross-encoder over (question, passage), for reranking and for judging support.

Letters: B pairs, T tokens, D width, R outputs.
"""

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from paperflows.components.errors import InputError
from paperflows.components.models.pretrained import load_pretrained, load_tokenizer
from paperflows.components.training.batching import TokenTable, token_budget_batches

NOTE = "cross_encoder.json"


class CrossEncoder(nn.Module):
    """Reads a pair at once and gives `outputs` logits, on top of the cosine that a bi-encoder gives the pair.

    The heads start at zero, so that before training the ranking is the bi-encoder's; training learns what a cosine
    misses.

    Args:
        encoder: a BERT-like encoder with `last_hidden_state` (B, T, D), with or without segment numbers.
        tokenizer: its fast tokenizer.
        outputs: logits a pair (R).
        max_length: tokens kept of a pair; the longer of both is cut, as a rule the passage.
    """

    def __init__(self, encoder: Any, tokenizer: Any, *, outputs: int = 1, max_length: int = 160) -> None:
        super().__init__()
        self.encoder, self.tokenizer, self.max_length = encoder, tokenizer, max_length
        self.head = nn.Linear(encoder.config.hidden_size, outputs)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.scale = nn.Parameter(torch.full((outputs,), 5.0))
        self._segments = "token_type_ids" in inspect.signature(encoder.forward).parameters

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor, cosine: Tensor) -> Tensor:
        """(B, T) ids, mask and segment numbers and (B,) cosines -> (B, R) logits."""
        segments = {"token_type_ids": types} if self._segments else {}
        hidden = self.encoder(input_ids=ids, attention_mask=mask, **segments).last_hidden_state
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return self.head((hidden * weights).sum(1) / weights.sum(1)) + self.scale * (cosine[:, None] - 0.5)

    def tokens(self, questions: Sequence[str], passages: Sequence[str]) -> "PairTable":
        """Pairs tokenised for this encoder."""
        return PairTable(self.tokenizer, questions, passages, self.max_length)

    @torch.inference_mode()
    def score(
        self, questions: Sequence[str], passages: Sequence[str], cosine: NDArray[np.float32], *, budget: int = 4096
    ) -> NDArray[np.float32]:
        """Logits (B, R) of the pairs, in their order.

        Args:
            cosine: (B,) of the bi-encoder.
            budget: padded tokens a batch.
        """
        out = np.zeros((len(questions), self.head.out_features), np.float32)
        if not questions:
            return out
        device = next(self.parameters()).device
        table = self.tokens(questions, passages)
        self.eval()
        for indices in token_budget_batches(table.lengths, budget=budget):
            inputs = [tensor.to(device) for tensor in table.pad(indices)]
            out[indices] = self(*inputs, torch.from_numpy(cosine[indices]).to(device)).float().cpu().numpy()
        return out

    def save(self, folder: Path) -> None:
        """Write the encoder, its tokenizer and the heads (safetensors) into `folder`."""
        from safetensors.torch import save_file

        self.encoder.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        heads = {"weight": self.head.weight, "bias": self.head.bias, "scale": self.scale}
        save_file({k: v.detach().cpu().contiguous() for k, v in heads.items()}, folder / "heads.safetensors")
        (folder / NOTE).write_text(json.dumps({"max_length": self.max_length}) + "\n", encoding="utf-8")


class PairTable:
    """Tokenised pairs; `pad` gives ids, mask and segment numbers, each (B, T)."""

    def __init__(self, tokenizer: Any, questions: Sequence[str], passages: Sequence[str], max_length: int) -> None:
        found = tokenizer(
            list(questions), list(passages), truncation="longest_first", max_length=max_length,
            return_attention_mask=False,
        )  # fmt: skip
        types = found.get("token_type_ids") or [[0] * len(row) for row in found["input_ids"]]
        self._ids = TokenTable(found["input_ids"], pad_id=tokenizer.pad_token_id)
        self._types = TokenTable(types, pad_id=0)
        self.lengths = self._ids.lengths

    def pad(self, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        """Ids, mask and segment numbers of the pairs."""
        ids, mask = self._ids.pad(indices)
        return ids, mask, self._types.pad(indices)[0]


def new_cross_encoder(model: str, *, outputs: int, max_length: int, layers: int | None = None) -> CrossEncoder:
    """A cross-encoder that starts from an encoder's weights (`minilm`, a folder or a Hugging Face id).

    Args:
        layers: only the first ones; None keeps all.

    Raises:
        InputError: `layers` of a model whose layers are not where BERT, RoBERTa and DistilBERT have them.
    """
    from transformers import AutoModel

    encoder = load_pretrained(AutoModel, model)
    if layers is not None:
        body: Any = getattr(encoder, "encoder", None) or getattr(encoder, "transformer", None)
        if not hasattr(body, "layer"):
            raise InputError(f"model {model!r}: its layers were not found, so that it cannot be cut to {layers}")
        body.layer = body.layer[:layers]
        encoder.config.num_hidden_layers = len(body.layer)
    if hasattr(encoder, "pooler"):
        encoder.pooler = None
    return CrossEncoder(encoder, load_tokenizer(model), outputs=outputs, max_length=max_length)


def load_cross_encoder(folder: Path, *, device: str = "auto") -> CrossEncoder:
    """One that `CrossEncoder.save` wrote."""
    from safetensors.torch import load_file

    heads = load_file(folder / "heads.safetensors")
    note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    model = new_cross_encoder(str(folder), outputs=len(heads["bias"]), max_length=note["max_length"])
    model.head.load_state_dict({"weight": heads["weight"], "bias": heads["bias"]})
    model.scale.data = heads["scale"]
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    return model.to("cuda" if cuda else "cpu").eval()


def rerank(
    logits: NDArray[np.float32], candidates: NDArray[np.int64], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scores and passage numbers (Q, k), best first, of candidates (Q, N) with their logits (Q, N); -1 comes last."""
    logits = np.where(candidates < 0, -np.inf, logits)
    order = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(logits, order, 1), np.take_along_axis(candidates, order, 1)
