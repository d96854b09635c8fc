"""Families of inputs, the search for the configuration that suits each input, and a model that learns to say it."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from paperflows.tasks.data import DatasetArtifact, read_rows, read_split
from paperflows.tasks.policy import cached_task
from paperflows.tasks.progress import progress
from paperflows.tasks.store import Artifact, new_artifact, open_artifact
from paperflows.tasks.training import ModelArtifact, fit

SPLITS = ("train", "validation", "test")
WITHHELD = 5  # one training input in so many
SCORES, LABELS = "scores.safetensors", "labels.jsonl"


class Family(BaseModel):
    """Inputs of one kind, from one dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str = Field(pattern="^(sums|translation|captions|continuation)$", description="What is asked and scored")
    dataset: str = Field(description="Name of a dataset with train, validation and test")
    target: str = Field("", description="Field of the answer; for translation only")
    wordings: tuple[str, ...] = Field(min_length=1, description="Ways to ask, with {} where the input stands")


class FamilyArtifact(Artifact):
    """`train.jsonl`, `validation.jsonl` (inputs to search on) and `test.jsonl` of one family, and `withheld.jsonl`: for
    continuations, texts that the writer does not learn, from which what is likely is estimated.
    """

    name: str
    counts: dict[str, int]


class Labels(Artifact):
    """`labels.jsonl` of a family's validation inputs: prompt and configuration; what the search says of the family."""

    best: int
    low: float
    high: float
    flat: int


@cached_task(name="collect_family", task_run_name="collect_family-{name}")
def collect_family(
    name: str, family: Family, data: DatasetArtifact, limits: dict[str, int], max_words: int
) -> FamilyArtifact:
    """Inputs of a family by split; a source of validation or test is in no other split.

    A dataset without a validation split gives some of its training inputs for it.

    Args:
        limits: split -> inputs kept.
    """
    from dataclasses import asdict

    from paperflows.components.data.jsonl import write_jsonl
    from paperflows.components.decoding.families import items_of

    counts: dict[str, int] = {}
    taken: set[str] = set()
    with new_artifact() as (folder, artifact):
        for number, split in enumerate(reversed(SPLITS)):
            items: Any = items_of(
                family.kind,  # type: ignore[arg-type]
                read_split(data, split if split in data["rows"] else "train"),
                target=family.target, wordings=family.wordings, max_words=max_words,
                seed=number,
            )  # fmt: skip
            kept = [item for item in items if item.source.casefold() not in taken][: limits[split]]
            taken |= {item.source.casefold() for item in kept}
            if split == "train" and family.kind == "continuation":
                write_jsonl(folder / "withheld.jsonl", [asdict(item) for item in kept[::WITHHELD]])
                kept = [item for place, item in enumerate(kept) if place % WITHHELD]
            write_jsonl(folder / f"{split}.jsonl", [asdict(item) for item in kept])
            counts[split] = len(kept)
    return FamilyArtifact(**artifact, name=name, counts=counts)


@cached_task(name="train_writer", task_run_name="train_writer-seed{seed}")
def train_writer(
    families: list[FamilyArtifact], grid: dict[str, list[float]], decoder: dict[str, Any], training: dict[str, Any],
    seed: int, device: str,
) -> ModelArtifact:  # fmt: skip
    """A small decoder trained to answer every family, as many inputs of each in a batch.

    Args:
        decoder: vocabulary, width, layers, heads, hidden, positions.
        training: steps, batch_size, learning_rate.
    """
    from paperflows.components.decoding.writer import Writer, sequence_loss

    items = [items_in(family, "train") for family in families]
    texts = [text for family in items for item in family for text in (item.prompt, item.answer)]
    writer = Writer.fresh(texts, grid, **decoder, seed=seed)
    rows = [writer.answer_rows([i.prompt for i in family], [i.answer for i in family]) for family in items]
    t = training
    done = fit(
        f"writer-seed{seed}", {"seed": seed, **t}, writer.model,
        lambda step: _mixed(writer, rows, t["batch_size"], seed, step, whole=True), sequence_loss, t["steps"],
        t["learning_rate"], seed, device,
    )  # fmt: skip
    with new_artifact() as (folder, artifact):
        writer.model.cpu()
        writer.save(folder)
    return ModelArtifact(**artifact, name="writer", score=None, history=done.history)


@cached_task(name="ship_settings")
def ship_settings(model: str) -> list[float]:
    """The configuration that a pretrained model is shipped with."""
    from paperflows.components.decoding.shipped import shipped_configuration

    return list(values_of(shipped_configuration(model)))


@cached_task(name="prune_grid", task_run_name="prune_grid-{family[name]}")
def prune_grid(
    model: str, stored: Artifact | None, family: FamilyArtifact, kind: str, grid: dict[str, list[float]], inputs: int,
    samples: int, longest: int, device: str,
) -> list[dict[str, Any]]:  # fmt: skip
    """Configurations on the way of a greedy walk over the grid with their mean scores, on the first few inputs."""
    from paperflows.components.decoding.configurations import Configuration, check_grid
    from paperflows.components.decoding.pruning import walk

    check_grid(grid)
    answer = answerer(model, stored, grid, family, kind, "validation", inputs, longest, device, told=False)
    with progress(f"prune the grid for {family['name']}"):
        seen = walk(lambda some: answer(list(some), samples, 0).mean((0, 2)).tolist(), grid, Configuration())
    return [{"configuration": list(values_of(c)), "score": float(score)} for c, score in seen.items()]


@cached_task(name="choose_configurations")
def choose_configurations(walks: dict[str, list[dict[str, Any]]], keep: int) -> list[list[float]]:
    """The configurations worth trying on every input: the best of each family's walk, greedy and the default."""
    from paperflows.components.decoding.pruning import shortlist

    found = shortlist(
        {name: {configuration_of(e["configuration"]): e["score"] for e in seen} for name, seen in walks.items()}, keep
    )
    return [list(values_of(configuration)) for configuration in found]


@cached_task(name="sweep", task_run_name="sweep-{family[name]}-{split}-seed{seed}")
def sweep(
    model: str, stored: Artifact | None, family: FamilyArtifact, kind: str, split: str,
    configurations: list[list[float]], grid: dict[str, list[float]], inputs: int, samples: int, longest: int, seed: int,
    device: str, told: bool,
) -> Artifact:  # fmt: skip
    """Scores (N, C, M) of the first `inputs` of a split: every configuration, `samples` outputs each.

    Args:
        told: whether the settings stand in the input; a model that was not tuned does not know their words.
    """
    from safetensors.numpy import save_file

    answer = answerer(model, stored, grid, family, kind, split, inputs, longest, device, told=told)
    with progress(f"sweep {family['name']} {split}"):
        scores = answer([configuration_of(c) for c in configurations], samples, seed)
    with new_artifact() as (folder, artifact):
        save_file({family["name"]: scores}, folder / SCORES)
    return artifact


@cached_task(name="label_inputs", task_run_name="label_inputs-{family[name]}")
def label_inputs(
    family: FamilyArtifact, swept: Artifact, configurations: list[list[float]], shrinkage: float, keep_flat: bool
) -> Labels:
    """The configuration to learn for each searched input, and the range of the family's mean scores."""
    from paperflows.components.data.jsonl import write_jsonl
    from paperflows.components.decoding import labels

    scores = scores_in(swept, family["name"])
    chosen, flat = labels.label_inputs(scores, shrinkage)
    means = scores.mean((0, 2))
    rows = [
        {"prompt": item.prompt, "configuration": configurations[int(label)]}
        for item, label, is_flat in zip(items_in(family, "validation"), chosen, flat, strict=False)
        if keep_flat or not is_flat
    ]
    with new_artifact() as (folder, artifact):
        write_jsonl(folder / LABELS, rows)
    return Labels(
        **artifact, best=int(means.argmax()), low=float(means.min()), high=float(means.max()), flat=int(flat.sum())
    )


@cached_task(name="best_single")
def best_single(families: list[FamilyArtifact], swept: list[Artifact]) -> int:
    """Number of the configuration with the highest normalised mean score over all families."""
    import numpy as np

    from paperflows.components.decoding.labels import normalise

    means = [scores_in(scores, family["name"]).mean((0, 2)) for family, scores in zip(families, swept, strict=True)]
    return int(np.mean([normalise(m, m.min(), m.max()) for m in means], axis=0).argmax())


def answerer(
    model: str, stored: Artifact | None, grid: dict[str, list[float]], family: FamilyArtifact, kind: str, split: str,
    inputs: int, longest: int, device: str, *, told: bool,
) -> Any:  # fmt: skip
    """A function (configurations, samples, seed) -> scores (N, C, M) of the first inputs of a split."""
    import numpy as np

    writer, fluency = open_writer(model, stored, grid, device), fluency_of(family, kind)
    items = items_in(family, split)[:inputs]

    def answer(configurations: list[Any], samples: int, seed: int) -> Any:
        choices = {str(number): [configuration] * len(items) for number, configuration in enumerate(configurations)}
        drawn = sample_scores(writer, kind, fluency, items, choices, samples, longest, seed, told=told)
        return np.stack([drawn[number] for number in choices], axis=1)

    return answer


def sample_scores(
    writer: Any, kind: str, fluency: Any, items: list[Any], choices: dict[str, list[Any]], samples: int, longest: int,
    seed: int, *, told: bool,
) -> dict[str, Any]:  # fmt: skip
    """Method -> (N, M) scores; an (input, configuration) that several methods chose is generated once.

    Args:
        fluency: of `fluency_of`, for continuations.
    """
    import numpy as np

    from paperflows.components.decoding.scores import score_outputs

    wanted = {(i, c): 0 for chosen in choices.values() for i, c in enumerate(chosen)}
    pairs = list(wanted)
    rows = [(i, c, m) for i, c in pairs for m in range(1 if c.temperature == 0 else samples)]
    which = np.array([i for i, _, _ in rows])
    # sample m of an input draws the same numbers under every configuration: what differs is the configuration
    seeds = np.array([(seed * 1_000_003 + i) * 64 + m for i, _, m in rows])
    prompts, chosen = [item.prompt for item in items], [c for _, c, _ in rows]
    texts = writer.answer(prompts, which, chosen, seeds, longest=longest, told=told)
    scored = score_outputs(kind, [items[i] for i in which], texts, fluency)  # type: ignore[arg-type]
    by_pair: dict[Any, list[float]] = {}
    for (i, c, _), score in zip(rows, scored, strict=True):
        by_pair.setdefault((i, c), []).append(score)
    full = {pair: found * samples if len(found) < samples else found for pair, found in by_pair.items()}
    return {method: np.array([full[i, c] for i, c in enumerate(by)]) for method, by in choices.items()}


def fluency_of(family: FamilyArtifact, kind: str) -> Any:
    """How likely a continuation is by texts that the writer did not learn; None for other kinds."""
    from paperflows.components.decoding.scores import Fluency

    if kind != "continuation":
        return None
    known = items_in(family, "withheld")
    return Fluency([item.answer for item in known], [item.answer for item in items_in(family, "validation")])


def items_in(family: FamilyArtifact, split: str) -> list[Any]:
    """Inputs of one split."""
    from paperflows.components.decoding.families import Item

    rows = read_rows(open_artifact(family) / f"{split}.jsonl")
    return [Item(**{**row, "references": tuple(row["references"])}) for row in rows]


def _mixed(writer: Any, rows: list[Any], size: int, seed: int, step: int, *, whole: bool) -> dict[str, Any]:
    return {**writer.batch(draw_rows(rows, size, seed, step), whole=whole), "ids": [step]}


def draw_rows(rows: list[Any], size: int, seed: int, step: int) -> list[Any]:
    """`size` rows, each from a family drawn evenly."""
    import numpy as np

    draw = np.random.default_rng([seed, step])
    return [rows[f][int(draw.integers(len(rows[f])))] for f in draw.integers(0, len(rows), size)]


def scores_in(artifact: Artifact, name: str) -> Any:
    """Scores (N, C, M) of a family."""
    from safetensors.numpy import load_file

    return load_file(open_artifact(artifact) / SCORES)[name]


def configuration_of(values: list[float]) -> Any:
    """A configuration of its four values."""
    from paperflows.components.decoding.configurations import SETTINGS, make

    return make(dict(zip(SETTINGS, values, strict=True)))


def values_of(configuration: Any) -> tuple[float, ...]:
    """The four values of a configuration, as JSON."""
    from dataclasses import astuple

    return astuple(configuration)


def open_writer(model: str, stored: Artifact | None, grid: dict[str, list[float]], device: str) -> Any:
    """The writer of an artifact, or the pretrained `model`, on the device and ready to generate; bfloat16 on a GPU."""
    import torch

    from paperflows.components.decoding.writer import Writer
    from paperflows.components.training.device import accelerator

    writer = Writer.load(model if stored is None else str(open_artifact(stored)), grid)
    place = accelerator(device).device
    writer.model.to(place, dtype=torch.float32 if place.type == "cpu" else torch.bfloat16)
    writer.model.eval()
    return writer
