"""Who writes and who judges sentence pairs: models of this project, or a language model behind one of its backends."""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from paperflows.tasks.environment import state_folder
from paperflows.tasks.store import Artifact, open_artifact
from paperflows.tasks.tracking import trace_calls


class Annotator(BaseModel):
    """Who writes or judges: an offline model of this project, or a language model behind one of its backends."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["offline", "endpoint", "local", "replay", "tiny"] = Field(
        "offline",
        description="offline: the writer is the masked LM trained in the flow, the judge an encoder's cosine; "
        "endpoint: an OpenAI-compatible server; local: a transformers causal LM; replay: recorded completions; "
        "tiny: a small LM folder",
    )
    model: str = Field(
        "minilm", description="encoder (offline judge), model name (endpoint), folder or id (local, tiny)"
    )
    base_url: str | None = Field(None, description="address of the endpoint, such as http://127.0.0.1:8000/v1")
    api_key_variable: str = Field("OPENAI_API_KEY", description="name of the environment variable that holds the key")
    replay_path: str | None = Field(None, description="recorded completions (JSON lines) for kind replay")
    concurrency: int = Field(8, ge=1, le=512, description="requests in flight at once")
    requests_per_minute: int | None = Field(None, ge=1, description="sending limit; empty for none")
    max_requests: int | None = Field(
        None, ge=1, description="stop a task before it sends more requests than this; each stage and seed is a task"
    )
    max_tokens: int | None = Field(
        None, ge=1, description="stop a task before more tokens than this, in and out together"
    )
    max_cost: float | None = Field(None, gt=0, description="stop a task before it spends more than this, in USD")
    price_in: float = Field(0.0, ge=0, description="USD per million prompt tokens")
    price_out: float = Field(0.0, ge=0, description="USD per million completion tokens")


class LanguageModel(Annotator):
    """A language model behind one of its backends."""

    kind: Literal["endpoint", "local", "replay", "tiny"] = Field(
        description="endpoint: an OpenAI-compatible server; local: a transformers causal LM; replay: recorded "
        "completions; tiny: a small LM folder",
    )
    model: str = Field("", description="model name (endpoint), folder or id (local, tiny); replay needs none")


def open_writer(
    settings: Annotator, masked_lm: Artifact, device: str, work: Path, opened: ExitStack
) -> tuple[Any, Mapping[str, float]]:
    """`write(sentences, rates, seed)` and its usage counters, filled while it works."""
    if settings.kind == "offline":
        from transformers import AutoModelForMaskedLM

        from paperflows.components.annotation.writers import MLMWriter
        from paperflows.components.models.pretrained import load_pretrained, load_tokenizer

        folder = str(open_artifact(masked_lm))
        model = load_pretrained(AutoModelForMaskedLM, folder)
        return MLMWriter(model, load_tokenizer(folder), device=device).write, {}
    from paperflows.components.annotation.llm import LLMWriter

    llm = open_client(settings, "writer", device, work, opened)
    return LLMWriter(llm, model=settings.model).write, llm.usage.counters


def open_judge(settings: Annotator, device: str, work: Path, opened: ExitStack) -> tuple[Any, Mapping[str, float]]:
    """`score(pairs)` and its usage counters."""
    if settings.kind == "offline":
        from paperflows.components.annotation.judges import EncoderJudge
        from paperflows.components.models.encoder import load_encoder

        return EncoderJudge(load_encoder(settings.model, device=device).embed).score, {}
    from paperflows.components.annotation.llm import LLMJudge

    llm = open_client(settings, "judge", device, work, opened)
    return LLMJudge(llm, model=settings.model).score, llm.usage.counters


def open_client(settings: Annotator, stage: str, device: str, work: Path, opened: ExitStack) -> Any:
    """A client whose completions are recorded beside the task's other work and traced to MLflow."""
    from paperflows.components.llm.backends import LLMSettings, open_llm
    from paperflows.components.llm.recording import Recorder

    values = settings.model_dump(exclude={"api_key_variable", "price_in", "price_out"})
    prices = {settings.model: (settings.price_in, settings.price_out)}
    llm = open_llm(
        LLMSettings(**values, prices=prices, cache_path=state_folder() / "completions.sqlite", device=device),
        api_key=os.environ.get(settings.api_key_variable),
        observers=[Recorder(work / f"{stage}.completions.jsonl"), trace_calls(stage)],
    )
    opened.callback(llm.close)
    return llm
