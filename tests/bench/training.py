"""A training step of the pretrained encoder with the loop's optimizer beside torch's default one."""

from typing import Any

import torch
from measure import interleaved

TEXTS, TOKENS = 16, 32


def figures() -> list[dict[str, Any]]:
    """Steps a second of full fine-tuning, 16 texts of 32 tokens."""
    from transformers import AutoModel

    from paperflows.components.models.pretrained import load_pretrained
    from paperflows.components.training.device import accelerator

    device = accelerator("auto").device
    models = {name: load_pretrained(AutoModel, "minilm").to(device).train() for name in ("fused", "default")}
    optimizers = {
        name: torch.optim.AdamW(model.parameters(), lr=0.0, fused=True if name == "fused" else None)
        for name, model in models.items()
    }
    ids = torch.randint(1000, 20_000, (TEXTS, TOKENS), generator=torch.Generator().manual_seed(0)).to(device)

    def step(name: str) -> None:
        models[name](input_ids=ids).last_hidden_state.square().mean().backward()
        optimizers[name].step()
        optimizers[name].zero_grad(set_to_none=True)

    for name in models:
        step(name)
    times = interleaved({name: lambda name=name: step(name) for name in models}, 9)
    return [
        {"what": "full fine-tuning of MiniLM with fused AdamW", "value": 1 / times["fused"], "unit": "steps/s",
         "ratio": times["default"] / times["fused"], "to": "torch's default AdamW"}
    ]  # fmt: skip
