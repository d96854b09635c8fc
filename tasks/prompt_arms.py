"""New tasks by a few examples, read with prompts: pre-trained, combined, fresh, or none."""

from typing import Any

from paperflows.tasks.data import read_rows
from paperflows.tasks.policy import cached_task
from paperflows.tasks.prompts import SPLITS, ShotsArtifact
from paperflows.tasks.reading import MODULES, PRETRAINED, fresh_modules, load_reader
from paperflows.tasks.store import OUTPUTS, Artifact, new_artifact, open_artifact
from paperflows.tasks.training import fit


class ReadArtifact(Artifact):
    """Right (1) or wrong (0) on every test example, the router's gates where there is one, a search's forward calls."""

    dataset: str
    arm: str
    score: float
    accuracy: float
    calls: int
    gates: list[float]
    history: list[dict[str, float]]


@cached_task(name="adapt_prompts", task_run_name="{arm}-{shots[dataset]}-seed{seed}")
def adapt_prompts(
    arm: str,
    reader: Artifact,
    prompts: Artifact | None,
    shots: ShotsArtifact,
    settings: dict[str, Any],
    seed: int,
    device: str,
) -> ReadArtifact:
    """A new task by a few examples; the weights best on dev are kept, test is scored once.

    | arm | prompts | learnt |
    | --- | --- | --- |
    | none | none | nothing |
    | modular | pre-trained K | the router for a third of the steps, then the prompts too |
    | modular_untrained | K drawn at random | as modular |
    | uniform | pre-trained K | the prompts, the router fixed at equal gates |
    | single | one pre-trained | the prompt |
    | scratch | one drawn at random | the prompt |
    | full | none | the reader's weights |
    | search_router | pre-trained K | K router values, by forward passes alone |
    | search_both | pre-trained K | the router, then the prompt, by forward passes alone, for the same calls in all |
    | search_input | none | a prompt at the input by BBT, for the same calls |
    | search_scratch | none | prompts at every layer by BBTv2 (where modules have one there), for the same calls |

    Args:
        prompts: of `pretrain_prompts`; None for prompts drawn at random.
        settings: as there, and modules (K), tune_steps, tune_rate, tune_router_rate (a factor on it), evaluations,
            router_calls, prompt_calls, population, router_sigma, bound, prompt_sigma, alpha.
    """
    import torch
    from safetensors.torch import load_file, save_file

    from paperflows.components.prompts.routed import RoutedReader, right_answers
    from paperflows.components.training.device import accelerator

    s = settings
    frozen, tokenizer = load_reader(reader)
    state = load_file(open_artifact(prompts) / MODULES) if prompts else None
    count = len(state["prompts"]) if state else s["modules"] if arm == "modular_untrained" else 1
    modules = fresh_modules(frozen, count, 1, s, PRETRAINED if state else 1 + seed)
    if state:
        with torch.no_grad():
            modules.prompts.copy_(state["prompts"])
    model = RoutedReader(frozen, modules).to(accelerator(device).device)
    texts = _shots(shots, tokenizer, s, seed)
    read: Any = model
    found: Any = None
    calls = 0
    gates: list[float] = []
    history: list[dict[str, float]] = []
    if arm in ("none", "full", "search_input", "search_scratch"):
        read = frozen
    if arm in ("search_input", "search_scratch"):
        layers = 1 if arm == "search_input" else modules.prompts.shape[1]
        found, history, calls = _search_from_nothing(frozen.eval(), modules.start, layers, texts, s, seed)
    elif arm.startswith("search"):
        history, calls = _search(arm, model, texts, s, seed)
    elif arm != "none":
        history = _tune(arm, read, texts, s, f"{arm}-{shots['dataset']}-seed{seed}", seed, device)
    if read is model:
        gates = [float(g) for g in model.modular.gates(0).detach().cpu()]
    score = float(right_answers(read, texts["dev"], found).mean())
    right = right_answers(read, texts["test"], found)
    with new_artifact() as (out, artifact):
        save_file({shots["dataset"]: right}, out / OUTPUTS)
    return ReadArtifact(
        **artifact, dataset=shots["dataset"], arm=arm, score=score, accuracy=float(right.mean()), calls=calls,
        gates=gates, history=history,
    )  # fmt: skip


def _tune(
    arm: str, model: Any, texts: dict[str, Any], settings: dict[str, Any], name: str, seed: int, device: str
) -> list[dict[str, float]]:
    """By gradient; leaves the weights best on dev in `model`."""
    from paperflows.components.prompts.routed import reading_loss, right_answers
    from paperflows.components.training.batching import Batches

    s, routed = settings, arm in ("modular", "modular_untrained")
    batches = Batches(batch_size=s["batch_size"], seed=seed, lengths=texts["train"].table.lengths)
    if arm == "full":
        model.requires_grad_(True)
    else:
        model.modular.router.requires_grad_(routed)
    first = s["tune_steps"] // 3 if routed else 0

    def batch_at(step: int) -> dict[str, Any]:
        return {**texts["train"].batch(batches.at(step)), "router_only": step < first}

    done = fit(
        name, {"arm": arm, "seed": seed}, model, batch_at, reading_loss, s["tune_steps"], s["tune_rate"], seed, device,
        weight_decay=0.0, rates={"modular.router": s["tune_router_rate"]},
        evaluate=lambda _: float(right_answers(model, texts["dev"]).mean()),
        evaluate_every=max(1, s["tune_steps"] // s["evaluations"]),
    )  # fmt: skip
    return list(done.history)


def _search(
    arm: str, model: Any, texts: dict[str, Any], settings: dict[str, Any], seed: int
) -> tuple[list[dict[str, float]], int]:
    """By forward passes from pre-trained prompts; leaves the best on dev in `model`."""
    from paperflows.components.prompts.routed import right_answers, search_router

    s, total = settings, settings["router_calls"] + settings["prompt_calls"]
    router_calls = total if arm == "search_router" else s["router_calls"]
    place = model.modular.prompts.device
    groups = [{k: v.to(place) for k, v in batch.items()} for batch in texts["train"].groups(16)]
    return search_router(
        model.eval(), groups, router_calls=router_calls, prompt_calls=total - router_calls, population=s["population"],
        router_sigma=s["router_sigma"], bound=s["bound"], prompt_sigma=s["prompt_sigma"], seed=seed,
        score=lambda: float(right_answers(model, texts["dev"]).mean()), every=max(s["population"], total // 8),
    )  # fmt: skip


def _search_from_nothing(
    reader: Any, start: Any, layers: int, texts: dict[str, Any], settings: dict[str, Any], seed: int
) -> tuple[dict[int, Any], list[dict[str, float]], int]:
    """By forward passes from nothing; the prompts best on dev."""
    from paperflows.components.prompts.routed import right_answers, search_from_nothing

    s, total = settings, settings["router_calls"] + settings["prompt_calls"]
    return search_from_nothing(
        reader, texts["train"], start, layers=layers, dimensions=s["dimensions"], alpha=s["alpha"], calls=total,
        population=s["population"], seed=seed,
        score=lambda some: float(right_answers(reader, texts["dev"], some).mean()),
        every=max(s["population"], total // 8),
    )  # fmt: skip


def _shots(shots: ShotsArtifact, tokenizer: Any, settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """Train, dev and test of a few-shot task in its form."""
    from paperflows.components.prompts.reading import form_of, read

    folder = open_artifact(shots)
    rows = {split: read_rows(folder / f"{split}.jsonl") for split in SPLITS}
    labels = sorted({str(row["label"]) for row in rows["train"]})
    form = form_of(shots["dataset"], settings["questions"])
    return {
        split: read(
            some, form, tokenizer, labels=labels, options=len(labels), max_length=settings["max_length"],
            seed=seed if split == "train" else 0,
        )
        for split, some in rows.items()
    }  # fmt: skip
