"""Search prompts by forward passes alone; no gradient is computed and no weight changes."""

from typing import Any

from paperflows.tasks.policy import cached_task
from paperflows.tasks.progress import progress
from paperflows.tasks.prompts import ShotsArtifact, parts_of, read_shots
from paperflows.tasks.store import OUTPUTS, Artifact, new_artifact
from paperflows.tasks.tracking import child


class SearchedArtifact(Artifact):
    """Right (1) or wrong (0) on every test example, and the history of the search."""

    dataset: str
    method: str
    score: float
    accuracy: float
    calls: int
    layers_run: int
    history: list[dict[str, float]]


@cached_task(name="search_prompts", task_run_name="{method}-{shots[dataset]}-seed{seed}")
def search_prompts(
    method: str, model: Artifact, shots: ShotsArtifact, settings: dict[str, Any], seed: int, device: str
) -> SearchedArtifact:
    """Search prompts of the frozen encoder on the training shots; dev picks when to stop, test is scored once.

    Args:
        method: "bbtv2": CMA-ES at every layer in turn; "bbt": at the input alone; "random": candidates of the start of
            bbtv2's search, in its subspaces; "manual": no prompt and no search.
        settings: head, length, max_length, dimensions, population, budget, sigma, alpha, projection, loss, margin,
            evaluate_every (calls).

    Raises:
        RuntimeError: a weight changed, or a gradient could be taken of a loss: a bug.
    """
    import torch
    from safetensors.torch import save_file

    from paperflows.components.prompts import search
    from paperflows.components.prompts.blackbox import ForwardOnly, fingerprint
    from paperflows.components.prompts.encoder import PromptEncoder
    from paperflows.components.prompts.loading import gather
    from paperflows.components.prompts.projections import projections, state_stds, uniform_projections
    from paperflows.components.prompts.tuning import word_states
    from paperflows.components.training.device import accelerator

    s, place = settings, accelerator(device).device
    parts = parts_of(model, s["head"], shots)
    texts = read_shots(shots, parts, s["max_length"])
    encoder, head = PromptEncoder(parts.encoder).to(place).eval(), parts.head.to(place).eval()
    before = fingerprint(encoder, head)
    groups = [{k: v.to(place) for k, v in batch.items()} for batch in texts["train"].groups(16)]
    layers = {"bbtv2": encoder.depth, "random": encoder.depth, "bbt": 1, "manual": 0}[method]
    n, width = s["length"], encoder.width
    start = [torch.zeros(n, width, device=place) for _ in range(encoder.depth)]
    start[0] = word_states(parts.encoder, count=n, seed=seed)
    name = f"{method}-{shots['dataset']}-seed{seed}"

    def accuracy(split: str, prompts: Any) -> tuple[float, Any]:
        def logits(batch: Any) -> Any:
            last = encoder.advance(encoder.start(batch["tokens"], batch["mask"]), prompts)
            return head(last.text, last.text_mask, batch["place"])

        right = (gather(logits, texts[split], place).argmax(1) == texts[split].target).float()
        return float(right.mean()), right

    history: list[dict[str, float]] = []
    with progress(name) as report, child(name, {"method": method, "seed": seed}) as recorder:
        prompts: dict[int, Any] = {}
        calls = layers_run = 0
        score = accuracy("dev", {})[0]
        if layers:
            asked = ForwardOnly(
                encoder, head, groups, dict(enumerate(start[:layers])), loss=s["loss"], margin=s["margin"]
            )
            sizes = {"vectors": n, "width": width, "dimensions": s["dimensions"], "seed": seed}
            if s["projection"] == "uniform":
                matrices = uniform_projections(layers, **sizes)
            else:
                stds = state_stds(encoder, texts["train"], table=s["projection"] == "normal")[:layers]
                matrices = projections(stds, alpha=s["alpha"], sigma=s["sigma"], **sizes)
            kind = search.RandomCandidates if method == "random" else search.Candidates
            searches = [
                kind(s["dimensions"], population=s["population"], sigma=s["sigma"], seed=seed * 100 + layer)
                for layer in range(layers)
            ]
            steps = search.search_layers(
                asked, [m.to(place) for m in matrices], start[:layers], searches=searches, budget=s["budget"]
            )

            def told() -> Any:
                for step in steps:
                    report(step.calls, s["budget"])
                    yield step

            score, history = search.keep_best(
                asked, told(), score=lambda: accuracy("dev", asked.prompts)[0], every=s["evaluate_every"]
            )
            prompts, calls, layers_run = asked.prompts, asked.calls, asked.layers_run
            for point in history:
                recorder.metrics(int(point["step"]), {"loss": point["loss"], "score": point["score"]})
        mean, right = accuracy("test", prompts)
    if fingerprint(encoder, head) != before:
        raise RuntimeError("a search by forward passes changed a weight")
    with new_artifact() as (folder, artifact):
        save_file({shots["dataset"]: right}, folder / OUTPUTS)
    return SearchedArtifact(
        **artifact, dataset=shots["dataset"], method=method, score=score, accuracy=mean, calls=calls,
        layers_run=layers_run, history=history,
    )  # fmt: skip


@cached_task(name="time_prefixes", task_run_name="time_prefixes-{shots[dataset]}")
def time_prefixes(
    model: Artifact, shots: ShotsArtifact, settings: dict[str, Any], repeats: int, device: str
) -> dict[str, Any]:
    """Seconds of one sweep over all layers with stored prefixes and computing everything, interleaved.

    Returns:
        "stored", "everything" -> artifact of (repeats,) seconds, "difference": the largest between their logits.
    """
    import torch
    from safetensors.numpy import save_file

    from paperflows.components.evaluation.timing import time_interleaved
    from paperflows.components.prompts.blackbox import ForwardOnly
    from paperflows.components.prompts.encoder import PromptEncoder
    from paperflows.components.training.device import accelerator

    s, place = settings, accelerator(device).device
    parts = parts_of(model, s["head"], shots)
    texts = read_shots(shots, parts, s["max_length"])["train"]
    encoder = PromptEncoder(parts.encoder).to(place).eval()
    generator = torch.Generator().manual_seed(0)
    shape = (s["population"], s["length"], encoder.width)
    candidates = [0.3 * torch.randn(shape, generator=generator).to(place) for _ in range(encoder.depth)]
    groups = [{k: v.to(place) for k, v in batch.items()} for batch in texts.groups(16)]
    start = {layer: some[0] for layer, some in enumerate(candidates)}
    asked = ForwardOnly(encoder, parts.head.to(place), groups, start)

    def sweep(stored: bool) -> list[Any]:
        said = []
        for layer, some in enumerate(candidates):
            said.append(asked.logits(layer, some, stored=stored))
            asked.fix(layer, some[0])
        if place.type == "cuda":
            torch.cuda.synchronize()
        return said

    gaps = [float((a - b).abs().max()) for a, b in zip(sweep(True), sweep(False), strict=True)]
    seconds = time_interleaved(
        {"stored": lambda: sweep(True), "everything": lambda: sweep(False)}, repeats=repeats, warm_up=0
    )
    result: dict[str, Any] = {"difference": max(gaps), "depth": encoder.depth}
    for name, values in seconds.items():
        with new_artifact() as (folder, artifact):
            save_file({shots["dataset"]: values}, folder / OUTPUTS)
        result[name] = artifact
    return result
