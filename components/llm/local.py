"""A causal language model of transformers in this process; requests that wait together are generated together.

Letters: R rows (samples), T prompt tokens, V vocabulary.
"""

import asyncio
import hashlib
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from paperflows.components.errors import InputError
from paperflows.components.llm.backend import RequestError
from paperflows.components.llm.decode import decode_rows, left_pad
from paperflows.components.llm.request import Completion, Request
from paperflows.components.llm.sampling import RowSettings, uniforms
from paperflows.components.models.pretrained import load_pretrained, load_tokenizer


class LocalModel:
    """Completions of a folder (safetensors) or Hugging Face id.

    Args:
        device: "auto", "cpu" or "cuda".
        token_budget: padded tokens generated together, prompt and completion; default 16,384 on CPU, 262,144 on a GPU.
    """

    keyed_tags: tuple[str, ...] = ()

    def __init__(self, model: str, *, device: str = "auto", token_budget: int | None = None) -> None:
        from transformers import AutoModelForCausalLM

        cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
        self._device = torch.device("cuda" if cuda else "cpu")
        loaded = load_pretrained(AutoModelForCausalLM, model).eval()
        self._model = loaded.to(self._device, dtype=torch.bfloat16 if cuda else torch.float32)
        self._tokenizer = load_tokenizer(model)
        self._budget = token_budget or (262_144 if cuda else 16_384)
        end = loaded.generation_config.eos_token_id
        self._ends = torch.tensor([end] if isinstance(end, int) else list(end or []), device=self._device)
        self._limit = int(getattr(loaded.config, "max_position_embeddings", 0) or 0)
        self._waiting: list[tuple[Request, list[int], asyncio.Future[list[Completion]]]] = []
        self._working = False
        self._model_name = model
        self.name = f"local {model}{_weights_hash(model)}"

    async def supports(self, field: str, request: Request) -> bool:
        """As in `Backend`; log-probabilities are those of the sampled tokens."""
        return field != "json_schema" and not (field == "logprobs" and bool(request.logprobs))

    async def close(self) -> None:
        """Nothing is held open."""

    async def send(self, request: Request, first: int = 0) -> list[Completion]:
        """As in `Backend`."""
        ids = self._encode(request)
        if self._limit and len(ids) + request.max_tokens > self._limit:
            raise RequestError("context_length_exceeded")
        future: asyncio.Future[list[Completion]] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, ids, future))
        if not self._working:
            self._working = True
            await asyncio.sleep(0)  # lets the others that are about to ask join this batch
            await self._work()
        return await future

    async def _work(self) -> None:
        try:
            while self._waiting:
                batch = self._next_batch()
                try:
                    results = await asyncio.to_thread(self._generate, [(r, ids) for r, ids, _ in batch])
                except Exception as error:
                    for _, _, future in batch:
                        future.set_exception(error)
                    continue
                for (_, _, future), completions in zip(batch, results, strict=True):
                    future.set_result(completions)
        finally:
            self._working = False

    def _next_batch(self) -> list[tuple[Request, list[int], asyncio.Future[list[Completion]]]]:
        self._waiting.sort(key=lambda job: len(job[1]) + job[0].max_tokens)
        rows, size = 0, 0
        for request, ids, _ in self._waiting:
            rows += request.n
            if size and rows * (len(ids) + request.max_tokens) > self._budget:
                break
            size += 1
        batch, self._waiting = self._waiting[:size], self._waiting[size:]
        return batch

    def _encode(self, request: Request) -> list[int]:
        if request.messages is None:
            ids = self._tokenizer(request.prompt)["input_ids"]
        elif not self._tokenizer.chat_template:
            raise InputError(f"model {self._model_name!r} has no chat template: give a prompt instead of messages")
        else:
            turns = [message.model_dump() for message in request.messages]
            ids = self._tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
        return list(ids)

    @torch.inference_mode()
    def _generate(self, jobs: Sequence[tuple[Request, list[int]]]) -> list[list[Completion]]:
        requests = [request for request, _ in jobs]
        rows = torch.tensor([i for i, r in enumerate(requests) for _ in range(r.n)], device=self._device)
        per_row = [requests[i] for i in rows.tolist()]
        seeds = [random.getrandbits(62) if r.seed is None else r.seed + k for r in requests for k in range(r.n)]
        steps = max(r.max_tokens for r in requests)
        settings, u = _settings(per_row).to(self._device), uniforms(seeds, steps).to(self._device)
        limits = torch.tensor([r.max_tokens for r in per_row], device=self._device)
        ids, mask = left_pad([ids for _, ids in jobs], self._tokenizer.pad_token_id or 0, self._device)
        done = decode_rows(
            self._model, ids, mask, rows, settings, u, limits=limits, ends=self._ends,
            stopped=lambda tokens, alive: self._stopped(tokens, [per_row[i] for i in alive.tolist()]),
        )  # fmt: skip
        return self._completions(jobs, done.tokens.cpu(), done.logprobs.cpu(), done.lengths.cpu())

    def _stopped(self, tokens: Tensor, requests: Sequence[Request]) -> Tensor:
        """Rows (R,) whose text holds one of their stop texts."""
        texts = self._tokenizer.batch_decode(tokens, skip_special_tokens=True) if any(r.stop for r in requests) else []
        hits = [any(s in text for s in r.stop) for text, r in zip(texts, requests, strict=False)]
        return torch.tensor(hits or [False] * len(requests), device=tokens.device)

    def _completions(
        self, jobs: Sequence[tuple[Request, list[int]]], tokens: Tensor, logprobs: Tensor, lengths: Tensor
    ) -> list[list[Completion]]:
        results, row, ends = [], 0, set(self._ends.tolist())
        for request, ids in jobs:
            samples = []
            for _ in range(request.n):
                kept = tokens[row, : int(lengths[row])].tolist()
                ended = bool(kept) and kept[-1] in ends
                body = kept[:-1] if ended else kept
                wanted = request.logprobs is not None
                samples.append(
                    Completion(
                        text=self._tokenizer.decode(body, skip_special_tokens=True),
                        finish_reason="stop" if ended else "length",
                        prompt_tokens=len(ids),
                        completion_tokens=len(kept),
                        tokens=tuple(self._tokenizer.convert_ids_to_tokens(body)) if wanted else None,
                        logprobs=tuple(logprobs[row, : len(body)].tolist()) if wanted else None,
                        model=self._model_name,
                    )
                )
                row += 1
            results.append(samples)
        return results


def _settings(requests: Sequence[Request]) -> RowSettings:
    return RowSettings(
        temperature=torch.tensor([r.temperature for r in requests]),
        top_p=torch.tensor([r.top_p for r in requests]),
        top_k=torch.tensor([r.top_k or 0 for r in requests]),
        repetition_penalty=torch.tensor([r.repetition_penalty or 1.0 for r in requests]),
    )


def _weights_hash(model: str) -> str:
    """`@` and a hash of a folder's files, so that other weights in the same place are another backend."""
    folder = Path(model)
    if not folder.is_dir():
        return ""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors", ".jinja")):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return f"@{digest.hexdigest()[:16]}"
