"""A specified scorer: one encoder, a classification head for each dimension (Huang et al. 2024, section 5).

Letters: B answers, T tokens, D width, G dimensions (or topics), K scores.
"""

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

FILE, NOTE = "heads.safetensors", "scorer.json"
PAIR_RATE = 10.0  # pairs are rare and start at zero: a larger scale lets them learn in as many steps as the encoder


class AlignmentScorer(nn.Module):
    """Scores of answers.

    Args:
        encoder: a transformers encoder; its states are averaged over the tokens.
        topics: what has a head of its own; a single name gives one head that all share.
        scores: the classes, ascending.
        max_length: tokens kept of prompt and answer together.
        pairs: buckets for hashed pairs of neighbouring tokens, whose weights are added to the logits of every head; 0
            leaves them out. A small encoder has not seen enough text to know the words that such pairs spell.
    """

    def __init__(
        self, encoder: Any, tokenizer: Any, *, topics: Sequence[str], scores: Sequence[int], max_length: int, pairs: int
    ) -> None:
        super().__init__()
        self.pairs = nn.Embedding(pairs, len(scores)) if pairs else None
        if self.pairs is not None:
            nn.init.zeros_(self.pairs.weight)
        self.encoder, self.tokenizer = encoder, tokenizer
        self.topics, self.scores, self.max_length = list(topics), list(scores), max_length
        self.heads = nn.Linear(encoder.config.hidden_size, len(self.topics) * len(self.scores))
        self.dropout = nn.Dropout(0.1)

    def forward(self, ids: Tensor, mask: Tensor, topic: Tensor) -> Tensor:
        """(B, T) ids and mask, (B,) number of the head -> logits (B, K)."""
        hidden = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * weight).sum(1) / weight.sum(1)
        logits = self.heads(self.dropout(mean)).view(len(ids), len(self.topics), len(self.scores))
        chosen = logits[torch.arange(len(ids), device=ids.device), topic]
        return chosen if self.pairs is None else chosen + self._pair_logits(self.pairs, ids, mask)

    def _pair_logits(self, pairs: nn.Embedding, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, K) weights of all neighbouring tokens, summed and divided by the root of their number."""
        bucket = (ids[:, :-1] * 1_000_003 + ids[:, 1:]) % pairs.num_embeddings
        inside = mask[:, 1:].unsqueeze(-1).to(pairs.weight.dtype)
        total = (self.dropout(pairs(bucket)) * inside).sum(1)
        return PAIR_RATE * total / inside.sum(1).clamp(min=1).sqrt()

    def table(self, rows: Sequence[dict[str, Any]]) -> TokenTable:
        """Tokens of `text` and, where there is one, `text_pair` of each row."""
        texts = [r["text"] for r in rows]
        pairs = [r.get("text_pair") or "" for r in rows]
        found = self.tokenizer(
            texts, pairs if any(pairs) else None, truncation=True, max_length=self.max_length,
            return_attention_mask=False,
        )  # fmt: skip
        return TokenTable(found["input_ids"], pad_id=self.tokenizer.pad_token_id)

    def heads_of(self, topics: Sequence[str | None]) -> Tensor:
        """The head of each topic.

        Raises:
            InputError: a topic has none.
        """
        if len(self.topics) == 1:
            return torch.zeros(len(topics), dtype=torch.long)
        number = {topic: i for i, topic in enumerate(self.topics)}
        for topic in topics:
            if topic not in number:
                raise InputError(f"topic {topic!r}: the scorer has heads for {', '.join(self.topics)}")
        return torch.tensor([number[str(topic)] for topic in topics])

    @torch.inference_mode()
    def probabilities(self, rows: Sequence[dict[str, Any]]) -> NDArray[np.float64]:
        """(N, K) of `rows` with `text`, `text_pair` and `topic`."""
        table, heads = self.table(rows), self.heads_of([r.get("topic") for r in rows])
        device = next(self.parameters()).device
        training = self.training
        self.eval()
        out = np.zeros((len(rows), len(self.scores)))
        for batch in token_budget_batches(table.lengths, budget=8192):
            ids, mask = table.pad(batch)
            out[batch] = (
                self(ids.to(device), mask.to(device), heads[batch].to(device)).softmax(-1).double().cpu().numpy()
            )
        self.train(training)
        return out

    def save(self, folder: Path) -> None:
        """Encoder, tokenizer, heads and what they are for."""
        from safetensors.torch import save_file

        self.encoder.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        weights = {k: v for k, v in self.state_dict().items() if not k.startswith("encoder.")}
        save_file({k: v.detach().cpu().contiguous() for k, v in weights.items()}, folder / FILE)
        pairs = self.pairs.num_embeddings if self.pairs is not None else 0
        note = {"topics": self.topics, "scores": self.scores, "max_length": self.max_length, "pairs": pairs}
        (folder / NOTE).write_text(json.dumps(note, ensure_ascii=False) + "\n", encoding="utf-8")


def new_scorer(
    model: str, *, topics: Sequence[str], scores: Sequence[int], max_length: int, pairs: int, seed: int
) -> AlignmentScorer:
    """A scorer with fresh heads on a pretrained encoder (`minilm`, folder or hub id)."""
    from transformers import AutoModel

    encoder = load_pretrained(AutoModel, model)
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    torch.manual_seed(seed)
    tokenizer = load_tokenizer(model)
    return AlignmentScorer(encoder, tokenizer, topics=topics, scores=scores, max_length=max_length, pairs=pairs)


def load_scorer(folder: Path) -> AlignmentScorer:
    """A scorer that `AlignmentScorer.save` wrote.

    Raises:
        InputError: the folder holds none.
    """
    from safetensors.torch import load_file

    if not (folder / NOTE).is_file():
        raise InputError(f"{folder}: not a scorer ({NOTE} is missing)")
    note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    scorer = new_scorer(str(folder), **note, seed=0)
    scorer.load_state_dict(load_file(folder / FILE), strict=False)
    return scorer.eval()
