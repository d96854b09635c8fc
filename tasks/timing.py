"""Seconds of runs that skip against the plain full model: one process, interleaved, and the same answers."""

from collections.abc import Callable
from typing import Any

from paperflows.tasks.exits import ExitsArtifact
from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import OUTPUTS, new_artifact, open_artifact
from paperflows.tasks.tradeoff import signals_of, sizes_of


def store_times(
    dataset: str, ways: dict[str, Callable[..., Any]], batches: list[tuple[Any, ...]], repeats: int, cuda: bool
) -> dict[str, Any]:
    """Seconds of the ways "full" and "early" over all batches, as outputs (repeats,) that a claim reads.

    `measured` is the ratio of their medians.
    """
    import numpy as np
    import torch
    from safetensors.numpy import save_file

    from paperflows.components.evaluation.timing import time_interleaved

    def over_all(way: Callable[..., Any]) -> Callable[[], None]:
        def run() -> None:
            for batch in batches:
                way(*batch)
            if cuda:
                torch.cuda.synchronize()

        return run

    seconds = time_interleaved({name: over_all(way) for name, way in ways.items()}, repeats=repeats)
    kept: dict[str, Any] = {"measured": float(np.median(seconds["full"]) / np.median(seconds["early"]))}
    for name, values in seconds.items():
        with new_artifact() as (folder, artifact):
            save_file({dataset: values}, folder / OUTPUTS)
        kept[name] = artifact
    return kept


@cached_task(name="time_exits")
def time_exits(
    exits: ExitsArtifact, data: Any, rule: str, budget: float, timing: dict[str, Any], device: str
) -> dict[str, Any]:
    """Seconds of the plain full model and of the run that skips, interleaved, and whether they say the same.

    Args:
        exits: with its kept model; its validation exits choose the rule's setting for `budget`.
        timing: texts, repeats, batch_sizes, shortest and longest (tokens of the texts taken; the longest texts where
            too few are that long), max_length.

    Returns:
        For each batch size the artifacts of both times, the FLOPs speed-up of these texts, and how many texts got
        another prediction or exit than from the exits of a full pass.
    """
    import numpy as np
    import torch

    from paperflows.components.early_exit import curves, flops, sentences
    from paperflows.components.early_exit.dynamic import run_early
    from paperflows.components.early_exit.exits import pool
    from paperflows.components.early_exit.policies import POLICIES, replay
    from paperflows.components.early_exit.storage import load_classifier
    from paperflows.tasks.data import read_split

    assert exits["model"] is not None
    model, tokenizer, labels = load_classifier(open_artifact(exits["model"]))
    place = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    model.to(place)
    validation, sizes = signals_of(exits, "validation"), sizes_of(exits)
    policy = POLICIES[rule](curves.setting_at(rule, validation, sizes, budget))
    rows = sentences.sample(read_split(data, "test"), 10**9, seed=0)
    every = sentences.labelled(rows, tokenizer, labels, max_length=timing["max_length"])
    fit = sentences.of_length(every.table.lengths, timing["texts"], timing["shortest"], timing["longest"])
    texts = sentences.labelled([rows[i] for i in fit], tokenizer, labels, max_length=timing["max_length"])
    full = sentences.exit_signals(model, texts)
    left = replay(policy, full["logits"], full["confidence"])
    said = full["logits"][torch.arange(len(left)), left - 1].argmax(-1)
    cost: dict[str, Any] = {"width": exits["width"], "inner": exits["inner"], "outputs": max(1, len(labels))}
    spent = flops.sentence_flops(texts.table.lengths, left, **cost)
    whole = flops.static_flops(texts.table.lengths, exits["depth"], **cost)
    found: dict[str, Any] = {"rule": rule, "texts": len(fit), "mean_tokens": float(texts.table.lengths.mean())}

    @torch.inference_mode()
    def plain(ids: Any, mask: Any) -> Any:
        hidden = model.encoder.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return model.exits[-1](pool(hidden, mask, model.pooling))

    def early(ids: Any, mask: Any) -> Any:
        return run_early(model, ids, mask, policy)

    for size in timing["batch_sizes"]:
        taken = np.arange(len(fit)) if size > 1 else np.arange(0, len(fit), 4)
        batches = [texts.table.pad(taken[i : i + size]) for i in range(0, len(taken), size)]
        batches = [(ids.to(place), mask.to(place)) for ids, mask in batches]
        runs = [early(ids, mask) for ids, mask in batches]
        same = torch.cat([logits.argmax(-1).cpu() for logits, _ in runs]) == said[taken]
        same &= torch.cat([layers.cpu() for _, layers in runs]) == left[taken]

        seconds = store_times(
            exits["dataset"], {"full": plain, "early": early}, batches, timing["repeats"], place.type == "cuda"
        )
        gain = float(whole[taken].mean() / spent[taken].mean())
        found[f"batch{size}"] = {**seconds, "flops_speedup": gain, "different": int((~same).sum())}
    return found
