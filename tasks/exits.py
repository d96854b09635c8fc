"""Train encoders with exits; what is kept of a training are its exits' logits on validation and test."""

from typing import Any

from paperflows.components.errors import InputError, ServiceError
from paperflows.tasks.data import DatasetArtifact, read_split
from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import Artifact, new_artifact, open_artifact
from paperflows.tasks.training import ModelArtifact, fit

SPLITS = ("validation", "test")


class ExitsArtifact(Artifact):
    """Stored exits of one training on one dataset, `<split>.safetensors`, and the sizes FLOPs depend on."""

    dataset: str
    width: int
    inner: int
    depth: int
    labels: list[str]
    parameters: int
    history: list[dict[str, float]]
    model: Artifact | None


@cached_task(name="fetch_encoder", retries=2, retry_on=(ServiceError,))
def fetch_encoder(model: str) -> Artifact:
    """A pretrained encoder (minilm, folder or Hugging Face id) with its tokenizer, stored as safetensors."""
    from transformers import AutoModel

    from paperflows.components.models.pretrained import load_pretrained, load_tokenizer

    with new_artifact() as (folder, artifact):
        load_pretrained(AutoModel, model).save_pretrained(folder)
        load_tokenizer(model).save_pretrained(folder)
    return artifact


@cached_task(name="train_exits", task_run_name="{method}-depth{depth}-{data[name]}-seed{seed}")
def train_exits(
    method: str,
    start: Artifact,
    data: DatasetArtifact,
    depth: int | None,
    training: dict[str, Any],
    seed: int,
    device: str,
    keep: bool = False,
    splits: tuple[str, ...] = SPLITS,
) -> ExitsArtifact:
    """Fine-tune the encoder `start` with exits by `method` (see `exits_objective`) and score `splits`.

    Args:
        method: also "frozen": `start` is a kept model trained by "last"; only its lower exits are trained (DeeBERT).
        start: a plain encoder, whose exits start fresh, or a kept model, whose exits go on.
        depth: layers kept; None keeps all.
        training: examples, evaluated, max_length, pooling, freeze_embeddings, steps, batch_size, learning_rate,
            head_rate; before (steps that a kept model has had).
        keep: store the trained model as well.
    """
    import torch
    from safetensors.torch import save_file

    from paperflows.components.early_exit import sentences
    from paperflows.components.early_exit.encoder import load_exit_encoder
    from paperflows.components.early_exit.exits import MultiExitClassifier
    from paperflows.components.early_exit.storage import NOTE, load_classifier, save_model
    from paperflows.components.models.pretrained import load_tokenizer
    from paperflows.components.training.device import bf16_is_fast

    t, folder = training, open_artifact(start)
    rows = sentences.sample(read_split(data, "train"), t["examples"], seed=0)
    labels = sentences.label_names(read_split(data, "train"))
    for split in splits:
        if new := set(map(str, sentences.label_names(read_split(data, split)))) - set(map(str, labels)):
            raise InputError(f"dataset {data['name']!r}, split {split}: label {min(new)!r} is not among train's")
    torch.manual_seed(seed)
    if (folder / NOTE).is_file():
        model, tokenizer, _ = load_classifier(
            folder, depth=depth, freeze_embeddings=t["freeze_embeddings"], freeze_encoder=method == "frozen"
        )
    else:
        tokenizer = load_tokenizer(str(folder))
        encoder = load_exit_encoder(
            str(folder), separator=tokenizer.sep_token_id, depth=depth, freeze_embeddings=t["freeze_embeddings"]
        )
        model = MultiExitClassifier(encoder, outputs=max(1, len(labels)), pooling=t["pooling"])
    bf16 = bf16_is_fast(device)
    texts = sentences.labelled(rows, tokenizer, labels, max_length=t["max_length"])
    way: Any = "sum" if method == "frozen" else method
    objective = sentences.exits_objective(
        texts, method=way, batch_size=t["batch_size"], seed=seed, before=t.get("before", 0), bf16=bf16
    )
    name = f"{method}-depth{model.encoder.depth}-{data['name']}-seed{seed}"
    done = fit(
        name, {"method": method, "depth": model.encoder.depth, "dataset": data["name"], "seed": seed, **t}, model,
        objective.batch_at, objective.loss_fn, t["steps"], t["learning_rate"], seed, device,
        rates={"exits.": t["head_rate"], "confidence.": t["head_rate"]},
    )  # fmt: skip
    with new_artifact() as (out, artifact):
        for split in splits:
            held = sentences.sample(read_split(data, split), t["evaluated"], seed=0)
            scored = sentences.exit_signals(
                model, sentences.labelled(held, tokenizer, labels, max_length=t["max_length"]), bf16=bf16
            )
            save_file(scored, out / f"{split}.safetensors")
    kept: Artifact | None = None
    if keep:
        with new_artifact() as (out, kept):
            save_model(model, tokenizer, labels, out, pooling=model.pooling)
    return ExitsArtifact(
        **artifact, dataset=data["name"], width=model.encoder.width, inner=model.encoder.inner,
        depth=model.encoder.depth, labels=labels, parameters=sum(p.numel() for p in model.parameters()),
        history=done.history, model=kept,
    )  # fmt: skip


@cached_task(name="pretrain_exits", task_run_name="pretrain-{exits}")
def pretrain_exits(sentences: Artifact, exits: str, settings: dict[str, Any], seed: int, device: str) -> ModelArtifact:
    """A small BERT pre-trained from nothing with masked tokens and sentence order.

    Args:
        sentences: texts (`sentences.jsonl`); each is cut into two consecutive segments.
        exits: "groups": the losses at all layers, in groups taken in turn; "last": at the last layer alone, for as
            many steps more as make the computation equal.
        settings: width, layers, heads, vocab_size, max_length, groups, steps, batch_size, learning_rate.
    """
    import torch

    from paperflows.components.early_exit.encoder import ExitEncoder
    from paperflows.components.early_exit.pretraining import MultiExitPretrainer, exit_groups, halves, step_flops
    from paperflows.components.models.tiny_bert import mask_tokens, tiny_bert, train_wordpiece
    from paperflows.components.training.batching import Batches, TokenTable
    from paperflows.components.training.device import bf16_is_fast
    from paperflows.tasks.data import read_sentences

    s = settings
    texts = read_sentences(sentences)
    tokenizer = train_wordpiece(texts, vocab_size=s["vocab_size"])
    tokenizer.model_max_length = s["max_length"]
    bert: Any = tiny_bert(
        vocab_size=len(tokenizer), width=s["width"], layers=s["layers"], heads=s["heads"], positions=s["max_length"],
        seed=seed,
    ).bert  # fmt: skip
    model = MultiExitPretrainer(ExitEncoder(bert, separator=tokenizer.sep_token_id))
    first, second = zip(*(found for found in map(halves, texts) if found), strict=True)
    table = TokenTable.from_texts(
        [*first, *second], tokenizer, max_length=s["max_length"], pairs=[*second, *first]
    )  # right order, then swapped
    count, depth = len(first), s["layers"]
    groups = exit_groups(depth, s["groups"]) if exits == "groups" else [[depth - 1]]
    cost = {"width": s["width"], "inner": 4 * s["width"], "vocabulary": len(tokenizer), "depth": depth}
    cost["tokens"] = float(table.lengths.mean())
    each = {
        n: sum(step_flops(exits=len(g), **cost) for g in some) / len(some)
        for n, some in (("groups", exit_groups(depth, s["groups"])), ("last", [[depth - 1]]))
    }
    steps = round(s["steps"] * each["groups"] / each[exits])
    batches = Batches(batch_size=s["batch_size"], seed=seed, lengths=table.lengths[:count])
    bf16 = bf16_is_fast(device)

    def batch_at(step: int) -> dict[str, Any]:
        rows = batches.at(step)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        swapped = torch.randint(2, (len(rows),), generator=generator)
        ids, mask = table.pad(rows + count * swapped.numpy())
        corrupted, labels = mask_tokens(ids, mask, tokenizer=tokenizer, share=0.15, generator=generator)
        batch = {"tokens": corrupted, "mask": mask, "labels": labels, "swapped": swapped, "ids": rows.tolist()}
        return batch | {"exits": groups[step % len(groups)]}

    def loss_fn(trained: Any, batch: Any) -> Any:
        with torch.autocast(batch["tokens"].device.type, dtype=torch.bfloat16, enabled=bf16):
            return trained(batch["tokens"], batch["mask"], batch["labels"], batch["swapped"], batch["exits"])

    name = f"pretrain-{exits}"
    done = fit(
        name, {"exits": exits, "steps": steps, "seed": seed}, model, batch_at, loss_fn, steps, s["learning_rate"], seed,
        device,
    )  # fmt: skip
    with new_artifact() as (folder, artifact):
        bert.cpu().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return ModelArtifact(**artifact, name=name, score=None, history=done.history)
