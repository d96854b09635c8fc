"""Train and time classifiers whose tokens leave by hash."""

from typing import Any

from paperflows.tasks.data import DatasetArtifact, read_split
from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import OUTPUTS, Artifact, new_artifact, open_artifact
from paperflows.tasks.timing import store_times
from paperflows.tasks.tradeoff import positive_class
from paperflows.tasks.training import fit

HASH = "hash.safetensors"


class HashedArtifact(Artifact):
    """Outputs (N, 4) on test of one hashed classifier, what it cost, and its hash and weights where kept."""

    dataset: str
    cost: float
    quality: float
    parameters: int
    history: list[dict[str, float]]
    model: Artifact | None


@cached_task(name="train_hashed", task_run_name="{kind}-{data[name]}-seed{seed}")
def train_hashed(
    kind: str,
    start: Artifact,
    data: DatasetArtifact,
    depth: int,
    speedup: float | None,
    buckets: int,
    training: dict[str, Any],
    f1_of: dict[str, str],
    seed: int,
    device: str,
    keep: bool = False,
) -> HashedArtifact:
    """Fine-tune with tokens that leave by hash, from a kept model with exits (as the paper starts from ElasticBERT).

    Args:
        kind: a hash (see `make_hash`).
        start: the joint model; its last exit is the classifier's start.
        depth: layers kept of it.
        speedup: by token mass; None for the paper's equal numbers of types in `buckets` buckets.
        training: as in `train_exits`, with `before`.
    """
    import numpy as np
    import torch
    from safetensors.numpy import save_file
    from safetensors.torch import save_file as save_tensors

    from paperflows.components.early_exit import curves, hashed, sentences
    from paperflows.components.early_exit.flops import static_flops
    from paperflows.components.early_exit.storage import load_classifier
    from paperflows.components.evaluation.statistics import accuracy_f1
    from paperflows.components.training.device import bf16_is_fast

    t = training
    torch.manual_seed(seed)
    joint, tokenizer, labels = load_classifier(
        open_artifact(start), depth=depth, freeze_embeddings=t["freeze_embeddings"]
    )
    full_depth, encoder = joint.full_depth, joint.encoder
    model = hashed.HashedClassifier(encoder, outputs=len(labels), pooling=joint.pooling)
    model.head = joint.exits[-1]  # type: ignore[assignment]
    texts = sentences.labelled(
        sentences.sample(read_split(data, "train"), t["examples"], seed=0),
        tokenizer,
        labels,
        max_length=t["max_length"],
    )
    token_hash = hashed.make_hash(
        kind, texts, depth=depth, full_depth=full_depth, speedup=speedup, buckets=buckets,
        special=tokenizer.all_special_ids, width=encoder.width, inner=encoder.inner, seed=seed,
        vectors=encoder.encoder.get_input_embeddings().weight.detach().double().numpy(),
    )  # fmt: skip
    bf16 = bf16_is_fast(device)
    objective = hashed.hashed_objective(
        texts, token_hash, batch_size=t["batch_size"], seed=seed, before=t["before"], bf16=bf16
    )
    name = f"{kind}{'' if speedup is None else speedup}-depth{depth}-{data['name']}-seed{seed}"
    done = fit(
        name, {"hash": kind, "depth": depth, "dataset": data["name"], "seed": seed, **t}, model, objective.batch_at,
        objective.loss_fn, t["steps"], t["learning_rate"], seed, device, rates={"head.": t["head_rate"]},
    )  # fmt: skip
    held = sentences.labelled(
        sentences.sample(read_split(data, "test"), t["evaluated"], seed=0), tokenizer, labels,
        max_length=t["max_length"],
    )  # fmt: skip
    logits, flops = hashed.hashed_outputs(model, held, token_hash, draw=seed, bf16=bf16)
    full = static_flops(held.table.lengths, full_depth, width=encoder.width, inner=encoder.inner, outputs=len(labels))
    columns = curves.columns_of(logits, held.target, positive=positive_class(data["name"], labels, f1_of))
    with new_artifact() as (folder, artifact):
        save_file({data["name"]: columns}, folder / OUTPUTS)
    kept: Artifact | None = None
    if keep:
        with new_artifact() as (folder, kept):
            save_tensors({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "hashed.safetensors")
            save_file(
                {"layers": token_hash.layers, "special": token_hash.special, "shares": token_hash.shares}, folder / HASH
            )
    return HashedArtifact(
        **artifact, dataset=data["name"], cost=float(flops.mean() / full.mean()),
        quality=float(accuracy_f1(np.zeros(1), columns)), parameters=sum(p.numel() for p in model.parameters()),
        history=done.history, model=kept,
    )  # fmt: skip


@cached_task(name="join_outputs")
def join_outputs(parts: list[Artifact]) -> Artifact:
    """The outputs of one seed on several datasets as one artifact."""
    from safetensors.numpy import load_file, save_file

    with new_artifact() as (folder, artifact):
        save_file({k: v for p in parts for k, v in load_file(open_artifact(p) / OUTPUTS).items()}, folder / OUTPUTS)
    return artifact


@cached_task(name="time_hashed")
def time_hashed(
    hashed: HashedArtifact, start: Artifact, data: DatasetArtifact, depth: int, timing: dict[str, Any], device: str
) -> dict[str, Any]:
    """Seconds of the plain full encoder and of the run on active tokens alone, and whether masking says the same."""
    import numpy as np
    import torch
    from safetensors.numpy import load_file
    from safetensors.torch import load_file as load_tensors

    from paperflows.components.early_exit import sentences
    from paperflows.components.early_exit.exits import pool
    from paperflows.components.early_exit.flops import exit_flops, static_flops, token_flops
    from paperflows.components.early_exit.hashed import HashedClassifier, TokenHash
    from paperflows.components.early_exit.storage import load_classifier

    assert hashed["model"] is not None
    folder = open_artifact(hashed["model"])
    joint, tokenizer, labels = load_classifier(open_artifact(start), depth=depth)
    whole, _, _ = load_classifier(open_artifact(start))
    model = HashedClassifier(joint.encoder, outputs=len(labels), pooling=joint.pooling)
    model.load_state_dict(load_tensors(folder / "hashed.safetensors"))
    stored = load_file(folder / HASH)
    token_hash = TokenHash("ids", stored["layers"], stored["shares"], stored["special"])
    place = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    model.to(place).eval()
    whole.to(place)
    rows = sentences.sample(read_split(data, "test"), 10**9, seed=0)
    every = sentences.labelled(rows, tokenizer, labels, max_length=timing["max_length"])
    chosen = sentences.of_length(every.table.lengths, timing["texts"], timing["shortest"], timing["longest"])
    lengths = every.table.lengths[chosen]
    sizes: dict[str, Any] = {"width": model.encoder.width, "inner": model.encoder.inner}
    full = static_flops(lengths, joint.full_depth, outputs=len(labels), **sizes)
    found: dict[str, Any] = {"texts": len(chosen), "mean_tokens": float(lengths.mean())}

    @torch.inference_mode()
    def plain(ids: Any, mask: Any, _: Any) -> Any:
        hidden = whole.encoder.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return whole.exits[-1](pool(hidden, mask, whole.pooling))

    @torch.inference_mode()
    def early(ids: Any, mask: Any, exits: Any) -> Any:
        return model(ids, mask, exits)

    for size in timing["batch_sizes"]:
        taken = chosen if size > 1 else chosen[::4]
        batches, spent, different = [], [], 0
        for at in range(0, len(taken), size):
            ids, mask = every.table.pad(taken[at : at + size])
            exits = token_hash.exits(ids.numpy(), mask.numpy(), 0) * mask
            batches.append((ids.to(place), mask.to(place), exits.to(place)))
            active = np.stack([(exits > layer).sum(1).numpy() for layer in range(depth)], 1)
            spent.append(token_flops(active, mask.sum(1).numpy(), **sizes))
            with torch.inference_mode():
                reference = model(*batches[-1], masked=True).argmax(-1)
            different += int((early(*batches[-1]).argmax(-1) != reference).sum())
        head = exit_flops(width=model.encoder.width, outputs=len(labels))
        share = full if size > 1 else full[::4]
        gain = float(share.mean() / (np.concatenate(spent).mean() + head))
        times = store_times(
            data["name"], {"full": plain, "early": early}, batches, timing["repeats"], place.type == "cuda"
        )
        found[f"batch{size}"] = {**times, "flops_speedup": gain, "different": different}
    return found
