"""Embeddings, the language model client, MLflow and the orchestration around a method."""

import asyncio
import importlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

from measure import interleaved, seconds

from paperflows.components.ports import free_port

ROOT = Path(__file__).parent.parent.parent
COMMAND = Path(sys.executable).parent / "paperflows"


def embeddings() -> list[dict[str, Any]]:
    """Sentences a second of SentenceEncoder.embed and of sentence-transformers' encode on the same model."""
    from sentence_transformers import SentenceTransformer

    from paperflows.components.data.sources import load
    from paperflows.components.models.encoder import load_encoder
    from paperflows.components.models.pretrained import model_location

    ours = load_encoder("minilm", device="cpu")
    theirs = SentenceTransformer(model_location("minilm"), device="cpu")
    theirs.max_seq_length = ours.max_length
    corpora = {"world_text (builtin)": [r["text"] for r in load("builtin", "world_text").splits["train"][:2000]]}
    if data := os.environ.get("PAPERFLOWS_DATA"):
        rows = load(data, "stsb").splits["test"] + load(data, "sts12").splits[next(iter(load(data, "sts12").splits))]
        corpora["stsb test and sts12"] = list(dict.fromkeys(r["text"] for r in rows))[:2000]
    found = []
    for name, texts in corpora.items():
        distinct = list(dict.fromkeys(texts))
        times = interleaved(
            {
                "ours": lambda t=distinct: ours.embed(t),
                "theirs, batch 32": lambda t=distinct: theirs.encode(t, batch_size=32),
                "theirs, batch 128": lambda t=distinct: theirs.encode(t, batch_size=128),
            },
            repeats=5,
        )
        best = min(v for k, v in times.items() if k != "ours")
        for which, value in times.items():
            figure = {"what": f"embeddings, {name}: {which}", "value": len(distinct) / value, "unit": "sentences/s"}
            found.append({**figure, "ratio": best / value, "to": "sentence-transformers, its better batch size"})
    return found


def language_model_client() -> list[dict[str, Any]]:
    """Milliseconds a request over plain httpx against a server that answers at once, and cache hits a second."""
    import httpx

    from paperflows.components.llm.backends import LLMSettings, open_llm
    from paperflows.components.llm.request import Message, Request

    spec = importlib.util.spec_from_file_location("fault_server", ROOT / "tests" / "components" / "llm" / "conftest.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    server, count = module.FaultServer(), 500

    async def plain() -> None:
        gate = asyncio.Semaphore(64)
        async with httpx.AsyncClient(limits=httpx.Limits(max_connections=64)) as client:

            async def one(i: int) -> None:
                async with gate:
                    body = {"model": "m", "messages": [{"role": "user", "content": f"p{i}"}]}
                    (await client.post(f"{server.url}/chat/completions", json=body)).json()

            await asyncio.gather(*(one(i) for i in range(count)))

    with tempfile.TemporaryDirectory() as folder:
        llm = open_llm(
            LLMSettings(
                kind="endpoint", model="m", base_url=server.url, cache_path=Path(folder) / "c.sqlite", concurrency=64
            ),
            api_key="k",
        )

        def asked(tag: str) -> list[Request]:
            return [Request(model="m", messages=(Message(role="user", content=f"{tag}{i}"),)) for i in range(count)]

        llm.run(asked("warm"))
        ours, theirs = [], []
        for turn in range(5):
            theirs.append(seconds(lambda: asyncio.run(plain())))
            ours.append(seconds(lambda t=turn: llm.run(asked(f"{t}-"))))
        hits = statistics.median(seconds(lambda: llm.run(asked("warm"))) for _ in range(5))
        llm.close()
    server.close()
    extra = (statistics.median(ours) - statistics.median(theirs)) / count * 1000
    return [
        {"what": "LLM client over plain httpx, concurrency 64", "value": extra, "unit": "ms a request", "goal": 2.0},
        {"what": "LLM cache hits", "value": count / hits, "unit": "hits/s", "goal": 5000},
    ]


PROGRAM = """
import json, statistics, sys, time
from paperflows.tasks.environment import prepare
prepare()
from prefect import flow
from paperflows.tasks.policy import cached_task

@cached_task(name="nothing")
def nothing(i: int):
    return i

@flow
def many():
    start = time.perf_counter()
    for i in range(100):
        nothing(i)
    return time.perf_counter() - start

first, second = many(), many()
print(json.dumps([first * 10, second * 10]))
"""


def orchestration() -> list[dict[str, Any]]:
    """What Prefect, MLflow and DVC add around the method."""
    found: list[dict[str, Any]] = []
    # a package without the repository on the path, whose folders would become top-level packages
    package = sys.modules["tests"] = ModuleType("tests")
    package.__path__ = [str(ROOT / "tests")]
    module = importlib.import_module("tests.conftest")
    help_time = statistics.median(
        seconds(lambda: subprocess.run([COMMAND, "--help"], capture_output=True)) for _ in range(7)
    )
    found.append({"what": "paperflows --help", "value": help_time, "unit": "s", "goal": 0.3})
    with tempfile.TemporaryDirectory() as folder:
        project = module.copy_project(Path(folder) / "project")
        project.make_laptop_small()

        def run() -> None:
            process = project.start("run", "claif")  # not the tests' way, whose processes have the imports done
            _, error = process.communicate(timeout=600)
            assert process.returncode == 0, error

        cold = seconds(run)
        report = json.loads((project.root / "reports" / "claif.json").read_text())
        found.append({"what": "smoke run of claif, first in a new project, no server", "value": cold, "unit": "s"})
        found.append({"what": "of which the flow", "value": report["seconds"], "unit": "s", "goal": 15.0})
        again = statistics.median(seconds(run) for _ in range(3))
        found.append({"what": "the same run again, all cached, no server", "value": again, "unit": "s", "goal": 13.0})
        assert "didn't change" in project.dvc("repro", "claif").stdout
        noop = statistics.median(seconds(lambda: project.dvc("repro", "claif")) for _ in range(5))
        found.append({"what": "dvc repro claif with nothing to do", "value": noop, "unit": "s", "goal": 1.5})
        port = free_port(row=3)
        server = project.start("serve", "--port", str(port))
        module.wait_until(lambda: (project.root / ".state" / "served.json").exists(), 180)
        served = statistics.median(seconds(run) for _ in range(3))
        found.append({"what": "the same, all cached, with a server", "value": served, "unit": "s", "goal": 6.0})
        environment = {**project.environment, "PREFECT_API_URL": f"http://127.0.0.1:{port + 1}/api"}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], cwd=project.root, env=environment, capture_output=True, text=True
        )
        miss, hit = json.loads(done.stdout.splitlines()[-1])
        found.append({"what": "a task, not cached yet", "value": miss, "unit": "ms", "goal": 15.0})
        found.append({"what": "a task, from the cache", "value": hit, "unit": "ms", "goal": 15.0})
        server.terminate()
        server.wait(60)
    return found


def tracking() -> list[dict[str, Any]]:
    """Share of a training step that MLflow takes."""
    import torch

    with (
        tempfile.TemporaryDirectory() as folder,
        patch.dict(os.environ, MLFLOW_TRACKING_URI=f"sqlite:///{folder}/mlflow.db", PAPERFLOWS_ROOT=str(ROOT)),
    ):
        from paperflows.components.contrastive.objectives import dropout_pairs
        from paperflows.components.models.encoder import SentenceEncoder
        from paperflows.components.models.tiny_bert import tiny_bert, train_wordpiece
        from paperflows.components.training.loop import train
        from paperflows.tasks import tracking as mlflow

        texts = [f"word {i} of sentence {i % 97}" for i in range(2000)]
        tokenizer = train_wordpiece(texts, vocab_size=500)
        experiment = mlflow.client().create_experiment("bench")

        def fit(recorder: Any) -> float:
            bert = tiny_bert(vocab_size=len(tokenizer), width=128, layers=2, heads=4, positions=32, seed=0)
            encoder = SentenceEncoder(bert.bert, tokenizer, pooling="mean", max_length=32)
            objective = dropout_pairs(encoder, texts, batch_size=64, temperature=0.05, seed=0)
            torch.manual_seed(0)

            def on_step(step: int, total: int, metrics: dict[str, float]) -> None:
                if recorder:
                    recorder.metrics(step, metrics)

            return seconds(
                lambda: train(
                    model=encoder, batch_at=objective.batch_at, loss_fn=objective.loss_fn, steps=150,
                    learning_rate=1e-3, device="cpu", on_step=on_step,
                )
            )  # fmt: skip

        fit(None)
        without, spent = [], []
        for _ in range(3):
            without.append(fit(None))
            run = mlflow.client().create_run(experiment).info.run_id
            recorder = mlflow.Recorder(run)
            inside = 0.0
            send = recorder.metrics

            def timed(step: int, values: Any, send: Any = send) -> None:
                nonlocal inside
                inside += seconds(lambda: send(step, values))

            recorder.metrics = timed  # type: ignore[method-assign]
            fit(recorder)
            inside += seconds(recorder.flush)
            spent.append(inside)
    share = statistics.median(spent) / statistics.median(without)
    return [{"what": "MLflow in a training step of a 2-layer BERT", "value": 100 * share, "unit": "%", "goal": 1.0}]


def figures() -> list[dict[str, Any]]:
    """All of this section."""
    return [*embeddings(), *language_model_client(), *tracking(), *orchestration()]
