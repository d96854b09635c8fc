"""Tasks as reading comprehension: one reader for all of them, and modular prompts learnt over many."""

from typing import Any

from paperflows.tasks.data import DatasetArtifact, read_split
from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import Artifact, new_artifact, open_artifact
from paperflows.tasks.training import ModelArtifact, fit

SPAN, MODULES = "span.safetensors", "modules.safetensors"
PRETRAINED = 0  # seed of the pre-training, and so of the projections that its prompts are read with


class ReaderArtifact(ModelArtifact):
    """A reader, and for each upstream task its accuracy on validation beside what knows nothing of the texts."""

    tasks: list[dict[str, Any]]


class PromptsArtifact(ModelArtifact):
    """Pre-trained prompts, the gates of every upstream task (S, K), and how far two tasks' gates are apart."""

    gates: list[list[float]]
    apart: float


@cached_task(name="train_reader")
def train_reader(
    model: Artifact,
    upstream: list[DatasetArtifact],
    held_out: list[DatasetArtifact],
    settings: dict[str, Any],
    seed: int,
    device: str,
) -> ReaderArtifact:
    """The encoder `model` with a span head learnt over all upstream tasks, taken in turn; `score` is on validation.

    Args:
        held_out: the new tasks; no upstream example has a text of theirs.
        settings: questions, options, max_length, batch_size, reader_steps, reader_rate, encoder_rate (factor on it for
            the encoder; 0 freezes it).
    """
    import torch
    from safetensors.torch import save_file

    from paperflows.components.prompts.reading import Reader
    from paperflows.components.prompts.routed import reading_loss, right_answers

    s, folder = settings, open_artifact(model)
    encoder, tokenizer = _encoder(folder)
    torch.manual_seed(seed)
    reader = Reader(encoder)
    if not s["encoder_rate"]:
        reader.encoder.requires_grad_(False)
    hidden = _texts_of(held_out)
    tables = [upstream_examples(data, tokenizer, s, "train", hidden) for data in upstream]
    held = [upstream_examples(data, tokenizer, s, "validation", hidden) for data in upstream]
    batch_at = _in_turn(tables, s["batch_size"], seed)
    done = fit(
        "train_reader", {"steps": s["reader_steps"], "seed": seed}, reader, batch_at, reading_loss, s["reader_steps"],
        s["reader_rate"], seed, device, rates={"encoder.": s["encoder_rate"]},
    )  # fmt: skip
    tasks = [
        {
            "name": data["name"], "accuracy": float(right_answers(reader, some).mean()),
            "majority": some.majority, "chance": some.chance, "examples": len(some),
        }
        for data, some in zip(upstream, held, strict=True)
    ]  # fmt: skip
    with new_artifact() as (out, artifact):
        encoder.cpu().save_pretrained(out)
        tokenizer.save_pretrained(out)
        save_file({k: v.cpu() for k, v in reader.span.state_dict().items()}, out / SPAN)
    score = sum(task["accuracy"] for task in tasks) / len(tasks)
    return ReaderArtifact(**artifact, name="reader", score=score, history=done.history, tasks=tasks)


@cached_task(name="pretrain_prompts", task_run_name="pretrain_prompts-{modules}")
def pretrain_prompts(
    reader: Artifact,
    upstream: list[DatasetArtifact],
    held_out: list[DatasetArtifact],
    modules: int,
    settings: dict[str, Any],
    device: str,
) -> PromptsArtifact:
    """`modules` prompts and a router over all upstream tasks, the reader frozen; `score` is on validation.

    Args:
        held_out: the new tasks, as above.
        settings: those of the forms (questions, options, max_length), of the prompts (length, dimensions, scale,
            temperature), and of the training (batch_size, prompt_steps, prompt_rate, router_rate: a factor on it).
    """
    import torch
    from safetensors.torch import save_file

    from paperflows.components.prompts.routed import RoutedReader, reading_loss, right_answers

    s, seed = settings, PRETRAINED
    frozen, tokenizer = load_reader(reader)
    model = RoutedReader(frozen, fresh_modules(frozen, modules, len(upstream), s, seed))
    hidden = _texts_of(held_out)
    tables = [upstream_examples(data, tokenizer, s, "train", hidden) for data in upstream]
    held = [upstream_examples(data, tokenizer, s, "validation", hidden) for data in upstream]
    turn = _in_turn(tables, s["batch_size"], seed)

    def batch_at(step: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        uniforms = torch.rand(modules, generator=generator).clamp(1e-6, 1 - 1e-6)
        return {**turn(step), "task": step % len(tables), "uniforms": uniforms}

    name = f"pretrain_prompts-{modules}"
    done = fit(
        name, {"modules": modules, "steps": s["prompt_steps"], "seed": seed}, model, batch_at, reading_loss,
        s["prompt_steps"], s["prompt_rate"], seed, device, rates={"modular.router": s["router_rate"]}, weight_decay=0.0,
    )  # fmt: skip
    scores = []
    for task, some in enumerate(held):
        with torch.no_grad():
            alone = fresh_modules(frozen, modules, 1, s, seed).to(model.modular.prompts.device)
            alone.prompts.copy_(model.modular.prompts)
            alone.router.copy_(model.modular.router[task : task + 1])
        scores.append(float(right_answers(RoutedReader(frozen, alone), some).mean()))
    with new_artifact() as (out, artifact):
        state = {"prompts": model.modular.prompts, "router": model.modular.router}
        save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, out / MODULES)
    gates = torch.sigmoid(model.modular.router.detach()).cpu().tolist()
    return PromptsArtifact(
        **artifact, name=name, score=sum(scores) / len(scores), history=done.history, gates=gates,
        apart=model.modular.tasks_apart,
    )  # fmt: skip


def upstream_examples(
    data: DatasetArtifact, tokenizer: Any, settings: dict[str, Any], split: str, hidden: set[str]
) -> Any:
    """Rows of one split of an upstream task in its form, at most `examples` of them, none with a hidden text."""
    import random

    from paperflows.components.prompts.reading import form_of, read

    rows = [row for row in read_split(data, split) if not hidden & set(map(_fold, _texts(row)))]
    random.Random(0).shuffle(rows)
    whole = [row for name in data["rows"] for row in read_split(data, name)]
    labels = [] if "choices" in rows[0] else sorted({str(row["label"]) for row in whole})
    most = settings["examples"] if split == "train" else min(settings["examples"], 200)
    return read(
        rows[:most], form_of(data["name"], settings["questions"]), tokenizer, labels=labels,
        options=settings["options"], max_length=settings["max_length"], seed=0,
    )  # fmt: skip


def _texts_of(datasets: list[DatasetArtifact]) -> set[str]:
    return {
        _fold(text)
        for data in datasets
        for split in data["rows"]
        for row in read_split(data, split)
        for text in _texts(row)
    }


def _texts(row: dict[str, Any]) -> list[str]:
    return [row[field] for field in ("text", "text_pair") if row.get(field)]


def _fold(text: str) -> str:
    return " ".join(text.casefold().split())


def _in_turn(tables: list[Any], batch_size: int, seed: int) -> Any:
    """step -> a batch of task step modulo their number."""
    from paperflows.components.training.batching import Batches

    batches = [Batches(batch_size=batch_size, seed=seed, lengths=table.table.lengths) for table in tables]

    def batch_at(step: int) -> dict[str, Any]:
        turn, task = divmod(step, len(tables))
        return tables[task].batch(batches[task].at(turn))

    return batch_at


def _encoder(folder: Any) -> tuple[Any, Any]:
    from transformers import AutoModel

    from paperflows.components.models.pretrained import load_pretrained, load_tokenizer

    encoder: Any = load_pretrained(AutoModel, str(folder)).eval()
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    return encoder, load_tokenizer(str(folder))


def load_reader(reader: Artifact) -> tuple[Any, Any]:
    """A stored reader and its tokenizer."""
    from safetensors.torch import load_file

    from paperflows.components.prompts.reading import Reader

    folder = open_artifact(reader)
    encoder, tokenizer = _encoder(folder)
    built = Reader(encoder)
    built.span.load_state_dict(load_file(folder / SPAN))
    return built.eval(), tokenizer


def fresh_modules(reader: Any, modules: int, tasks: int, settings: dict[str, Any], seed: int) -> Any:
    """K = `modules` prompts drawn at random, and a router of equal gates for each task."""
    from paperflows.components.prompts.modular import ModularPrompts
    from paperflows.components.prompts.tuning import word_states

    inner = reader.encoder.encoder
    return ModularPrompts(
        modules=modules, tasks=tasks, layers=reader.encoder.depth if settings["deep"] else 1,
        dimensions=settings["dimensions"], start=word_states(inner, count=settings["length"], seed=seed),
        scale=settings["scale"], temperature=settings["temperature"], seed=seed,
    )  # fmt: skip
