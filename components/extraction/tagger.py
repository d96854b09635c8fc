"""Few-shot token classification: an encoder and a linear layer over BIO tags, what a user would try first.

Letters: B sentences, T word pieces, W words, K tags. The first piece of a word speaks for it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperflows.components.extraction.records import Schema, Sentence, bio_spans
from paperflows.components.extraction.scoring import Located
from paperflows.components.models.word_pieces import reads_words
from paperflows.components.training.batching import token_budget_batches


class EntityTagger(nn.Module):
    """Tags of an encoder's states.

    Args:
        encoder: a transformers encoder with `last_hidden_state` (B, T, D).
    """

    def __init__(self, encoder: Any, schema: Schema) -> None:
        super().__init__()
        self.tags = ["O", *(f"{prefix}-{kind}" for kind in schema.entities for prefix in "BI")]
        self.encoder, self.head = encoder, nn.Linear(encoder.config.hidden_size, len(self.tags))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, T) -> (B, T, K) logits."""
        return self.head(self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Mean cross-entropy over words; `tags` is -100 at pieces that do not begin a word."""
        return F.cross_entropy(self(batch["ids"], batch["mask"]).flatten(0, 1).float(), batch["tags"].flatten())

    def encode(self, sentences: Sequence[Sentence], tokenizer: Any, *, max_length: int) -> dict[str, Tensor]:
        """Padded ids, mask and tags (B, T), and the word (B, T) that each piece begins, -1 elsewhere."""
        encoded = reads_words(tokenizer)(
            [list(s.tokens) for s in sentences], is_split_into_words=True, truncation=True, max_length=max_length,
            padding=True, return_tensors="pt",
        )  # fmt: skip
        word = torch.full(encoded["input_ids"].shape, -1)
        tags = torch.full(encoded["input_ids"].shape, -100)
        number = {tag: i for i, tag in enumerate(self.tags)}
        for row, sentence in enumerate(sentences):
            gold = ["O"] * len(sentence.tokens)
            for span in sentence.entities:
                gold[span.start : span.end] = [f"B-{span.type}", *[f"I-{span.type}"] * (span.end - span.start - 1)]
            before = None
            for place, at in enumerate(encoded.word_ids(row)):
                if at is not None and at != before:
                    word[row, place], tags[row, place] = at, number.get(gold[at], 0)
                before = at
        return {"ids": encoded["input_ids"], "mask": encoded["attention_mask"], "tags": tags, "word": word}

    @torch.inference_mode()
    def predict(self, sentences: Sequence[Sentence], tokenizer: Any, *, max_length: int) -> list[Located]:
        """Entities of each sentence; words beyond `max_length` pieces are outside."""
        found: list[Located] = [Located() for _ in sentences]
        device = self.head.weight.device
        for rows in token_budget_batches(np.array([len(s.tokens) for s in sentences]), budget=2048):
            batch = self.encode([sentences[i] for i in rows], tokenizer, max_length=max_length)
            best = self(batch["ids"].to(device), batch["mask"].to(device)).argmax(-1).cpu()
            for at, i in enumerate(rows):
                tags = ["O"] * len(sentences[i].tokens)
                for word, tag in zip(batch["word"][at].tolist(), best[at].tolist(), strict=True):
                    if word >= 0:
                        tags[word] = self.tags[tag]
                found[i].entities = bio_spans(tags)
        return found
