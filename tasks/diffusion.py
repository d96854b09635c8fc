"""Train denoisers on the texts of a dataset, bound their likelihood, and let them write."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from paperflows.components.errors import InputError
from paperflows.tasks.data import DatasetArtifact, read_rows, read_split
from paperflows.tasks.policy import cached_task
from paperflows.tasks.progress import progress
from paperflows.tasks.store import OUTPUTS, Artifact, new_artifact, open_artifact
from paperflows.tasks.training import ModelArtifact, fit

SPLITS = ("train", "test")
TEXTS, COUNTS, WEIGHTS, WRITTEN = "tokenizer", "counts.safetensors", "denoiser.safetensors", "samples.jsonl"


class Process(BaseModel):
    """How a denoiser is trained: the noise, what it knows of the time, where it starts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: str = Field(pattern="^(pretrained|random)$", description="Body: the pretrained encoder's, or fresh weights")
    schedule: str = Field("base", pattern="^(base|spindle|information)$", description="When tokens are masked")
    time: str = Field("none", pattern="^(none|layer|prefix)$", description="How the step is told")
    objective: str = Field("bound", pattern="^(bound|masked)$", description="The bound, or a plain masked LM's loss")


class CorpusArtifact(Artifact):
    """Token ids by split, a tokenizer of the pieces in use, and their counts in training."""

    name: str
    vocabulary: int
    sentences: dict[str, int]
    tokens: int


@cached_task(name="prepare_corpus", task_run_name="prepare_corpus-{data[name]}")
def prepare_corpus(
    data: DatasetArtifact, encoder: str, least: int, max_length: int, limits: dict[str, int]
) -> CorpusArtifact:
    """Texts as the encoder's pieces, with the vocabulary cut to those that training uses at least `least` times.

    Texts longer than `max_length` pieces with the special ones are left out.

    Raises:
        InputError: a split has no such text.
    """
    from safetensors.torch import save_file

    from paperflows.components.data.jsonl import write_jsonl
    from paperflows.components.models.cut_vocabulary import cut_tokenizer
    from paperflows.components.models.pretrained import load_tokenizer

    texts: dict[str, list[str]] = {}
    tokenizer = load_tokenizer(encoder)
    for split in SPLITS:
        found = [row["text"] for row in read_split(data, split) if isinstance(row.get("text"), str)]
        ids = tokenizer(found)["input_ids"] if found else []
        texts[split] = [t for t, row in zip(found, ids, strict=True) if 3 < len(row) <= max_length][: limits[split]]
        if not texts[split]:
            raise InputError(f"dataset {data['name']!r}, split {split}: no text of at most {max_length} pieces")
    small, counts = cut_tokenizer(tokenizer, texts["train"], least)
    with new_artifact() as (folder, artifact):
        small.save_pretrained(folder / TEXTS)
        save_file({"counts": counts}, folder / COUNTS)
        for split, some in texts.items():
            rows = zip(some, small(some)["input_ids"], strict=True)
            write_jsonl(folder / f"{split}.jsonl", [{"text": text, "ids": ids} for text, ids in rows])
    return CorpusArtifact(
        **artifact, name=data["name"], vocabulary=len(counts),
        sentences={split: len(some) for split, some in texts.items()}, tokens=int(counts.sum()),
    )  # fmt: skip


@cached_task(name="train_denoiser", task_run_name="{name}-seed{seed}")
def train_denoiser(
    name: str, process: Process, corpus: CorpusArtifact, encoder: str, layers: int, settings: dict[str, Any],
    seed: int, device: str,
) -> ModelArtifact:  # fmt: skip
    """A denoiser on the first `layers` of the encoder or on fresh ones of the same size.

    Args:
        settings: steps_of_process, strength, steps, batch_size, learning_rate, hybrid (weight of plain cross-entropy).
    """
    import torch
    from safetensors.torch import save_model

    from paperflows.components.diffusion.bound import bound_terms, corrupt, training_loss
    from paperflows.components.diffusion.schedule import stratified_steps
    from paperflows.components.training.batching import Batches, TokenTable

    s = settings
    denoiser, schedule, special = build_denoiser(process, corpus, encoder, layers, s, seed)
    rows = read_rows(open_artifact(corpus) / "train.jsonl")
    table = TokenTable([row["ids"] for row in rows], pad_id=special["pad"])
    batches = Batches(batch_size=s["batch_size"], seed=seed, lengths=table.lengths)

    def batch_at(step: int) -> dict[str, Any]:
        chosen = batches.at(step)
        ids, mask = table.pad(chosen)
        noised = _inside(ids, special)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        if process.objective == "masked":
            share = 0.15 + 0.85 * torch.rand(len(ids), 1, generator=generator)
            masked = noised & (torch.rand(ids.shape, generator=generator) < share)
            t, rate = torch.ones(len(ids), dtype=torch.long), torch.ones(ids.shape)
            noisy = torch.where(masked, special["mask"], ids)
        else:
            t = stratified_steps(len(ids), schedule.steps, generator)
            noisy, masked, _, rate = corrupt(ids, noised, t, schedule, special["mask"], generator)
        row = masked.nonzero()[:, 0]
        return {
            "noisy": noisy, "mask": mask, "t": t, "masked": masked, "token": ids[masked], "rate": rate[masked],
            "rates": schedule.rates[t[row]] if process.objective == "bound" else torch.zeros(0),
            "count": int(noised.sum()), "ids": chosen.tolist(),
        }  # fmt: skip

    def loss_fn(model: Any, batch: Any) -> Any:
        logp = model(batch["noisy"], batch["mask"], batch["t"], batch["masked"])
        plain = -logp.gather(1, batch["token"][:, None])[:, 0]
        if process.objective == "masked":
            return plain.sum() / max(1, len(plain))  # a batch of early steps may hold no mask
        terms = bound_terms(logp, batch["token"], batch["rate"], batch["rates"])
        return training_loss(terms, plain, steps=schedule.steps, count=batch["count"], hybrid=s["hybrid"])

    done = fit(
        f"{name}-seed{seed}", {"method": name, "seed": seed, **process.model_dump(), **s}, denoiser, batch_at, loss_fn,
        s["steps"], s["learning_rate"], seed, device,
    )  # fmt: skip
    with new_artifact() as (folder, artifact):
        save_model(denoiser.cpu(), str(folder / WEIGHTS))
    return ModelArtifact(**artifact, name=name, score=None, history=done.history)


@cached_task(name="measure_bound", task_run_name="measure_bound-{model[name]}-{split}")
def measure_bound(
    model: ModelArtifact, process: Process, corpus: CorpusArtifact, encoder: str, layers: int, settings: dict[str, Any],
    split: str, sentences: int, strata: int, schedule_as: str, device: str,
) -> dict[str, Any]:  # fmt: skip
    """Nats of each sentence (and its tokens) under the exact bound and under the official code's figure.

    Args:
        schedule_as: the schedule of the measured process, which may differ from that of training.
        strata: forward passes a sentence, one from each of as many parts of the process.

    Returns:
        `outputs`: artifact of (N, 2) nats and tokens, by `bound` and `official`; both as nats a token, and a word.
    """
    import numpy as np
    import torch
    from safetensors.numpy import save_file

    from paperflows.components.diffusion.bound import sentence_bounds
    from paperflows.components.training.batching import TokenTable, token_budget_batches

    measured = process.model_copy(update={"schedule": schedule_as})
    denoiser, schedule, special = open_denoiser(model, measured, corpus, encoder, layers, settings, device)
    rows = read_rows(open_artifact(corpus) / f"{split}.jsonl")[:sentences]
    table = TokenTable([row["ids"] for row in rows], pad_id=special["pad"])
    bounds, official, tokens = np.zeros(len(rows)), np.zeros(len(rows)), np.zeros(len(rows))
    generator = torch.Generator().manual_seed(0)
    with progress(f"bound {model['name']}") as report:
        batches = token_budget_batches(table.lengths, budget=4096)
        for number, chosen in enumerate(batches):
            ids, mask = table.pad(chosen)
            noised = _inside(ids, special)
            bounds[chosen], official[chosen] = (
                x.numpy()
                for x in sentence_bounds(
                    denoiser, ids, mask, noised, schedule, mask_id=special["mask"], strata=strata, generator=generator
                )
            )
            tokens[chosen] = noised.sum(1).numpy()
            report(number + 1, len(batches))
    words = sum(len(row["text"].split()) for row in rows)
    with new_artifact() as (folder, artifact):
        by_name = {"bound": np.stack([bounds, tokens], 1), "official": np.stack([official, tokens], 1)}
        save_file(by_name, folder / OUTPUTS)
    return {
        "outputs": artifact, "bound": float(bounds.sum() / tokens.sum()),
        "official": float(official.sum() / tokens.sum()),
        "word_perplexity": float(np.exp(bounds.sum() / words)),
    }  # fmt: skip


@cached_task(name="write_texts", task_run_name="write_texts-{model[name]}-{calls}")
def write_texts(
    model: ModelArtifact, process: Process, corpus: CorpusArtifact, encoder: str, layers: int, settings: dict[str, Any],
    count: int, calls: int, top_k: int, temperature: float, seed: int, device: str,
) -> dict[str, Any]:  # fmt: skip
    """`count` samples with the lengths of training texts, by strides of the process or (masked objective) by Gibbs.

    Args:
        calls: strides of the process; Gibbs sampling takes `sweeps` steps a position of the settings instead.

    Returns:
        `samples`: artifact with the texts and the way of the first; network calls a sample.
    """
    import torch

    from paperflows.components.data.jsonl import write_jsonl
    from paperflows.components.diffusion.sampling import gibbs, sample

    denoiser, schedule, special = open_denoiser(model, process, corpus, encoder, layers, settings, device)
    generator = torch.Generator().manual_seed(seed)
    rows = read_rows(open_artifact(corpus) / "train.jsonl")
    lengths = torch.tensor([len(row["ids"]) for row in rows])
    wanted = lengths[torch.randint(len(rows), (count,), generator=generator)].sort().values
    tokenizer = corpus_tokenizer(corpus)
    texts: list[str] = []
    way: list[str] = []
    read = 0
    with progress(f"write with {model['name']}") as report:
        for at in range(0, count, 128):
            some = wanted[at : at + 128]
            width = int(some.max())
            column = torch.arange(width)[None]
            ids = torch.full((len(some), width), special["pad"])
            inner = (column > 0) & (column < some[:, None] - 1)
            ids[:, 0] = special["cls"]
            ids[column == some[:, None] - 1] = special["sep"]
            ids[inner] = special["mask"]
            attention = (column < some[:, None]).long()
            if process.objective == "masked":
                done, used = gibbs(
                    denoiser, ids, attention, inner, mask_id=special["mask"], sweeps=settings["sweeps"], top_k=top_k,
                    temperature=temperature, generator=generator,
                )  # fmt: skip
            else:
                done, used, steps = sample(
                    denoiser, ids, attention, inner, schedule, mask_id=special["mask"],
                    stride=-(-schedule.steps // calls), top_k=top_k, temperature=temperature, generator=generator,
                    keep=at == 0,
                )  # fmt: skip
                way = way or [tokenizer.decode(step[-1][inner[-1]]) for step in steps]
            read += used
            texts += tokenizer.batch_decode(done, skip_special_tokens=True)
            report(len(texts), count)
    with new_artifact() as (folder, artifact):
        write_jsonl(folder / WRITTEN, [{"text": text} for text in texts])
    return {"samples": artifact, "calls": read / count, "examples": texts[:: max(1, count // 5)][:5], "way": way}


@cached_task(name="rate_texts")
def rate_texts(written: Artifact, corpus: CorpusArtifact) -> dict[str, Any]:
    """BLEU of each sample against all test texts, and self-BLEU against the other samples.

    Returns:
        `outputs`: artifact of `bleu` and `self_bleu`, a sample each; the two means.
    """
    from safetensors.numpy import save_file

    from paperflows.components.diffusion.diversity import bleu_against, self_bleu

    tokenizer = corpus_tokenizer(corpus)
    samples = [tokenizer.tokenize(row["text"]) for row in read_rows(open_artifact(written) / WRITTEN)]
    references = [tokenizer.tokenize(row["text"]) for row in read_rows(open_artifact(corpus) / "test.jsonl")]
    bleu, own = bleu_against(samples, references), self_bleu(samples)
    with new_artifact() as (folder, artifact):
        save_file({"bleu": bleu, "self_bleu": own}, folder / OUTPUTS)
    return {"outputs": artifact, "bleu": float(bleu.mean()), "self_bleu": float(own.mean())}


@cached_task(name="compare_writers", task_run_name="compare_writers-{baseline_name}")
def compare_writers(
    ours: list[dict[str, Any]], baseline: list[dict[str, Any]], baseline_name: str
) -> dict[str, Any] | None:
    """BLEU of both at equal self-BLEU, interpolated between settings and averaged over the common range of self-BLEU.

    Args:
        ours, baseline: of `rate_texts`, a setting each, with as many samples.

    Returns:
        `ours`, `baseline`: artifacts of the interpolated `bleu` of each sample; None where the ranges do not meet.
    """
    import numpy as np
    from safetensors.numpy import load_file, save_file

    from paperflows.components.diffusion.diversity import equal_diversity_weights

    weights = equal_diversity_weights([r["self_bleu"] for r in ours], [r["self_bleu"] for r in baseline])
    if weights is None:
        return None
    found = {}
    for name, rated, shares in (("ours", ours, weights[0]), ("baseline", baseline, weights[1])):
        by_setting = np.stack([load_file(open_artifact(r["outputs"]) / OUTPUTS)["bleu"] for r in rated])
        with new_artifact() as (folder, artifact):
            save_file({"bleu": shares @ by_setting}, folder / OUTPUTS)
        found[name] = artifact
    return found


def build_denoiser(
    process: Process, corpus: CorpusArtifact, encoder: str, layers: int, settings: dict[str, Any], seed: int,
    ends: bool = False,
) -> Any:  # fmt: skip
    """A denoiser before training, its schedule and the ids of the special tokens.

    Args:
        ends: whether it may predict the end of a text.
    """
    import torch
    from safetensors.torch import load_file

    from paperflows.components.diffusion.denoiser import Denoiser
    from paperflows.components.diffusion.schedule import Schedule
    from paperflows.components.models.cut_vocabulary import start_masked_lm

    tokenizer = corpus_tokenizer(corpus)
    counts = load_file(open_artifact(corpus) / COUNTS)["counts"]
    special = {
        "pad": tokenizer.pad_token_id, "cls": tokenizer.cls_token_id, "sep": tokenizer.sep_token_id,
        "mask": tokenizer.mask_token_id,
    }  # fmt: skip
    torch.manual_seed(seed)
    lm = start_masked_lm(encoder, tokenizer, counts, layers=layers, pretrained=process.start == "pretrained", seed=seed)
    allowed = torch.ones(len(counts), dtype=torch.bool)
    allowed[[number for name, number in special.items() if name != "sep" or not ends]] = False
    steps = settings["steps_of_process"]
    denoiser = Denoiser(lm, allowed, time=process.time, steps=steps)  # type: ignore[arg-type]
    schedule = Schedule(steps, process.schedule, settings["strength"], counts)  # type: ignore[arg-type]
    return denoiser, schedule, special


def open_denoiser(
    model: ModelArtifact, process: Process, corpus: CorpusArtifact, encoder: str, layers: int, settings: dict[str, Any],
    device: str, ends: bool = False,
) -> Any:  # fmt: skip
    """A trained denoiser on its device, its schedule and the ids of the special tokens."""
    from safetensors.torch import load_model

    from paperflows.components.training.device import accelerator

    denoiser, schedule, special = build_denoiser(process, corpus, encoder, layers, settings, 0, ends)
    load_model(denoiser, str(open_artifact(model) / WEIGHTS))
    return denoiser.to(accelerator(device).device).eval(), schedule, special


def corpus_tokenizer(corpus: CorpusArtifact) -> Any:
    """The cut tokenizer of a corpus."""
    from transformers import BertTokenizer

    return BertTokenizer.from_pretrained(open_artifact(corpus) / TEXTS)


def _inside(ids: Any, special: dict[str, int]) -> Any:
    return (ids != special["pad"]) & (ids != special["cls"]) & (ids != special["sep"])
