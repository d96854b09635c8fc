"""A causal language model as the model in front of which a retrieval decision stands. N texts, T tokens, D width."""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from paperflows.components.models.pretrained import load_pretrained, load_tokenizer
from paperflows.components.training.batching import token_budget_batches


class CausalReader:
    """States and answers of a causal LM by folder or Hugging Face id.

    Args:
        device: "auto", "cpu" or "cuda".
        max_length: tokens kept of a request, the last ones.
    """

    def __init__(self, model: str, *, device: str = "auto", max_length: int = 256) -> None:
        from transformers import AutoModelForCausalLM

        cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
        self._device = torch.device("cuda" if cuda else "cpu")
        loaded = load_pretrained(AutoModelForCausalLM, model).eval()
        self._model: Any = loaded.to(self._device, dtype=torch.bfloat16 if cuda else torch.float32)
        self._tokenizer = load_tokenizer(model)
        self._max_length = max_length
        # without them, absolute positions of a row would depend on the padding beside it
        self._counts = "position_ids" in inspect.signature(loaded.forward).parameters

    @torch.inference_mode()
    def states(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, D) last hidden states of the last token of each text, as a chat turn where the model has a template."""
        out = np.zeros((len(texts), self._model.config.hidden_size), np.float32)
        for indices, ids, mask in self._batches(texts, ""):
            places = {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)} if self._counts else {}
            out_ = self._model(input_ids=ids, attention_mask=mask, output_hidden_states=True, **places)
            hidden = out_.hidden_states[-1]
            out[indices] = hidden[:, -1].float().cpu().numpy()
        return out

    @torch.inference_mode()
    def answers(self, questions: Sequence[str], *, max_tokens: int = 16) -> tuple[list[str], NDArray[np.float32]]:
        """A greedy short answer to each question, and the smallest probability of its tokens (N,)."""
        said, least = [""] * len(questions), np.ones(len(questions), np.float32)
        end = self._model.generation_config.eos_token_id
        for indices, ids, mask in self._batches(questions, " Answer in a few words."):
            done = self._model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=max_tokens, do_sample=False,
                output_scores=True, return_dict_in_generate=True, pad_token_id=self._pad(),
            )  # fmt: skip
            new = done.sequences[:, ids.shape[1] :]
            chance = torch.stack(done.scores, 1).float().softmax(-1).gather(-1, new.unsqueeze(-1)).squeeze(-1)
            ends = torch.tensor([end] if isinstance(end, int) else list(end or []), device=new.device)
            over = torch.isin(new, ends).long().cumsum(1) > torch.isin(new, ends).long()
            least[indices] = chance.masked_fill(over, 1.0).amin(1).cpu().numpy()
            for place, row in zip(indices, new, strict=True):
                said[place] = self._tokenizer.decode(row, skip_special_tokens=True).strip().partition("\n")[0]
        return said, least

    def _batches(self, texts: Sequence[str], suffix: str) -> Any:
        rows = [self._encode(text + suffix)[-self._max_length :] or [self._pad()] for text in texts]
        for indices in token_budget_batches(np.array([len(row) for row in rows], np.int64), budget=8192):
            longest = max(len(rows[i]) for i in indices)
            ids = torch.full((len(indices), longest), self._pad())
            mask = torch.zeros_like(ids)
            for place, i in enumerate(indices):  # padded on the left, so that the last token is the last column
                ids[place, longest - len(rows[i]) :], mask[place, longest - len(rows[i]) :] = torch.tensor(rows[i]), 1
            yield indices, ids.to(self._device), mask.to(self._device)

    def _encode(self, text: str) -> list[int]:
        if self._tokenizer.chat_template:
            turn = [{"role": "user", "content": text}]
            made = self._tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
            return list(self._tokenizer(made, add_special_tokens=False)["input_ids"])
        return list(self._tokenizer(text)["input_ids"])

    def _pad(self) -> int:
        pad = self._tokenizer.pad_token_id
        return int(pad if pad is not None else self._tokenizer.eos_token_id)
