"""What a task needs of a stored encoder: its layers, a head over the labels, and the texts as it reads them.

Letters: N texts, C classes, D width.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from paperflows.components.models.pretrained import load_pretrained, load_tokenizer
from paperflows.components.prompts.encoder import PromptEncoder
from paperflows.components.prompts.reading import Reading
from paperflows.components.prompts.stored import StoredStates
from paperflows.components.prompts.tuning import PromptedClassifier
from paperflows.components.prompts.verbalizer import (
    LabelHead,
    Prompted,
    Template,
    WordHead,
    mean_state,
    sentence_means,
    word_ids,
    wrap,
)
from paperflows.components.training.batching import token_budget_batches

Head = Literal["sentences", "words"]


@dataclass(frozen=True)
class Parts:
    """An encoder, the head over a task's labels, the tokenizer and the template that the texts stand in."""

    encoder: nn.Module
    head: nn.Module
    tokenizer: Any
    template: Template

    def texts(self, rows: Sequence[Mapping[str, Any]], *, max_length: int) -> Prompted:
        """Rows as this encoder reads them."""
        return wrap(rows, self.template, self.tokenizer, max_length=max_length)


def load_parts(folder: Path, head: Head, template: Template, *, pair: bool) -> Parts:
    """The stored encoder with a head over the template's labels.

    Args:
        head: "words": `folder` holds a masked LM, whose head reads the label words at the mask token; "sentences": an
            encoder of sentences, and the texts alone are compared with the labels' sentences.

    Raises:
        InputError: a label word is no token, or the model has no masked-LM head.
    """
    from transformers import AutoModel, AutoModelForMaskedLM

    tokenizer = load_tokenizer(str(folder))
    if head == "words":
        whole: Any = load_pretrained(AutoModelForMaskedLM, str(folder)).eval()
        return Parts(whole.base_model, WordHead(whole, word_ids(template, tokenizer)), tokenizer, template)
    encoder: Any = load_pretrained(AutoModel, str(folder)).eval()
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    vectors = sentence_means(PromptEncoder(encoder), tokenizer, list(template.sentences.values()))
    return Parts(encoder, LabelHead(vectors), tokenizer, template.plain(pair=pair))


def all_logits(model: PromptedClassifier, texts: Prompted | StoredStates) -> Tensor:
    """(N, C) logits of all texts, float32 on the CPU."""
    return gather(model.eval(), texts, next(model.parameters()).device)


def logits_and_means(model: PromptedClassifier, texts: Prompted | StoredStates) -> tuple[Tensor, Tensor]:
    """What `all_logits` and `all_means` say, from one pass over the texts."""

    def read(batch: Mapping[str, Tensor]) -> Tensor:
        last = model.last(batch)
        logits = model.head(last.text, last.text_mask, batch["place"])
        return torch.cat([logits.float(), mean_state(last.text, last.text_mask).float()], 1)

    model.eval()
    both = gather(read, texts, next(model.parameters()).device)
    return both[:, : -model.encoder.width], both[:, -model.encoder.width :]


def all_means(model: PromptedClassifier, texts: Prompted | StoredStates) -> Tensor:
    """(N, D) mean last states of all texts, float32 on the CPU."""

    def mean(batch: Mapping[str, Tensor]) -> Tensor:
        last = model.last(batch)
        return mean_state(last.text, last.text_mask)

    model.eval()
    return gather(mean, texts, next(model.parameters()).device)


@torch.inference_mode()
def gather(
    read: Callable[[Mapping[str, Tensor]], Tensor], texts: Prompted | StoredStates | Reading, device: torch.device
) -> Tensor:
    """What `read` says of all texts, (B, X) a batch: (N, X) in the order of the texts, float32 on the CPU."""
    lengths = texts.lengths if isinstance(texts, StoredStates) else texts.table.lengths
    out: Tensor | None = None
    for rows in token_budget_batches(lengths, budget=4096):
        said = read({k: v.to(device) for k, v in texts.batch(rows).items()}).float().cpu()
        out = torch.empty(len(lengths), said.shape[1]) if out is None else out
        out[torch.from_numpy(rows)] = said
    assert out is not None
    return out
