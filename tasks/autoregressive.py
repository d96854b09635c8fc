"""An autoregressive decoder of a denoiser's size: the reference for its bound, and a writer beside it."""

from typing import Any

from paperflows.tasks.data import read_rows
from paperflows.tasks.diffusion import COUNTS, WEIGHTS, WRITTEN, CorpusArtifact, corpus_tokenizer
from paperflows.tasks.policy import cached_task
from paperflows.tasks.progress import progress
from paperflows.tasks.store import OUTPUTS, new_artifact, open_artifact
from paperflows.tasks.training import ModelArtifact, fit


@cached_task(name="train_decoder", task_run_name="decoder-{corpus[name]}-seed{seed}")
def train_decoder(
    corpus: CorpusArtifact, encoder: str, layers: int, pretrained: bool, settings: dict[str, Any], seed: int,
    device: str,
) -> ModelArtifact:  # fmt: skip
    """The encoder's first `layers` reading to the left alone, for as many steps on the same batches of texts.

    Where the corpus has pairs, it learns to continue a source with its target, and the source counts nothing.

    Args:
        pretrained: whether it starts from the encoder's weights, as a denoiser does; else from fresh ones.
        settings: steps, batch_size, learning_rate.
    """
    from safetensors.torch import save_model

    from paperflows.components.models.causal_bert import token_losses
    from paperflows.components.training.batching import Batches, TokenTable

    s = settings
    decoder, special = build_decoder(corpus, encoder, layers, pretrained, seed)
    rows = read_rows(open_artifact(corpus) / "train.jsonl")
    table = TokenTable([row["ids"] for row in rows], pad_id=special["pad"])
    batches = Batches(batch_size=s["batch_size"], seed=seed, lengths=table.lengths)

    def batch_at(step: int) -> dict[str, Any]:
        chosen = batches.at(step)
        ids, mask = table.pad(chosen)
        return {"tokens": ids, "mask": mask, "wanted": _wanted(rows, chosen, mask), "ids": chosen.tolist()}

    def loss_fn(model: Any, batch: Any) -> Any:
        return token_losses(model, batch["tokens"], batch["mask"], batch["wanted"]).sum() / batch["wanted"].sum()

    done = fit(
        f"decoder-seed{seed}", {"method": "autoregressive", "seed": seed, **s}, decoder, batch_at, loss_fn, s["steps"],
        s["learning_rate"], seed, device,
    )  # fmt: skip
    with new_artifact() as (folder, artifact):
        save_model(decoder.cpu(), str(folder / WEIGHTS))
    return ModelArtifact(**artifact, name="autoregressive", score=None, history=done.history)


@cached_task(name="measure_likelihood", task_run_name="measure_likelihood-{split}")
def measure_likelihood(
    model: ModelArtifact, corpus: CorpusArtifact, encoder: str, layers: int, split: str, sentences: int, device: str
) -> dict[str, Any]:
    """The exact negative log-likelihood of the tokens that the bound of the denoisers is about.

    The end of a text counts nothing: denoisers are told the length, a decoder is not and need not say it.

    Returns:
        `outputs`: artifact of `bound`, (N, 2) nats and tokens; nats a token, and perplexity a word.
    """
    import numpy as np
    import torch
    from safetensors.numpy import save_file

    from paperflows.components.models.causal_bert import token_losses
    from paperflows.components.training.batching import TokenTable, token_budget_batches

    decoder, special = open_decoder(model, corpus, encoder, layers, device)
    place = next(decoder.parameters()).device
    rows = read_rows(open_artifact(corpus) / f"{split}.jsonl")[:sentences]
    table = TokenTable([row["ids"] for row in rows], pad_id=special["pad"])
    found = np.zeros((len(rows), 2))
    with torch.inference_mode():
        for chosen in token_budget_batches(table.lengths, budget=4096):
            ids, mask = table.pad(chosen)
            wanted = mask.bool() & (ids != special["cls"]) & (ids != special["sep"])
            losses = token_losses(decoder, ids.to(place), mask.to(place), wanted.to(place))
            found[chosen] = np.stack([losses.double().cpu().numpy(), wanted.sum(1).numpy()], 1)
    words = sum(len(row["text"].split()) for row in rows)
    with new_artifact() as (folder, artifact):
        save_file({"bound": found}, folder / OUTPUTS)
    return {
        "outputs": artifact, "bound": float(found[:, 0].sum() / found[:, 1].sum()),
        "word_perplexity": float(np.exp(found[:, 0].sum() / words)),
    }  # fmt: skip


@cached_task(name="decode_texts", task_run_name="decode_texts-{temperature}")
def decode_texts(
    model: ModelArtifact, corpus: CorpusArtifact, encoder: str, layers: int, count: int, top_k: int, temperature: float,
    longest: int, seed: int, device: str,
) -> dict[str, Any]:  # fmt: skip
    """`count` samples of the decoder, of the lengths it chooses; as `write_texts` returns them."""
    from paperflows.components.data.jsonl import write_jsonl

    decoder, special = open_decoder(model, corpus, encoder, layers, device)
    tokenizer = corpus_tokenizer(corpus)
    with progress("decode") as report:
        (rows,) = continue_rows(decoder, [[special["cls"]]], count, special, top_k, temperature, longest, seed)
        report(count, count)
    texts = tokenizer.batch_decode(rows, skip_special_tokens=True)
    with new_artifact() as (folder, artifact):
        write_jsonl(folder / WRITTEN, [{"text": text} for text in texts])
    calls = sum(len(row) for row in rows) / count
    return {"samples": artifact, "calls": calls, "examples": texts[:: max(1, count // 5)][:5], "way": []}


def continue_rows(
    decoder: Any, prompts: list[list[int]], samples: int, special: dict[str, int], top_k: int, temperature: float,
    longest: int, seed: int,
) -> list[list[list[int]]]:  # fmt: skip
    """`samples` continuations of each prompt as token ids, the end left out."""
    import torch

    from paperflows.components.llm.decode import decode_rows, left_pad
    from paperflows.components.llm.sampling import RowSettings, uniforms

    device = next(decoder.parameters()).device
    found: list[list[list[int]]] = []
    for at in range(0, len(prompts), max(1, 256 // samples)):
        some = prompts[at : at + max(1, 256 // samples)]
        ids, mask = left_pad(some, special["pad"], device)
        count = len(some) * samples
        ones = torch.ones(count, device=device)
        settings = RowSettings(ones * temperature, ones, (ones * top_k).long(), ones)
        draws = uniforms([seed * 1_000_003 + at * samples + i for i in range(count)], longest).to(device)
        done = decode_rows(
            decoder, ids, mask, torch.arange(len(some), device=device).repeat_interleave(samples), settings, draws,
            limits=torch.full((count,), longest, device=device), ends=torch.tensor([special["sep"]], device=device),
        )  # fmt: skip
        rows = [
            [token for token in tokens[:length] if token != special["sep"]]
            for tokens, length in zip(done.tokens.tolist(), done.lengths.tolist(), strict=True)
        ]
        found += [rows[i : i + samples] for i in range(0, count, samples)]
    return found


def build_decoder(corpus: CorpusArtifact, encoder: str, layers: int, pretrained: bool, seed: int) -> Any:
    """A decoder before training and the ids of the special tokens."""
    from safetensors.torch import load_file

    from paperflows.components.models.causal_bert import causal_twin
    from paperflows.components.models.cut_vocabulary import start_masked_lm

    tokenizer = corpus_tokenizer(corpus)
    special = {
        "pad": tokenizer.pad_token_id, "cls": tokenizer.cls_token_id, "sep": tokenizer.sep_token_id,
        "mask": tokenizer.mask_token_id,
    }  # fmt: skip
    counts = load_file(open_artifact(corpus) / COUNTS)["counts"]
    lm = start_masked_lm(encoder, tokenizer, counts, layers=layers, pretrained=pretrained, seed=seed)
    return causal_twin(lm, never=[special["pad"], special["cls"], special["mask"]]), special


def open_decoder(model: ModelArtifact, corpus: CorpusArtifact, encoder: str, layers: int, device: str) -> Any:
    """A trained decoder on its device and the ids of the special tokens."""
    from safetensors.torch import load_model

    from paperflows.components.training.device import accelerator

    decoder, special = build_decoder(corpus, encoder, layers, False, 0)
    load_model(decoder, str(open_artifact(model) / WEIGHTS))
    return decoder.to(accelerator(device).device).eval(), special


def _wanted(rows: Any, chosen: Any, mask: Any) -> Any:
    """(B, T) all tokens but the first ones: [CLS], and the source with its end where there is one."""
    import torch

    first = torch.tensor([rows[i].get("source", 1) for i in chosen])
    return mask.bool() & (torch.arange(mask.shape[1])[None] >= first[:, None])
