"""A sweep of decoding configurations in one batch beside transformers' `generate`, called once a configuration."""

from itertools import product
from typing import Any

import numpy as np
import torch
from measure import interleaved

TOKENS, SAMPLES = 24, 4


def figures() -> list[dict[str, Any]]:
    """Continuations a second of 6 inputs, 12 configurations and 4 samples, by a decoder of 2 million parameters."""
    from paperflows.components.decoding.configurations import as_rows, make
    from paperflows.components.llm.decode import decode_rows, left_pad
    from paperflows.components.llm.sampling import uniforms
    from paperflows.components.models.tiny_decoder import tiny_decoder

    torch.manual_seed(0)
    model = tiny_decoder(vocabulary=4000, width=192, layers=4, heads=4, hidden=512, positions=160, seed=0).eval()
    random = np.random.default_rng(0)
    prompts = [random.integers(10, 4000, size=random.integers(8, 20)).tolist() for _ in range(6)]
    grid = {"temperature": [0.7, 1.3], "top_p": [0.8, 0.95, 1.0], "top_k": [50], "repetition_penalty": [1.0, 1.2]}
    configurations = [make(dict(zip(grid, values, strict=True))) for values in product(*grid.values())]
    ids, mask = left_pad(prompts, 0, torch.device("cpu"))
    rows = torch.arange(len(prompts)).repeat_interleave(len(configurations) * SAMPLES)
    settings = as_rows([c for _ in prompts for c in configurations for _ in range(SAMPLES)])
    u = uniforms(range(len(rows)), TOKENS)
    limits, ends = torch.full((len(rows),), TOKENS), torch.tensor([-1])

    def ours() -> None:
        decode_rows(model, ids, mask, rows, settings, u, limits=limits, ends=ends)

    @torch.inference_mode()
    def theirs(some: torch.Tensor, where: torch.Tensor) -> None:
        for c in configurations:
            model.generate(
                input_ids=some, attention_mask=where, do_sample=True, temperature=c.temperature, top_p=c.top_p,
                top_k=c.top_k, repetition_penalty=c.repetition_penalty, num_return_sequences=SAMPLES,
                max_new_tokens=TOKENS, min_new_tokens=TOKENS, use_cache=True, pad_token_id=0,
            )  # fmt: skip

    def one_by_one() -> None:
        for i in range(len(prompts)):
            theirs(ids[i : i + 1], mask[i : i + 1])

    times = interleaved(
        {"ours": ours, "inputs together": lambda: theirs(ids, mask), "an input at a time": one_by_one}, 3
    )
    return [
        {"what": f"sweep of {len(configurations)} configurations in one batch", "value": len(rows) / times["ours"],
         "unit": "texts/s", "ratio": times[name] / times["ours"], "to": f"generate once a configuration, {name}", **goal}
        for name, goal in (("inputs together", {}), ("an input at a time", {"goal": 5.0}))
    ]  # fmt: skip
