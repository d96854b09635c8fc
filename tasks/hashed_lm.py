"""Train small language models whose positions leave by the hash of their token."""

from typing import Any

from paperflows.components.errors import InputError
from paperflows.tasks.data import DatasetArtifact, read_split
from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import OUTPUTS, new_artifact
from paperflows.tasks.training import fit


@cached_task(name="train_hashed_lm", task_run_name="lm-{speedup}-seed{seed}")
def train_hashed_lm(
    data: DatasetArtifact, speedup: float | None, settings: dict[str, Any], seed: int, device: str
) -> dict[str, Any]:
    """A small language model from nothing, with tokens that leave by frequency hash or with all layers for all.

    Args:
        data: texts with train and test splits.
        speedup: of the layers, by token mass of the training texts; None runs every layer.
        settings: width, layers, heads, vocab_size, max_length, examples, evaluated, steps, batch_size, learning_rate,
            and of the generation prompt and written.

    Returns:
        The artifact of per-text counts (right, tokens) on test and of the test texts continued by skipping, the share
        of the full FLOPs of the layers and with the output layer, accuracy, perplexity, and the continuations' chrF.

    Raises:
        InputError: no test text is longer than the prompt.
    """
    import numpy as np
    import torch
    from sacrebleu.metrics import CHRF
    from safetensors.numpy import save_file

    from paperflows.components.data.jsonl import write_jsonl
    from paperflows.components.early_exit import hashing
    from paperflows.components.early_exit.causal import HashedLM, continue_text, next_token_counts, next_token_loss
    from paperflows.components.early_exit.encoder import ExitEncoder
    from paperflows.components.early_exit.flops import token_flops
    from paperflows.components.early_exit.sentences import sample
    from paperflows.components.models.tiny_bert import tiny_bert, train_wordpiece
    from paperflows.components.training.batching import Batches, TokenTable, token_budget_batches
    from paperflows.components.training.device import bf16_is_fast

    s = settings
    texts = {
        split: [row["text"] for row in sample(read_split(data, split), s[limit], seed=0)]
        for split, limit in (("train", "examples"), ("test", "evaluated"))
    }
    tokenizer = train_wordpiece(texts["train"], vocab_size=s["vocab_size"])
    tables = {k: TokenTable.from_texts(v, tokenizer, max_length=s["max_length"]) for k, v in texts.items()}
    bert: Any = tiny_bert(
        vocab_size=len(tokenizer), width=s["width"], layers=s["layers"], heads=s["heads"], positions=s["max_length"],
        seed=seed,
    ).bert  # fmt: skip
    model = HashedLM(ExitEncoder(bert, causal=True).train())
    depth, sizes = s["layers"], {"width": s["width"], "inner": 4 * s["width"]}
    layers = np.full(len(tokenizer), depth, dtype=np.int64)
    if speedup is not None:
        ids, mask = tables["train"].pad(np.arange(len(texts["train"])))
        counts = hashing.token_counts([ids[mask.bool()].numpy()], len(tokenizer))
        special = tokenizer.all_special_ids
        shares = hashing.shares_for(speedup, tables["train"].lengths, depth, protected=2.0, full_depth=depth, **sizes)
        layers = hashing.fill_mass(hashing.order_of("frequency", counts), counts, shares, special=special)
    exits_of = torch.from_numpy(layers)
    batches = Batches(batch_size=s["batch_size"], seed=seed, lengths=tables["train"].lengths)
    bf16 = bf16_is_fast(device)

    def batch_at(step: int) -> dict[str, Any]:
        rows = batches.at(step)
        ids, mask = tables["train"].pad(rows)
        return {"tokens": ids, "mask": mask, "exits": exits_of[ids], "ids": rows.tolist()}

    def loss_fn(trained: Any, batch: Any) -> Any:
        with torch.autocast(batch["tokens"].device.type, dtype=torch.bfloat16, enabled=bf16):
            scores = trained(batch["tokens"], batch["mask"], batch["exits"])
        return next_token_loss(scores, batch["tokens"], batch["mask"])

    name = f"lm-{'full' if speedup is None else 'hashed'}-seed{seed}"
    done = fit(
        name, {"speedup": speedup, "seed": seed}, model, batch_at, loss_fn, s["steps"], s["learning_rate"], seed, device
    )
    model.eval()
    place = next(model.parameters()).device
    found, active = np.zeros((len(texts["test"]), 3)), np.zeros((len(texts["test"]), depth))
    for rows in token_budget_batches(tables["test"].lengths, budget=4096):
        ids, mask = tables["test"].pad(rows)
        exits = exits_of[ids] * mask
        with torch.inference_mode():
            scores = model(ids.to(place), mask.to(place), exits.to(place))
        found[rows] = next_token_counts(scores, ids.to(place), mask.to(place)).numpy()
        active[rows] = np.stack([(exits > layer).sum(1).numpy() for layer in range(depth)], 1)
    lengths = tables["test"].lengths
    spent = token_flops(active, lengths, **sizes)
    whole = token_flops(np.repeat(lengths[:, None], depth, 1), lengths, **sizes)
    head = 2 * lengths * (s["width"] ** 2 + s["width"] * len(tokenizer))
    # texts that go on after the prompt, continued greedily and compared with how they go on
    going_on = np.flatnonzero(lengths > s["prompt"] + 1)
    if not len(going_on):
        raise InputError(f"lm.prompt: no test text of {data['name']!r} has more than {s['prompt'] + 1} tokens")
    ids, _ = tables["test"].pad(going_on)
    given = ids[:, : s["prompt"]].to(place)
    told = continue_text(model, given, exits_of.to(place), steps=s["written"]).cpu()[:, s["prompt"] :]
    ended = (told == tokenizer.sep_token_id).cumsum(1) > 0
    said, truth = (
        tokenizer.batch_decode(tokens, skip_special_tokens=True)
        for tokens in (
            told.masked_fill(ended, tokenizer.pad_token_id), ids[:, s["prompt"] : s["prompt"] + s["written"]]
        )
    )  # fmt: skip
    before = tokenizer.batch_decode(given.cpu(), skip_special_tokens=True)
    with new_artifact() as (folder, artifact):
        save_file({data["name"]: found[:, :2].copy()}, folder / OUTPUTS)
        written = [{"prompt": p, "written": w, "text": t} for p, w, t in zip(before, said, truth, strict=True)]
        write_jsonl(folder / "continuations.jsonl", written)
    right, tokens, nll = found.sum(0)
    return {
        "outputs": artifact, "cost_layers": float(spent.sum() / whole.sum()),
        "cost": float((spent + head).sum() / (whole + head).sum()), "accuracy": right / tokens,
        "perplexity": float(np.exp(nll / tokens)), "chrf": float(CHRF().corpus_score(said, [truth]).score),
        "history": done.history,
    }  # fmt: skip
