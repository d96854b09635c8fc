"""Extract records by tags or by language models asked in context, and score what anyone wrote."""

import json
import re
import shutil
from typing import Any

from paperflows.components.errors import InputError, ServiceError
from paperflows.tasks.annotators import Annotator, open_client
from paperflows.tasks.data import DatasetArtifact, read_split
from paperflows.tasks.environment import state_folder
from paperflows.tasks.policy import cached_task, current_key
from paperflows.tasks.store import OUTPUTS, Artifact, new_artifact, open_artifact
from paperflows.tasks.training import fit

# OpenAI's code, and what servers such as vLLM say in words
_TOO_LONG = re.compile("context_length|maximum context length")


class ExtractorArtifact(Artifact):
    """`outputs.safetensors`: dataset -> (N, 3) hits, said, true a test sentence; `<dataset>.errors` -> (N,) whether its
    structure is broken; `<dataset>.nats` -> (N, 2) nats of the reference target and its records, 0
    and 0 where it is too long in any form; `<dataset>.constrained` -> (N, 3) as the first, where nothing but
    well-formed targets could be written. `answers.jsonl`: what was written.
    """

    f1: float
    counts: dict[str, float]
    history: list[dict[str, float]]


@cached_task(name="tag_entities", task_run_name="tags-{data[name]}-{size}-seed{seed}")
def tag_entities(
    encoder: Artifact, data: DatasetArtifact, names: dict[str, str], size: int, evaluated: int,
    training: dict[str, Any], seed: int, device: str,
) -> ExtractorArtifact:  # fmt: skip
    """The same sentences, encoder and steps with a tag for each word instead of a written target (entities alone)."""
    import numpy as np
    import torch
    from transformers import AutoModel

    from paperflows.components.extraction.tagger import EntityTagger
    from paperflows.components.models.pretrained import load_pretrained, load_tokenizer
    from paperflows.components.training.batching import Batches
    from paperflows.components.training.device import bf16_is_fast

    t = training
    some, test, schema, dropped = split_sentences(data, names, False, size, evaluated, seed)
    folder = str(open_artifact(encoder))
    tokenizer = load_tokenizer(folder)
    torch.manual_seed(seed)
    tagger = EntityTagger(load_pretrained(AutoModel, folder), schema)

    lengths = np.array([len(sentence.tokens) for sentence in some])
    batches = Batches(batch_size=t["batch_size"], seed=seed, lengths=lengths)

    def batch_at(step: int) -> dict[str, Any]:
        rows = batches.at(step)
        batch = tagger.encode([some[i] for i in rows], tokenizer, max_length=t["max_length"])
        return {"input": batch, "ids": rows.tolist()}

    def loss_fn(model: Any, batch: Any) -> Any:
        with torch.autocast(batch["input"]["ids"].device.type, dtype=torch.bfloat16, enabled=bf16_is_fast(device)):
            return getattr(model, "module", model).loss(batch["input"])

    done = fit(
        f"tags, {data['name']}, {size} sentences, seed {seed}", {"form": "tags", "size": size, "seed": seed, **t},
        tagger, batch_at, loss_fn, t["steps"], t["learning_rate"], seed, device,
        rates={"encoder.": t["encoder_rate"]},
    )  # fmt: skip
    located = tagger.eval().predict(test, tokenizer, max_length=t["max_length"])
    return _stored(data["name"], located, None, test, schema, {}, done.history, dropped)


@cached_task(
    name="ask_in_context", retries=2, retry_on=(ServiceError,), task_run_name="{form}-{data[name]}-shots{seed}"
)
def ask_in_context(
    form: str, model: Annotator, data: DatasetArtifact, names: dict[str, str], relations: bool, shots: int,
    evaluated: int, longest: int, seed: int, device: str,
) -> ExtractorArtifact:  # fmt: skip
    """Ask a language model to go on after demonstrations (the paper's method), and score what it writes.

    Where the prompt is too long for the model, demonstrations are dropped from the front, one more each time: `counts`
    has of how many sentences (`shortened`), and how many were too long by themselves and have no answer (`unanswered`).

    Args:
        shots: demonstrations for each type, and without any annotation.
    """
    from contextlib import ExitStack

    from paperflows.components.extraction.demonstrations import draw_shots, few_shot_prompt
    from paperflows.components.extraction.forms import END, FORMS
    from paperflows.components.llm.request import Request

    some, test, schema, dropped = split_sentences(data, names, relations, None, evaluated, seed)
    shown = draw_shots(some, schema, shots, seed=seed)
    answers, todo, too_long, shortened = [""] * len(test), list(range(len(test))), [], 0
    work = state_folder() / "checkpoints" / current_key()
    with ExitStack() as opened:
        client = open_client(model, "extractor", device, work, opened)
        while todo:
            requests = [
                Request(
                    model=model.model, prompt=few_shot_prompt(FORMS[form], shown, test[i], schema), temperature=0.0,
                    max_tokens=longest, stop=(END,), tags={"stage": "extract", "item": str(i)},
                )
                for i in todo
            ]  # fmt: skip
            replies = [reply for (reply,) in client.run(requests)]
            too_long = [i for i, r in zip(todo, replies, strict=True) if r.error and _TOO_LONG.search(r.error)]
            failed = [r.error for i, r in zip(todo, replies, strict=True) if r.error and i not in too_long]
            if failed:  # an empty answer would be one without records
                raise ServiceError(f"{model.model}: {len(failed)} of {len(todo)} requests failed: {failed[0]}")
            for i, reply in zip(todo, replies, strict=True):
                answers[i] = reply.text
            shortened = max(shortened, len(too_long))
            if not shown:
                break
            todo, shown = too_long, shown[1:]
        usage = {f"llm.{k}": float(v) for k, v in client.usage.counters.items()}
    usage |= {"shortened": float(shortened), "unanswered": float(len(too_long))}
    recorded = {path.name: path.read_text(encoding="utf-8") for path in work.glob("*.completions.jsonl")}
    found = score_records(data["name"], answers, None, test, schema, form, [], dropped, recorded)
    shutil.rmtree(work, ignore_errors=True)
    return ExtractorArtifact(**{**found, "counts": {**found["counts"], **usage}})


@cached_task(name="pair_outputs")
def pair_outputs(first: ExtractorArtifact, second: ExtractorArtifact, names: list[str]) -> Artifact:
    """The counts of two systems side by side, dataset -> (N, 6)."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    a, b = (load_file(open_artifact(one) / OUTPUTS) for one in (first, second))
    with new_artifact() as (folder, artifact):
        save_file({name: np.concatenate([a[name], b[name]], axis=1) for name in names}, folder / OUTPUTS)
    return artifact


def split_sentences(
    data: DatasetArtifact, names: dict[str, str], relations: bool, size: int | None, evaluated: int, seed: int
) -> tuple[Any, Any, Any, int]:
    """`size` training sentences (None: all) that do not stand in the test split, test sentences, the schema, and how
    many training sentences were left out.
    """
    from random import Random

    from paperflows.components.extraction.demonstrations import without
    from paperflows.components.extraction.records import read_sentences, schema_of

    train, test = (read_sentences(read_split(data, split), names) for split in ("train", "test"))
    schema = schema_of(train, relations=relations)
    clean = without(train, test)
    if size is not None and len(clean) < size:
        raise InputError(f"dataset {data['name']!r}: {size} training sentences were asked for, it has {len(clean)}")
    shuffled = list(clean)
    Random(seed).shuffle(shuffled)
    return shuffled[:size], test[:evaluated], schema, len(train) - len(clean)


def score_records(
    name: str, answers: list[str], nats: Any, test: Any, schema: Any, form: str, history: Any, dropped: int,
    recorded: dict[str, str] | None = None, constrained: list[str] | None = None,
) -> ExtractorArtifact:  # fmt: skip
    """Read answers in a form and score them.

    Args:
        nats: (N,) of the reference targets, NaN for those that are too long; None where they are not known.
        recorded: further files of the artifact, name -> text.
        constrained: what was written by the form's grammar, None where nothing was.
    """
    located = _located(answers, test, schema, form)
    lines = [
        {"text": s.text, "answer": a, **dict(one.counts)} for s, a, one in zip(test, answers, located, strict=True)
    ]
    texts = {"answers.jsonl": "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)}
    ruled = _located(constrained, test, schema, form) if constrained is not None else None
    return _stored(name, located, nats, test, schema, texts | (recorded or {}), history, dropped, ruled)


def _located(answers: list[str], test: Any, schema: Any, form: str) -> Any:
    from paperflows.components.extraction.forms import FORMS
    from paperflows.components.extraction.scoring import locate

    read = [FORMS[form].read(answer, schema) for answer in answers]
    located = [locate(r.records, sentence, schema) for r, sentence in zip(read, test, strict=True)]
    for one, r in zip(located, read, strict=True):
        one.counts.update(r.counts)
        one.counts["read"] = len(r.records)
    return located


def _stored(
    name: str, located: Any, nats: Any, test: Any, schema: Any, texts: dict[str, str], history: Any, dropped: int,
    constrained: Any = None,
) -> ExtractorArtifact:  # fmt: skip
    import numpy as np
    from safetensors.numpy import save_file

    from paperflows.components.evaluation.statistics import f1
    from paperflows.components.extraction.scoring import counts_of

    def counted(found: Any) -> Any:
        return np.stack([counts_of(one, sentence, schema) for one, sentence in zip(found, test, strict=True)])

    def broken_of(found: Any) -> Any:
        return np.array([float(one.counts["ill_formed"] + one.counts["truncated"] > 0) for one in found])

    counts, broken = counted(located), broken_of(located)
    totals = {n: sum(o.counts[n] for o in located) for n in sorted({n for o in located for n in o.counts})}
    outputs = {name: counts, f"{name}.errors": broken}
    bad = sum(one.counts["ill_formed"] + one.counts["truncated"] for one in located)
    rates = {
        "structural_errors": float(broken.mean()), "dropped": float(dropped),
        "structural_errors_a_record": float(bad / max(1.0, bad + totals.get("read", 0))),
    }  # fmt: skip
    if nats is not None:
        told = np.where(np.isnan(nats)[:, None], 0.0, np.stack([nats, counts[:, 2]], axis=1))
        outputs[f"{name}.nats"] = told
        rates["nats_a_record"] = float(told[:, 0].sum() / max(1.0, told[:, 1].sum()))
    if constrained is not None:
        outputs[f"{name}.constrained"] = counted(constrained)
        rates["constrained_f1"] = float(f1(np.zeros(1), outputs[f"{name}.constrained"]))
        rates["constrained_structural_errors"] = float(broken_of(constrained).mean())
    with new_artifact() as (folder, artifact):
        save_file(outputs, folder / OUTPUTS)
        for file, text in texts.items():
            (folder / file).write_text(text, encoding="utf-8")
    return ExtractorArtifact(
        **artifact, f1=float(f1(np.zeros(1), counts)), counts={**{k: float(v) for k, v in totals.items()}, **rates},
        history=history,
    )  # fmt: skip
