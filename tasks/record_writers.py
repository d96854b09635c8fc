"""Models trained in the flow that write records: a copy model on an encoder, or a pretrained encoder-decoder."""

from typing import Any

from paperflows.components.errors import InputError
from paperflows.tasks.data import DatasetArtifact
from paperflows.tasks.extraction import ExtractorArtifact, score_records, split_sentences
from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import Artifact, open_artifact
from paperflows.tasks.target_lms import WEIGHTS, open_vocabulary
from paperflows.tasks.training import ModelArtifact, fit


@cached_task(name="train_extractor", task_run_name="{form}-{data[name]}-{size}-seed{seed}")
def train_extractor(
    form: str, decoder: ModelArtifact, vocabulary: Artifact, encoder: Artifact, data: DatasetArtifact,
    names: dict[str, str], relations: bool, size: int, evaluated: int, training: dict[str, Any],
    model: dict[str, Any], tokens_of: str | None, seed: int, device: str,
) -> ExtractorArtifact:  # fmt: skip
    """Train a copy model to write the records of `size` training sentences in one form; score it on test sentences.

    Training sentences that stand in the test split word for word are left out. Entities are written once more with a
    grammar that leaves no way to break the form (`constrained`).

    Args:
        form: code, sel or json.
        decoder: the pre-trained decoder that it starts from.
        training: steps, batch_size, learning_rate, encoder_rate (factor), max_length, longest (tokens of a target).
        tokens_of: a form; the steps are as many as show the model the target tokens that it would see in that form.
    """
    import torch
    from safetensors.torch import load_model
    from transformers import AutoModel

    from paperflows.components.extraction.copy_model import CopyModel, Decoder
    from paperflows.components.extraction.forms import FORMS
    from paperflows.components.extraction.targets import read_source, write_target
    from paperflows.components.models.pretrained import load_pretrained, load_tokenizer
    from paperflows.components.training.device import bf16_is_fast

    t, words = training, open_vocabulary(vocabulary)
    some, test, schema, dropped = split_sentences(data, names, relations, size, evaluated, seed)
    folder = str(open_artifact(encoder))
    tokenizer = load_tokenizer(folder)
    torch.manual_seed(seed)
    writer = Decoder(vocabulary=words.get_vocab_size(), **model)
    load_model(writer, str(open_artifact(decoder) / WEIGHTS))
    whole = CopyModel(load_pretrained(AutoModel, folder), writer)
    sources = [read_source(s, tokenizer, max_length=t["max_length"]) for s in some]

    def targets_in(kind: str) -> list[list[int]]:
        pairs = zip(some, sources, strict=True)
        return [write_target(s, source, FORMS[kind], schema, words)[: model["positions"]] for s, source in pairs]

    targets = targets_in(form)
    length = sum(map(len, targets)) / len(targets)
    share = sum(map(len, targets_in(tokens_of))) / len(targets) / length if tokens_of else 1.0
    steps = max(1, round(share * t["steps"]))

    def loss_fn(trained: Any, batch: Any) -> Any:
        with torch.autocast(batch["source"].device.type, dtype=torch.bfloat16, enabled=bf16_is_fast(device)):
            return trained(batch["source"], batch["mask"], batch["target"])

    label = f"{decoder['name']}-lm, {form}, {data['name']}, {size} sentences, seed {seed}"
    done = fit(
        label, {"form": form, "lm": decoder["name"], "size": size, "seed": seed, **t}, whole,
        _batches([s.ids for s in sources], targets, tokenizer.pad_token_id, t["batch_size"], seed), loss_fn, steps,
        t["learning_rate"], seed, device, rates={"encoder.": t["encoder_rate"]},
    )  # fmt: skip
    free, constrained, nats, cut = _write_all(whole, test, tokenizer, words, FORMS[form], schema, t)
    found = score_records(data["name"], free, nats, test, schema, form, done.history, dropped, constrained=constrained)
    sizes = {"targets_cut": float(cut), "tokens_a_target": length, "steps": float(steps)}
    return ExtractorArtifact(**{**found, "counts": {**found["counts"], **sizes}})


@cached_task(name="train_seq2seq", task_run_name="seq2seq-{data[name]}-seed{seed}")
def train_seq2seq(
    model: str, data: DatasetArtifact, names: dict[str, str], relations: bool, size: int | None, shots: int,
    evaluated: int, training: dict[str, Any], seed: int, device: str,
) -> ExtractorArtifact:  # fmt: skip
    """Fine-tune a pretrained encoder-decoder to write records in brackets, as T5 is in the paper.

    The marks are the model's sentinels (`<extra_id_0>`) where it has any.

    Args:
        model: a folder or hub id, such as google-t5/t5-large.
        size: training sentences; None takes those that `ask_in_context` shows with as many `shots` and this seed.
        training: steps, batch_size, learning_rate, max_length, longest (tokens of a target).

    Raises:
        InputError: the model is no encoder-decoder.
    """
    import numpy as np
    import torch
    from transformers import AutoModelForSeq2SeqLM

    from paperflows.components.extraction.demonstrations import draw_shots
    from paperflows.components.extraction.forms import FORMS
    from paperflows.components.extraction.records import records_of
    from paperflows.components.extraction.sentinels import from_sentinels, to_sentinels
    from paperflows.components.models.pretrained import load_pretrained, load_tokenizer
    from paperflows.components.training.batching import token_budget_batches

    t = training
    some, test, schema, dropped = split_sentences(data, names, relations, size, evaluated, seed)
    if size is None:
        some = draw_shots(some, schema, shots, seed=seed)
    brackets, tokenizer = FORMS["sel"], load_tokenizer(model)
    try:
        writer = load_pretrained(AutoModelForSeq2SeqLM, model)
    except ValueError as error:
        raise InputError(f"model {model!r} is no encoder-decoder: {str(error).splitlines()[0]}") from error

    def sources(sentences: Any) -> list[list[int]]:
        prompts = [brackets.prompt(s.text, schema) for s in sentences]
        return tokenizer(prompts, truncation=True, max_length=t["max_length"])["input_ids"]

    texts = [to_sentinels(brackets.target(records_of(s, schema), schema), tokenizer) for s in some]
    inputs, targets = sources(some), tokenizer(texts, truncation=True, max_length=t["longest"])["input_ids"]

    def loss_fn(trained: Any, batch: Any) -> Any:
        return trained(input_ids=batch["source"], attention_mask=batch["mask"], labels=batch["target"]).loss

    label = f"seq2seq, {data['name']}, {len(some)} sentences, seed {seed}"
    done = fit(
        label, {"form": "sel", "model": model, "size": len(some), "seed": seed, **t}, writer,
        _batches(inputs, targets, tokenizer.pad_token_id, t["batch_size"], seed), loss_fn, t["steps"],
        t["learning_rate"], seed, device,
    )  # fmt: skip
    writer.eval()
    where, answers, asked = next(writer.parameters()).device, [""] * len(test), sources(test)
    for rows in token_budget_batches(np.array([len(ids) for ids in asked]), budget=2048):
        ids = _pad([asked[i] for i in rows], tokenizer.pad_token_id).to(where)
        with torch.inference_mode():
            written = writer.generate(
                input_ids=ids, attention_mask=(ids != tokenizer.pad_token_id).long(), do_sample=False, num_beams=1,
                max_new_tokens=t["longest"],
            )  # fmt: skip
        for i, numbers in zip(rows, written.tolist(), strict=True):
            answers[i] = from_sentinels(numbers, tokenizer)
    return score_records(data["name"], answers, None, test, schema, "sel", done.history, dropped)


def _write_all(whole: Any, test: Any, tokenizer: Any, words: Any, form: Any, schema: Any, t: dict[str, Any]) -> Any:
    """What the model writes for each test sentence, freely and (None for relations) by the form's grammar, the nats
    (N,) of its reference target, NaN where it is longer than the decoder in any form, and how many are longer than what
    a model may write.
    """
    import numpy as np
    import torch

    from paperflows.components.extraction.forms import FORMS
    from paperflows.components.extraction.grammar import Grammar
    from paperflows.components.extraction.targets import read_source, spell, write_target
    from paperflows.components.training.batching import token_budget_batches

    whole.eval()
    device = next(whole.parameters()).device
    sources = [read_source(s, tokenizer, max_length=t["max_length"]) for s in test]
    free, constrained, nats, cut = [""] * len(test), [""] * len(test), np.zeros(len(test)), 0
    grammar = None if schema.relations else Grammar(form, schema, words)
    for rows in token_budget_batches(np.array([len(s.ids) for s in sources]), budget=2048):
        ids = _pad([sources[i].ids for i in rows], tokenizer.pad_token_id).to(device)
        mask = (ids != tokenizer.pad_token_id).long()
        limit = whole.decoder.positions + 1
        written_in = {
            name: [write_target(test[i], sources[i], each, schema, words) for i in rows] for name, each in FORMS.items()
        }
        fits = np.array([max(map(len, one)) <= limit for one in zip(*written_in.values(), strict=True)])
        cut += sum(len(one) > min(limit, t["longest"]) for one in written_in[form.name])
        target = [one[:limit] for one in written_in[form.name]]
        with torch.inference_mode():
            gold, memory = _pad(target, -100).to(device), whole.read(ids, mask)
            said = whole.decoder(gold[:, :-1].clamp(min=0), memory, mask)
            wanted = gold[:, 1:].clamp(min=0)[..., None]
            each = -(said.gather(-1, wanted)[..., 0] * (gold[:, 1:] >= 0)).sum(1).cpu().double().numpy()
            nats[rows] = np.where(fits, each, np.nan)
            written = whole.decoder.write(memory, mask, longest=t["longest"])
            if grammar:
                pieces = _pad([[a < b for a, b in sources[i].places] for i in rows], False).to(device)
                ruled = whole.decoder.write(memory, mask, longest=t["longest"], walk=grammar.walk(pieces))
            else:
                ruled = []
        for i, numbers in zip(rows, written, strict=True):
            free[i] = spell(numbers, sources[i], words)
        for i, numbers in zip(rows, ruled, strict=False):
            constrained[i] = spell(numbers, sources[i], words)
    return free, constrained if grammar else None, nats, cut


def _batches(sources: list[list[int]], targets: list[list[int]], pad: int, size: int, seed: int) -> Any:
    """step -> a padded batch of sentences whose lengths are alike."""
    import numpy as np

    from paperflows.components.training.batching import Batches

    lengths = np.array([len(a) + len(b) for a, b in zip(sources, targets, strict=True)])
    batches = Batches(batch_size=size, seed=seed, lengths=lengths)

    def batch_at(step: int) -> dict[str, Any]:
        rows = batches.at(step)
        ids, target = _pad([sources[i] for i in rows], pad), _pad([targets[i] for i in rows], -100)
        return {"source": ids, "mask": (ids != pad).long(), "target": target, "ids": rows.tolist()}

    return batch_at


def _pad(rows: list[list[int]], value: int) -> Any:
    import torch

    return torch.nn.utils.rnn.pad_sequence([torch.tensor(r) for r in rows], batch_first=True, padding_value=value)
