"""CodeIE: does writing records as code extract better than writing them as brackets? (Li et al., 2023).

The paper asks code and text language models in code and text form. Offline the two models are small ones: one decoder
is pre-trained on Python source, one on prose, for the same tokens; both are then trained to write the records of a few
sentences as code, in UIE's brackets and as JSON lines, on top of the same encoder, for the same steps. Beside them,
word tagging by the same encoder; and what a robust parser recovers from damaged answers.
"""

from statistics import fmean
from typing import Any

from prefect import flow
from pydantic import Field, model_validator

from paperflows.flows.params import BySource, FlowParameters, Section
from paperflows.flows.registry import Paper
from paperflows.tasks import plots
from paperflows.tasks.annotators import LanguageModel
from paperflows.tasks.claims import Claim, judge_claim
from paperflows.tasks.damage import corrupt_targets
from paperflows.tasks.data import load_dataset
from paperflows.tasks.exits import fetch_encoder
from paperflows.tasks.extraction import ask_in_context, pair_outputs, tag_entities
from paperflows.tasks.record_writers import train_extractor, train_seq2seq
from paperflows.tasks.run import open_run
from paperflows.tasks.runner import runner
from paperflows.tasks.target_lms import collect_code, collect_prose, learn_vocabulary, train_target_lm


class Corpora(Section):
    """Names of datasets by their part in the flow."""

    entities: tuple[str, ...] = Field((), description="Tagging or relations; their entities are extracted")
    relations: tuple[str, ...] = Field((), description="Relations; these are extracted, with their entities")
    prose: str = Field(description="Texts that the text model learns")


class Decoder(Section):
    """The decoder that writes targets."""

    width: int = Field(ge=8, description="Hidden size, that of the encoder")
    layers: int = Field(ge=1, le=24, description="Layers")
    heads: int = Field(ge=1, description="Attention heads")
    positions: int = Field(ge=16, le=4096, description="Tokens of the longest target")


class Pretraining(Section):
    """The decoder as a language model, before it sees a target."""

    characters: int = Field(ge=1000, description="Of each corpus, at most")
    vocabulary: int = Field(ge=300, le=100_000, description="Byte-level tokens, learnt from both corpora alike")
    steps: int = Field(ge=1, description="Optimiser steps")
    batch_size: int = Field(ge=1, description="Windows of 128 tokens a step")
    learning_rate: float = Field(gt=0, description="Highest")


class Training(Section):
    """One training of an extractor; the same for every form and for tags."""

    steps: int = Field(ge=1, description="Optimiser steps")
    batch_size: int = Field(ge=1, description="Sentences a step")
    learning_rate: float = Field(gt=0, description="Of the decoder (or the tags' layer)")
    encoder_rate: float = Field(gt=0, le=1, description="Factor on it for the encoder")
    max_length: int = Field(ge=8, le=512, description="Pieces kept of a sentence")
    longest: int = Field(ge=8, le=4096, description="Tokens that an answer may take")


class Seq2Seq(Section):
    """A pretrained encoder-decoder that is fine-tuned to write brackets, as T5 is in the paper."""

    model: str = Field(description="A folder or a Hugging Face id, such as google-t5/t5-large")
    steps: int = Field(ge=1, description="Optimiser steps")
    batch_size: int = Field(ge=1, description="Sentences a step")
    learning_rate: float = Field(gt=0, description="Highest")
    max_length: int = Field(ge=8, le=4096, description="Tokens kept of a prompt")
    longest: int = Field(ge=8, le=4096, description="Tokens that an answer may take")


class Codeie(FlowParameters):
    """Parameters of the flow `codeie`."""

    datasets: BySource[Corpora]
    encoder: str = Field(description="minilm, a folder or a Hugging Face id of an encoder")
    names: dict[str, str] = Field(description="Types in the data -> words")
    forms: tuple[str, ...] = Field(min_length=2, description="code and sel, and json if wanted")
    sizes: tuple[int, ...] = Field(min_length=1, description="Training sentences; the claims judge the first")
    evaluated: int = Field(ge=1, description="Test sentences, the first ones")
    decoder: Decoder
    pretraining: Pretraining
    training: Training
    seq2seq: Seq2Seq | None = Field(None, description="A further baseline, of your models or the hub's")
    models: dict[str, LanguageModel] = Field(description="Language models asked in context, by name: code, text")
    shots: int = Field(ge=1, description="Demonstrations of each type in a prompt")
    damage: tuple[float, ...] = Field(min_length=1, description="Shares of the records that are damaged")
    resamples: int = Field(1000, ge=100, description="Bootstrap resamples of every verdict")

    @model_validator(mode="after")
    def _known(self) -> "Codeie":
        if unknown := set(self.forms) - {"code", "sel", "json"}:
            raise ValueError(f"forms: unknown {', '.join(sorted(unknown))}; expected code, sel, json")
        if missing := {"code", "sel"} - set(self.forms):
            raise ValueError(f"forms: {', '.join(sorted(missing))} cannot be left out, the claims compare them")
        return self


PAPER = Paper(
    slug="codeie",
    title="CodeIE: Large Code Generation Models are Better Few-Shot Information Extractors",
    authors="Li et al., ACL 2023",
    arxiv="2305.05711",
    parameters=Codeie,
)

MODELS = ("code", "text")


@flow(name="codeie", timeout_seconds=24 * 3600, task_runner=runner())
def codeie(params: Codeie) -> dict[str, Any]:
    """Write records as code and as brackets with a code and a text model, and judge which fits which."""
    with open_run("codeie", PAPER.title, params) as found:
        names = params.datasets.of(params.data)
        kinds, splits = ["tagging", "relations"], ["train", "test"]
        jobs = [(load_dataset(params.data, name, kinds, splits), False) for name in names.entities]
        jobs += [(load_dataset(params.data, name, ["relations"], splits), True) for name in names.relations]
        prose = load_dataset(params.data, names.prose, splits=["train"])

        p = params.pretraining
        corpora = {"code": collect_code(p.characters), "text": collect_prose(prose, p.characters)}
        vocabulary = learn_vocabulary(list(corpora.values()), p.vocabulary)
        decoder = params.decoder.model_dump()
        writers = {
            name: [
                train_target_lm(
                    name, corpus, vocabulary, decoder, p.steps, p.batch_size, p.learning_rate, seed, params.device
                )
                for seed in params.seeds
            ]
            for name, corpus in corpora.items()
        }
        encoder = fetch_encoder(params.encoder)
        results = {label(d, r): extract_all(params, writers, vocabulary, encoder, d, r) for d, r in jobs}
        parsed = {label(d, r): corrupt_targets(d, params.names, r, list(params.damage)) for d, r in jobs}

        found.claims = [judge_claim(c, params.resamples) for c in claims_of(params, jobs, results, parsed)]
        found.datasets = {d["name"]: d["content"] for d in [*(d for d, _ in jobs), prose]}
        describe(found, params, results, parsed, writers)
    return found.report


def label(data: Any, relations: bool) -> str:
    """What is extracted from which dataset."""
    return f"{data['name']} {'relations' if relations else 'entities'}"


def extract_all(params: Codeie, writers: Any, vocabulary: Any, encoder: Any, data: Any, relations: bool) -> Any:
    """(method, size) -> one extractor a seed: every model in every form, and tags where entities are asked for."""
    t, decoder = params.training.model_dump(), params.decoder.model_dump()
    futures: dict[tuple[str, int], list[Any]] = {}
    for size in params.sizes:
        for model in MODELS:
            for form in params.forms:
                futures[f"{model} model, {form}", size] = [
                    train_extractor.submit(
                        form, writer, vocabulary, encoder, data, params.names, relations, size, params.evaluated, t,
                        decoder, None, seed, params.device,
                    )
                    for writer, seed in zip(writers[model], params.seeds, strict=True)
                ]  # fmt: skip
        futures["code model, code at equal tokens", size] = [
            train_extractor.submit(
                "code", writer, vocabulary, encoder, data, params.names, relations, size, params.evaluated, t,
                decoder, "sel", seed, params.device,
            )
            for writer, seed in zip(writers["code"], params.seeds, strict=True)
        ]  # fmt: skip
        if not relations:
            futures["tags", size] = [
                tag_entities.submit(encoder, data, params.names, size, params.evaluated, t, seed, params.device)
                for seed in params.seeds
            ]
        if params.seq2seq:
            written = params.seq2seq.model_dump(exclude={"model"})
            futures["seq2seq", size] = [
                train_seq2seq.submit(
                    params.seq2seq.model, data, params.names, relations, size, params.shots, params.evaluated, written,
                    seed, params.device,
                )
                for seed in params.seeds
            ]  # fmt: skip
    if params.seq2seq and params.models:
        written = params.seq2seq.model_dump(exclude={"model"})
        futures["seq2seq on the shots", 0] = [
            train_seq2seq.submit(
                params.seq2seq.model, data, params.names, relations, None, params.shots, params.evaluated, written,
                seed, params.device,
            )
            for seed in params.seeds
        ]  # fmt: skip
    results = {key: [future.result() for future in by_seed] for key, by_seed in futures.items()}
    for name, asked in params.models.items():
        for form in params.forms:
            results[f"{name} model in context, {form}", 0] = [
                ask_in_context(
                    form, asked, data, params.names, relations, params.shots, params.evaluated, t["longest"], seed,
                    params.device,
                )
                for seed in params.seeds
            ]  # fmt: skip
    return results


def claims_of(params: Codeie, jobs: list[Any], results: Any, parsed: Any) -> list[Claim]:
    """The paper's claims for each dataset, at the first size."""
    size, claims = params.sizes[0], []
    for data, relations in jobs:
        name, what = data["name"], label(data, relations)
        by = {method: artifacts for (method, of), artifacts in results[what].items() if of in (0, size)}
        code, flat = by["code model, code"], by["text model, sel"]

        def gaps(model: str, by: Any = by, name: str = name) -> list[Any]:
            pairs = zip(by[f"{model} model, code"], by[f"{model} model, sel"], strict=True)
            return [pair_outputs(a, b, [name]) for a, b in pairs]

        def claim(identity: str, statement: str, what: str = what, **more: Any) -> Claim:
            return Claim(id=f"{identity}_{what.replace(' ', '_')}", statement=f"{what}: {statement}", **more)

        claims += [
            claim(
                "form_fits_model", "writing code helps the code model more than the text model",
                metric="F1 with code form minus F1 with brackets", ours=gaps("code"), baseline=gaps("text"),
                baseline_name="text model", datasets=[name], statistic="f1_gap",
            ),
            claim(
                "code_beats_brackets", "a code model that writes code beats a text model that writes brackets",
                metric="F1", ours=code, baseline=flat, baseline_name="text model, brackets",
                datasets=[name], statistic="f1",
            ),
            claim(
                "code_beats_brackets_at_equal_tokens",
                "so it does where it sees no more target tokens in training than the text model", metric="F1",
                ours=by["code model, code at equal tokens"], baseline=flat, baseline_name="text model, brackets",
                datasets=[name], statistic="f1",
            ),
            claim(
                "fewer_broken", "a code model that writes code breaks fewer structures",
                metric="share of broken answers", ours=code, baseline=flat, lower_is_better=True,
                baseline_name="text model, brackets", datasets=[f"{name}.errors"], statistic="mean",
            ),
            claim(
                "likelier_targets", "targets in code are likelier to the code model than brackets to the text model",
                metric="nats a record", ours=code, baseline=flat, lower_is_better=True,
                baseline_name="text model, brackets", datasets=[f"{name}.nats"], statistic="ratio_of_sums",
            ),
            claim(
                "parser_recovers", "the parser finds 99 % of the records left in damaged answers",
                metric="share found", ours=[parsed[what]["ours"]], baseline=[parsed[what]["almost"]],
                baseline_name="99 %", datasets=["lines"], statistic="ratio_of_sums", kind="check",
            ),
        ]  # fmt: skip
        if {f"{m} model in context, {f}" for m, f in (("code", "code"), ("text", "sel"))} <= by.keys():
            claims.append(
                claim(
                    "in_context", "a code model asked in code beats a text model asked for brackets", metric="F1",
                    ours=by["code model in context, code"], baseline=by["text model in context, sel"],
                    baseline_name="text model, brackets", datasets=[name], statistic="f1",
                )
            )  # fmt: skip
        if not relations:
            claims.append(
                claim(
                    "code_beats_brackets_constrained", "so it does where neither can write anything but its form",
                    metric="F1", ours=code, baseline=flat, baseline_name="text model, brackets",
                    datasets=[f"{name}.constrained"], statistic="f1",
                )
            )  # fmt: skip
        if "seq2seq" in by:
            claims.append(
                claim(
                    "code_beats_seq2seq", "a code model beats a fine-tuned encoder-decoder that writes brackets",
                    metric="F1", ours=code, baseline=by["seq2seq"], baseline_name="seq2seq, brackets",
                    datasets=[name], statistic="f1",
                )
            )  # fmt: skip
        if {"seq2seq on the shots", "code model in context, code"} <= by.keys():
            claims.append(
                claim(
                    "in_context_beats_seq2seq",
                    "a code model that is shown a few sentences beats an encoder-decoder fine-tuned on them",
                    metric="F1", ours=by["code model in context, code"], baseline=by["seq2seq on the shots"],
                    baseline_name="seq2seq, brackets", datasets=[name], statistic="f1",
                )
            )  # fmt: skip
        if "tags" in by:
            claims.append(
                claim(
                    "code_beats_tags", "writing code beats tagging words with the same encoder", metric="F1",
                    ours=code, baseline=by["tags"], baseline_name="tags", datasets=[name], statistic="f1",
                )
            )  # fmt: skip
    return claims


def describe(found: Any, params: Codeie, results: Any, parsed: Any, writers: Any) -> None:
    """Metrics, plots and notes of the report."""
    for what, by in results.items():
        groups: dict[str, dict[str, list[float]]] = {}
        for (method, size), artifacts in by.items():
            key = f"{what}.{method}.{size}".replace(",", "")
            found.metrics[f"f1.{key}"] = fmean([a["f1"] for a in artifacts])
            for count in artifacts[0]["counts"]:
                found.metrics[f"{count}.{key}"] = fmean([a["counts"].get(count, 0.0) for a in artifacts])
            groups.setdefault(f"{size} sentences" if size else "in context", {})[method] = [a["f1"] for a in artifacts]
        found.draw[f"f1_{what.replace(' ', '_')}.png"] = lambda path, groups=groups: plots.draw_bars(
            groups, path, ylabel="F1"
        )
        for who in ("ours", "official"):
            found.metrics |= {f"recovered.{what}.{kind}.{who}": v for kind, v in parsed[what][who]["kinds"].items()}
        for count in ("answers", "invented"):
            found.metrics[f"{count}.{what}"] = float(parsed[what]["ours"][count])
    d = params.decoder
    found.model = f"{params.encoder} with a decoder of {d.layers} layers of width {d.width}"
    found.notes = [
        ("" if params.models else "A proxy: no large language model was asked. ")
        + "The code model's decoder learnt Python source of the running interpreter's standard library, the text "
        "model's as many tokens of prose. Code targets are longer (`tokens_a_target`): at equal steps the model sees "
        "more tokens of them, `at equal tokens` it takes fewer steps. `structural_errors` is a share of the answers, "
        "`structural_errors_a_record` of the records and pieces that were written.",
        "Training sentences that stand in the test split word for word are left out (`dropped`). `targets_cut`: test "
        "sentences whose reference is longer than a model may write in that form, which it cannot get right. "
        "`constrained`: entities written by the same models with a grammar of the form, which leaves spans to be "
        "copied and nothing to be broken but an end for want of room.",
        "`recovered`: share of the records found in damaged `answers`, at the highest rate of damage that leaves some.",
    ]
    found.children = [
        (f"{name}-lm-seed{seed}", {"corpus": name, "seed": seed}, writer["history"])
        for name, by_seed in writers.items()
        for seed, writer in zip(params.seeds, by_seed, strict=True)
    ]
    first = next(iter(results.values()))
    found.keep = {"answers": first["code model, code", params.sizes[0]][0]}
