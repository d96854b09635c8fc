"""Prompts: a black-box sweep from stored prefixes beside computing everything, and a late prompt's training step."""

from typing import Any

import numpy as np
import torch
from measure import interleaved


def figures() -> list[dict[str, Any]]:
    """All figures of this section, on MiniLM and 32 texts of 28 tokens."""
    from transformers import AutoModel

    from paperflows.components.models.pretrained import load_pretrained
    from paperflows.components.prompts.verbalizer import LabelHead, Prompted
    from paperflows.components.training.batching import TokenTable

    torch.manual_seed(0)
    encoder = load_pretrained(AutoModel, "minilm").eval()
    random = np.random.default_rng(0)
    table = TokenTable([random.integers(1000, 30000, size=28).tolist() for _ in range(32)], pad_id=0)
    texts = Prompted(table, np.zeros(32, dtype=np.int64), torch.arange(32) % 2)
    head = LabelHead(torch.randn(2, encoder.config.hidden_size))
    return [sweep(encoder, head, texts), *steps(encoder, head, texts)]


def sweep(encoder: Any, head: Any, texts: Any) -> dict[str, Any]:
    """Seconds of twenty candidates at each of six layers."""
    from paperflows.components.prompts.blackbox import ForwardOnly
    from paperflows.components.prompts.encoder import PromptEncoder

    inner = PromptEncoder(encoder)
    candidates = [0.3 * torch.randn(20, 5, inner.width) for _ in range(inner.depth)]
    model = ForwardOnly(inner, head, texts.groups(16), {layer: some[0] for layer, some in enumerate(candidates)})

    def run(stored: bool) -> list[Any]:
        said = []
        for layer, some in enumerate(candidates):
            said.append(model.logits(layer, some, stored=stored))
            model.fix(layer, some[0])
        return said

    gap = max(float((a - b).abs().max()) for a, b in zip(run(True), run(False), strict=True))
    times = interleaved({"stored": lambda: run(True), "everything": lambda: run(False)}, 3)
    return {
        "what": "sweep of 20 prompts at each of 6 layers, from stored prefixes", "value": times["stored"], "unit": "s",
        "ratio": times["everything"] / times["stored"], "goal": 1.5,
        "to": f"computing everything (largest difference of logits {gap:.0e}; by layers the limit is 1.71)",
    }  # fmt: skip


def steps(encoder: Any, head: Any, texts: Any) -> list[dict[str, Any]]:
    """Forward and backward of one batch: a generated prompt at layer 3, from stored states too, and at the input."""
    import tempfile
    from pathlib import Path

    from paperflows.components.prompts import tuning
    from paperflows.components.prompts.stored import store_states

    start = tuning.word_states(encoder, count=5, seed=0)
    shared = {"layer": 3, "length": 5, "bottleneck": 128, "rank": 8, "start": start, "seed": 0}
    late = tuning.build("npg", encoder, head, **shared).train()
    first = tuning.build("input", encoder, head, **shared).train()
    batch = texts.batch(np.arange(32))
    with tempfile.TemporaryDirectory() as folder:
        stored = store_states(late, texts, Path(folder) / "states.npy").batch(np.arange(32))
    late.train()
    works = {
        "late": lambda: tuning.loss(late, batch).backward(),
        "stored": lambda: tuning.loss(late, stored).backward(),
        "input": lambda: tuning.loss(first, batch).backward(),
    }
    times = interleaved(works, 7)
    return [
        {"what": "training step of a late prompt (layer 3 of 6)", "value": 1e3 * times["late"], "unit": "ms",
         "ratio": times["input"] / times["late"], "to": "prompt at the input", "goal": 1.5},
        {"what": "the same from stored states", "value": 1e3 * times["stored"], "unit": "ms",
         "ratio": times["late"] / times["stored"], "to": "with the lower half computed"},
    ]  # fmt: skip
