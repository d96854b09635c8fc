"""What the papers on early exits have in common: sections of their parameters, the clock's claim, curves drawn."""

from typing import Any

from pydantic import Field, model_validator

from paperflows.flows.params import Section
from paperflows.tasks import plots
from paperflows.tasks.claims import Claim


class TimedTasks(Section):
    """The tasks of a flow and the one whose test texts are timed."""

    tasks: tuple[str, ...] = Field(min_length=1, description="Datasets with train, validation and test splits")
    timed: str = Field(description="The task whose test texts are timed; one of tasks")

    @model_validator(mode="after")
    def _timed_is_a_task(self) -> "TimedTasks":
        if self.timed not in self.tasks:
            raise ValueError(f"timed is {self.timed!r}, which is not among tasks ({', '.join(self.tasks)})")
        return self


class Training(Section):
    """One method's fine-tuning; the same budget for all."""

    examples: int = Field(ge=1, description="Training texts drawn")
    evaluated: int = Field(ge=1, description="Texts drawn of validation and of test")
    max_length: int = Field(ge=8, le=512, description="Tokens kept of a text or pair")
    pooling: str = Field(pattern="^(mean|first)$", description="What an exit reads: mean over tokens, or the first")
    freeze_embeddings: bool = Field(description="Leave the embeddings as they are (saves a third of a small model)")
    steps: int = Field(ge=1, description="Optimiser steps")
    batch_size: int = Field(ge=1, description="Texts a step")
    learning_rate: float = Field(gt=0, description="Of the encoder")
    head_rate: float = Field(gt=0, description="Factor on the learning rate of exits, which start fresh")


class Timing(Section):
    """What is timed, in one process, interleaved."""

    texts: int = Field(ge=1, description="Test texts")
    shortest: int = Field(ge=1, description="Least tokens of a text taken")
    longest: int = Field(ge=1, description="Most tokens of a text taken")
    max_length: int = Field(ge=8, le=512, description="Tokens kept of a text")
    repeats: int = Field(ge=2, description="Passes of each way; their median counts")
    batch_sizes: tuple[int, ...] = Field(min_length=1, description="Texts at a time")


def batch_sizes(times: dict[str, Any]) -> list[str]:
    """The entries of a timing that are batch sizes ("batch1", "batch32"), the smallest first."""
    return sorted((s for s in times if s.startswith("batch")), key=lambda s: int(s.removeprefix("batch")))


def speed_claim(times: dict[str, Any], size: str, dataset: str) -> Claim:
    """Measured speed-up of the run that skips over the plain full model: 0.8 of the FLOPs speed-up, and above 1."""
    t = times[size]
    return Claim(
        id=f"speed_{size}", metric="seconds of the full model / seconds with exits", compare="ratio",
        statement=f"At {size.replace('batch', 'batch size ')} the clock gains 0.8 of what the FLOPs gain "
        f"({t['flops_speedup']:.2f}x)",
        ours=[t["full"]], baseline=[t["early"]], baseline_name="with exits", datasets=[dataset], statistic="median",
        margin=max(1.0, 0.8 * t["flops_speedup"]),
    )  # fmt: skip


def describe_times(found: Any, times: dict[str, Any]) -> None:
    """Metrics and a note of what was timed."""
    for size in batch_sizes(times):
        found.metrics |= {f"{size}.{k}": float(times[size][k]) for k in ("flops_speedup", "measured", "different")}
    tokens = times["mean_tokens"]
    found.notes.append(f"Timed: {times['texts']} texts, {tokens:.0f} tokens on average, against the plain encoder.")


def draw_curves(found: Any, submitted: dict[str, Any], *, ylabel: str) -> None:
    """One plot a dataset: every method's points of the first seed."""
    for dataset in next(iter(submitted.values()))[0]:
        shown = {m: sorted((p[0], p[1]) for p in seeds[0][dataset]) for m, seeds in submitted.items()}
        found.draw[f"{dataset}.png"] = lambda path, shown=shown: plots.draw_lines(
            shown, path, xlabel="share of the full FLOPs", ylabel=f"{ylabel} (first seed)"
        )


def mean(values: list[float]) -> float:
    """The arithmetic mean."""
    return sum(values) / len(values)
