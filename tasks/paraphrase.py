"""Paraphrase by a denoiser that is shown the source, and by a decoder; the best of several candidates is kept."""

from typing import Any

from paperflows.components.errors import InputError
from paperflows.tasks.autoregressive import continue_rows, open_decoder
from paperflows.tasks.data import DatasetArtifact, read_rows, read_split
from paperflows.tasks.diffusion import (
    COUNTS,
    TEXTS,
    WEIGHTS,
    CorpusArtifact,
    Process,
    build_denoiser,
    corpus_tokenizer,
    open_denoiser,
)
from paperflows.tasks.policy import cached_task
from paperflows.tasks.progress import progress
from paperflows.tasks.store import OUTPUTS, Artifact, new_artifact, open_artifact
from paperflows.tasks.training import ModelArtifact, fit

CANDIDATES = "candidates.jsonl"
PROCESS = Process(start="pretrained")  # the spindle is off where text is conditional, as in the official code


@cached_task(name="prepare_paraphrases", task_run_name="prepare_paraphrases-{data[name]}")
def prepare_paraphrases(
    data: DatasetArtifact, encoder: str, least: int, max_length: int, limits: dict[str, int]
) -> CorpusArtifact:
    """Pairs of texts that say the same, as [CLS] source [SEP] target [SEP], with the vocabulary cut as for one text.

    A set of training texts gives a pair for each text, with the next one as its target. In test the first text of a
    set is the source and all others are references. Sets with a text of more than `max_length` pieces are left out.

    Args:
        limits: sets of train and test, at most.

    Raises:
        InputError: a split has no such set.
    """
    from safetensors.torch import save_file

    from paperflows.components.data.jsonl import write_jsonl
    from paperflows.components.models.cut_vocabulary import cut_tokenizer
    from paperflows.components.models.pretrained import load_tokenizer

    tokenizer = load_tokenizer(encoder)
    sets: dict[str, list[list[str]]] = {}
    for split in ("train", "test"):
        found = [row["captions"] for row in read_split(data, split)]
        short = [s for s in found if all(len(i) <= max_length for i in _ids(tokenizer, s))]
        sets[split] = short[: limits[split]]
        if not sets[split]:
            raise InputError(f"dataset {data['name']!r}, split {split}: no texts of at most {max_length} pieces")
    small, counts = cut_tokenizer(tokenizer, [text for some in sets["train"] for text in some], least)
    cls, sep = small.cls_token_id, small.sep_token_id
    train = []
    for some in sets["train"]:
        ids = [i[:max_length] for i in _ids(small, some)]
        for source, target in zip(ids, ids[1:] + ids[:1], strict=True):
            train.append({"ids": [cls, *source, sep, *target, sep], "source": len(source) + 2})
    test = [
        {"ids": [cls, *_ids(small, some[:1])[0][:max_length], sep], "source": some[0], "references": some[1:]}
        for some in sets["test"]
    ]
    with new_artifact() as (folder, artifact):
        small.save_pretrained(folder / TEXTS)
        save_file({"counts": counts}, folder / COUNTS)
        write_jsonl(folder / "train.jsonl", train)
        write_jsonl(folder / "test.jsonl", test)
    return CorpusArtifact(
        **artifact, name=data["name"], vocabulary=len(counts), sentences={"train": len(train), "test": len(test)},
        tokens=int(counts.sum()),
    )  # fmt: skip


@cached_task(name="train_paraphraser", task_run_name="paraphraser-seed{seed}")
def train_paraphraser(
    corpus: CorpusArtifact, encoder: str, layers: int, settings: dict[str, Any], length: int, seed: int, device: str
) -> ModelArtifact:
    """A denoiser of the target alone; the source is never masked.

    The target's place has `length` pieces and is filled with end tokens, which are denoised too: the end is predicted.

    Args:
        settings: steps_of_process, strength, steps, batch_size, learning_rate, hybrid.
    """
    import torch
    from safetensors.torch import save_model

    from paperflows.components.diffusion.bound import bound_terms, corrupt, training_loss
    from paperflows.components.diffusion.schedule import stratified_steps
    from paperflows.components.training.batching import Batches, TokenTable

    s = settings
    denoiser, schedule, special = build_denoiser(PROCESS, corpus, encoder, layers, s, seed, True)
    rows = read_rows(open_artifact(corpus) / "train.jsonl")
    filled = [
        (row["ids"] + [special["sep"]] * length)[: row["source"] + length] for row in rows
    ]  # fmt: skip
    table = TokenTable(filled, pad_id=special["pad"])
    starts = torch.tensor([row["source"] for row in rows])
    batches = Batches(batch_size=s["batch_size"], seed=seed, lengths=table.lengths)

    def batch_at(step: int) -> dict[str, Any]:
        chosen = batches.at(step)
        ids, mask = table.pad(chosen)
        noised = mask.bool() & (torch.arange(ids.shape[1])[None] >= starts[chosen][:, None])
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        t = stratified_steps(len(ids), schedule.steps, generator)
        noisy, masked, _, rate = corrupt(ids, noised, t, schedule, special["mask"], generator)
        return {
            "noisy": noisy, "mask": mask, "t": t, "masked": masked, "token": ids[masked], "rate": rate[masked],
            "rates": schedule.rates[t[masked.nonzero()[:, 0]]], "count": int(noised.sum()), "ids": chosen.tolist(),
        }  # fmt: skip

    def loss_fn(model: Any, batch: Any) -> Any:
        logp = model(batch["noisy"], batch["mask"], batch["t"], batch["masked"])
        plain = -logp.gather(1, batch["token"][:, None])[:, 0]
        terms = bound_terms(logp, batch["token"], batch["rate"], batch["rates"])
        return training_loss(terms, plain, steps=schedule.steps, count=batch["count"], hybrid=s["hybrid"])

    done = fit(
        f"paraphraser-seed{seed}", {"method": "paraphraser", "seed": seed, **s}, denoiser, batch_at, loss_fn,
        s["steps"], s["learning_rate"], seed, device,
    )  # fmt: skip
    with new_artifact() as (folder, artifact):
        save_model(denoiser.cpu(), str(folder / WEIGHTS))
    return ModelArtifact(**artifact, name="paraphraser", score=None, history=done.history)


@cached_task(name="paraphrase", task_run_name="paraphrase-{model[name]}-seed{seed}")
def paraphrase(
    model: ModelArtifact, denoises: bool, corpus: CorpusArtifact, encoder: str, layers: int, settings: dict[str, Any],
    length: int, sources: int, candidates: int, calls: int, top_k: int, temperature: float, seed: int, device: str,
) -> Artifact:  # fmt: skip
    """Candidates for the first test sources, by strides of the process or token by token.

    Args:
        denoises: whether the model is of `train_paraphraser`; else of `train_decoder`.
        length: most pieces of a paraphrase.
    """
    import torch

    from paperflows.components.data.jsonl import write_jsonl
    from paperflows.components.diffusion.sampling import sample

    rows = read_rows(open_artifact(corpus) / "test.jsonl")[:sources]
    prompts = [row["ids"] for row in rows]
    tokenizer = corpus_tokenizer(corpus)
    with progress(f"paraphrase with {model['name']}") as report:
        if denoises:
            denoiser, schedule, special = open_denoiser(
                model, PROCESS, corpus, encoder, layers, settings, device, True
            )  # fmt: skip
            generator = torch.Generator().manual_seed(seed)
            found: list[list[list[int]]] = []
            for at in range(0, len(prompts), max(1, 128 // candidates)):
                some = [p for p in prompts[at : at + max(1, 128 // candidates)] for _ in range(candidates)]
                ids = torch.full((len(some), max(map(len, some)) + length), special["pad"])
                starts = torch.tensor([len(p) for p in some])[:, None]
                column = torch.arange(ids.shape[1])[None]
                ids[column < starts] = torch.tensor([token for p in some for token in p])
                area = (column >= starts) & (column < starts + length)
                done, _, _ = sample(
                    denoiser, ids, (column < starts + length).long(), area, schedule, mask_id=special["mask"],
                    stride=-(-schedule.steps // calls), top_k=top_k, temperature=temperature, generator=generator,
                )  # fmt: skip
                said = [_until(row, special["sep"]) for row in done[area].view(len(some), length).tolist()]
                found += [said[i : i + candidates] for i in range(0, len(said), candidates)]
                report(len(found), len(prompts))
        else:
            decoder, special = open_decoder(model, corpus, encoder, layers, device)
            found = continue_rows(decoder, prompts, candidates, special, top_k, temperature, length, seed)
            report(len(found), len(prompts))
    with new_artifact() as (folder, artifact):
        write_jsonl(
            folder / CANDIDATES,
            [
                {"source": row["source"], "references": row["references"], "candidates": tokenizer.batch_decode(some)}
                for row, some in zip(rows, found, strict=True)
            ],
        )
    return artifact


@cached_task(name="rate_paraphrases")
def rate_paraphrases(written: Artifact, corpus: CorpusArtifact) -> dict[str, Any]:
    """The choice of minimum Bayes risk and the first candidate against the references, and how much candidates differ.

    Returns:
        `outputs`: artifact by source of `bleu` (smoothing method 4), `rouge` (ROUGE-L, best reference) and `dist1` of
        the choice, and of `div4` (distinct 4-grams over 4-grams) and `self_bleu` (pairwise) of the candidates;
        `first`: of the first candidate's `bleu`; the means, and examples.
    """
    import numpy as np
    from rouge_score.rouge_scorer import RougeScorer
    from safetensors.numpy import save_file

    from paperflows.components.decoding.risk import minimum_risk, pairwise_bleu, smoothed_bleu
    from paperflows.components.decoding.scores import distinct

    tokenizer, scorer = corpus_tokenizer(corpus), RougeScorer(["rougeL"])
    rows = read_rows(open_artifact(written) / CANDIDATES)
    found: dict[str, list[float]] = {k: [] for k in ("bleu", "first", "rouge", "dist1", "div4", "self_bleu")}
    examples = []
    for row in rows:
        references = [tokenizer.tokenize(text) for text in row["references"]]
        said = [tokenizer.tokenize(text) for text in row["candidates"]]
        chosen = minimum_risk(said)
        found["bleu"].append(smoothed_bleu(said[chosen], references))
        found["first"].append(smoothed_bleu(said[0], references))
        found["rouge"].append(scorer.score_multi(row["references"], row["candidates"][chosen])["rougeL"].fmeasure)
        found["dist1"].append(distinct(said[chosen], 1))
        grams = [tuple(words[i : i + 4]) for words in said for i in range(len(words) - 3)]
        found["div4"].append(len(set(grams)) / max(1, len(grams)))
        found["self_bleu"].append(float(pairwise_bleu(said).sum() / max(1, len(said) * (len(said) - 1))))
        examples.append({"source": row["source"], "paraphrase": row["candidates"][chosen]})
    values = {name: np.array(some) for name, some in found.items()}
    first = {"bleu": values["first"]}
    with new_artifact() as (folder, artifact):
        save_file({name: some for name, some in values.items() if name != "first"}, folder / OUTPUTS)
    with new_artifact() as (folder, of_first):
        save_file(first, folder / OUTPUTS)
    means = {name: float(some.mean()) for name, some in values.items()}
    return {"outputs": artifact, "first": of_first, "means": means, "examples": examples[:5]}


def _ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    found: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return found


def _until(tokens: list[int], end: int) -> list[int]:
    return tokens[: tokens.index(end)] if end in tokens else tokens
