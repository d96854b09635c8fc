"""Pair writers: they make the second sentence of a pair. Letters: B sentences, T tokens, V vocabulary."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from paperflows.components.annotation.masking import masked_positions
from paperflows.components.models.word_pieces import reads_words

PARAPHRASE_SHARE = 0.15


class PairWriter(Protocol):
    """Writes one new sentence for each given one."""

    def write(self, sentences: Sequence[str], rates: Sequence[float], seed: int) -> list[str | None]:
        """A new sentence for each, `rates[i]` of whose words may differ; None where none could be written."""
        ...


class MLMWriter:
    """Fills masked words with a masked language model, sampling all masks of a sentence in two rounds.

    At rate 0 the paper asks its LLM for a paraphrase, which a masked LM cannot write; `PARAPHRASE_SHARE` of the words
    are re-written instead.

    Args:
        model: a transformers masked LM.
        tokenizer: its fast tokenizer.
        device: "auto", "cpu" or "cuda".
        temperature, top_p: of the sampling (0.7 and 0.9 in the paper).
        batch_size: sentences filled at once.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        device: str = "auto",
        temperature: float = 0.7,
        top_p: float = 0.9,
        batch_size: int = 128,
    ) -> None:
        cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
        self._device = torch.device("cuda" if cuda else "cpu")
        self._model, self._tokenizer = model.to(self._device).eval(), reads_words(tokenizer)
        self._temperature, self._top_p, self._batch_size = temperature, top_p, batch_size
        banned = torch.zeros(model.config.vocab_size, dtype=torch.bool)
        banned[tokenizer.all_special_ids] = True
        self._banned = banned.to(self._device)

    def write(self, sentences: Sequence[str], rates: Sequence[float], seed: int) -> list[str | None]:
        """As in `PairWriter`; deterministic in (sentences, rates, seed) on one device."""
        order = np.argsort([len(s) for s in sentences], kind="stable")
        out: list[str | None] = [None] * len(sentences)
        generator = torch.Generator(self._device).manual_seed(seed)
        for start in range(0, len(order), self._batch_size):
            part = [int(i) for i in order[start : start + self._batch_size]]
            filled = self._fill(
                [sentences[i] for i in part], [rates[i] or PARAPHRASE_SHARE for i in part], seed, generator
            )
            for i, text in zip(part, filled, strict=True):
                out[i] = text.strip() or None
        return out

    @torch.inference_mode()
    def _fill(self, texts: list[str], rates: list[float], seed: int, generator: torch.Generator) -> list[str]:
        words = [text.split() for text in texts]
        limit = min(self._tokenizer.model_max_length, self._model.config.max_position_embeddings)
        batch = self._tokenizer(
            words, is_split_into_words=True, padding=True, truncation=True, max_length=limit, return_tensors="pt"
        )
        ids, mask = batch["input_ids"].to(self._device), batch["attention_mask"].to(self._device)
        open_ = torch.zeros(ids.shape, dtype=torch.bool)
        for row, (text, rate) in enumerate(zip(texts, rates, strict=True)):
            chosen = masked_positions(len(words[row]), rate=rate, seed=seed, key=text)
            of_token = np.array([-1 if w is None else w for w in batch.word_ids(row)])
            open_[row] = torch.from_numpy(np.isin(of_token, chosen))
        open_ = open_.to(self._device)
        original = ids.clone()
        ids[open_] = self._tokenizer.mask_token_id
        for last in (False, True):  # round 1 settles the surer half of the masks, round 2 the rest given those
            logits = self._model(input_ids=ids, attention_mask=mask).logits[open_].float()
            tokens, sureness = self._sample(logits, original[open_], generator)
            settle = torch.ones_like(sureness, dtype=torch.bool) if last else sureness >= sureness.median()
            values = ids[open_]
            values[settle] = tokens[settle]
            ids[open_] = values
            remaining = open_.clone()
            remaining[open_] = ~settle
            open_ = remaining
            if not bool(open_.any()):
                break
        return self._tokenizer.batch_decode(ids, skip_special_tokens=True)

    def _sample(self, logits: Tensor, original: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Nucleus sampling per mask, never a special token nor the word that stood there: tokens and probabilities."""
        logits = logits.masked_fill(self._banned, float("-inf"))
        logits.scatter_(1, original[:, None], float("-inf"))
        probabilities = torch.softmax(logits / self._temperature, dim=-1)
        top, index = probabilities.sort(dim=-1, descending=True)
        outside = top.cumsum(-1) - top >= self._top_p
        top = top.masked_fill(outside, 0.0)
        pick = torch.multinomial(top, 1, generator=generator)
        return index.gather(1, pick).squeeze(1), top.gather(1, pick).squeeze(1)
