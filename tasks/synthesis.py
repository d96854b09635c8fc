"""AnyInstruct: conversations with described media, filtered, made real and checked; each step a task with its yield."""

import random
import shutil
from contextlib import ExitStack
from functools import lru_cache
from typing import Any

from paperflows.components.errors import InputError, ServiceError
from paperflows.tasks.annotators import Annotator, open_client
from paperflows.tasks.data import read_rows
from paperflows.tasks.environment import state_folder
from paperflows.tasks.media import RATE, MediaArtifact, read_signals
from paperflows.tasks.policy import cached_task, current_key
from paperflows.tasks.progress import progress
from paperflows.tasks.store import OUTPUTS, Artifact, new_artifact, open_artifact

ROWS, MANIFEST = "conversations.jsonl", "manifest.jsonl"


class RowsArtifact(Artifact):
    """JSON lines and what went in, came out and was dropped for which reason."""

    counts: dict[str, int]


class ConversationsArtifact(RowsArtifact):
    """Conversations with their media files, a manifest of these, and figures of the whole set."""

    figures: dict[str, float]
    matrix: dict[str, int]
    examples: list[dict[str, str]]


@cached_task(name="find_things")
def find_things(media: list[MediaArtifact]) -> list[str]:
    """The words that pictures and recordings have in common, which conversations are about.

    Raises:
        InputError: they share fewer than two.
    """
    said = {
        one["modality"]: {row["caption"] for row in read_library(one)[0]}
        for one in media
        if one["modality"] in ("picture", "speech")
    }
    shared = sorted(set.intersection(*said.values()))
    if len(shared) < 2:
        first = "; ".join(f"{modality}: {', '.join(sorted(words)[:5])}" for modality, words in said.items())
        raise InputError(
            f"pictures and recordings have {len(shared)} of their words in common, conversations need two ({first})"
        )
    return shared


@cached_task(name="expand_topics", retries=2, retry_on=(ServiceError,))
def expand_topics(writer: Annotator, count: int, things: list[str], seed: int) -> RowsArtifact:
    """Phase 1a: meta topics become specific ones; one in five is held out for the evaluation.

    Args:
        count: topics at most.
        things: words that a language model is shown.

    Raises:
        InputError: none came out.
    """
    from paperflows.components.data.jsonl import write_jsonl
    from paperflows.components.multimodal.conversations import topics

    found, unreadable = topics(), 0
    if writer.kind != "offline":
        with ExitStack() as opened:
            from paperflows.components.multimodal.llm_writer import expand

            work = state_folder() / "checkpoints" / current_key()
            replies = expand(open_client(writer, "topics", "cpu", work, opened), writer.model, count, things)
            found, unreadable = [topic for said in replies for topic in said or ()], replies.count(None)
        shutil.rmtree(work, ignore_errors=True)
    different = list(dict.fromkeys(" ".join(topic.casefold().split()) for topic in found if topic.strip()))
    random.Random(seed).shuffle(different)
    kept = different[:count]
    if len(kept) < 5:
        raise InputError(f"the writer gave {len(kept)} topics; 5 are needed")
    held = max(1, len(kept) // 5)
    with new_artifact() as (folder, artifact):
        rows = [{"topic": topic, "held_out": number < held} for number, topic in enumerate(kept)]
        write_jsonl(folder / "topics.jsonl", rows)
    counts = {
        "unreadable replies": unreadable, "written": len(found), "duplicate": len(found) - len(different),
        "kept": len(kept), "held_out": held,
    }  # fmt: skip
    return RowsArtifact(**artifact, counts=counts)


def read_topics(topics: Artifact, *, held_out: bool) -> list[str]:
    """Topics of the training or of the evaluation."""
    return [row["topic"] for row in read_rows(open_artifact(topics) / "topics.jsonl") if row["held_out"] == held_out]


@cached_task(name="write_scenarios")
def write_scenarios(topics: Artifact, count: int, modalities: list[str], things: list[str], seed: int) -> RowsArtifact:
    """Phase 1b: who speaks, what for, and which modality appears in which turn; combinations are covered evenly."""
    from paperflows.components.data.jsonl import write_jsonl
    from paperflows.components.multimodal.conversations import scenarios

    made = scenarios(read_topics(topics, held_out=False), count, modalities, things, seed=seed)
    with new_artifact() as (folder, artifact):
        write_jsonl(folder / "scenarios.jsonl", [one.as_row() for one in made])
    return RowsArtifact(**artifact, counts={"kept": len(made)})


@cached_task(name="write_conversations", retries=2, retry_on=(ServiceError,))
def write_conversations(
    scenarios: Artifact, media: list[MediaArtifact], things: list[str], writer: Annotator, seed: int
) -> RowsArtifact:
    """Phase 1c: each scenario becomes a conversation in which media stand as marked descriptions.

    Offline the built-in grammar writes; else a language model, whose completions are stored beside the rows.
    """
    from paperflows.components.data.jsonl import write_jsonl
    from paperflows.components.multimodal.conversations import Scenario, write_conversation

    made = [
        Scenario(**{**row, "turns": tuple(map(tuple, row["turns"]))})
        for row in read_rows(open_artifact(scenarios) / "scenarios.jsonl")
    ]
    repertoire = {one["modality"]: sorted({r["caption"] for r in read_library(one)[0]}) for one in media}
    keys = sorted({text.partition(" in ")[2] for text in repertoire.get("music", ["4/4 in C"])})
    work = state_folder() / "checkpoints" / current_key()
    if writer.kind == "offline":
        draws = [random.Random(f"{seed}:{number}") for number in range(len(made))]
        turns: list[Any] = [write_conversation(one, things, keys, draw) for one, draw in zip(made, draws, strict=True)]
    else:
        from paperflows.components.multimodal.llm_writer import write

        with ExitStack() as opened:
            turns = write(open_client(writer, "writer", "cpu", work, opened), writer.model, made, repertoire)
    rows = [
        {"id": number, "topic": one.topic, "plan": [list(t) for t in one.turns], "turns": said}
        for number, (one, said) in enumerate(zip(made, turns, strict=True))
        if said is not None
    ]
    with new_artifact() as (folder, artifact):
        write_jsonl(folder / ROWS, rows)
        for recorded in work.glob("*.completions.jsonl"):
            shutil.copyfile(recorded, folder / recorded.name)
    shutil.rmtree(work, ignore_errors=True)
    return RowsArtifact(**artifact, counts={"in": len(made), "unreadable": len(made) - len(rows), "kept": len(rows)})


@cached_task(name="filter_conversations")
def filter_conversations(
    written: Artifact, media: list[MediaArtifact], most_words: int, threshold: float
) -> RowsArtifact:
    """Phase 1d: parsable, as planned, convertible, safe, not too long, no near-duplicate.

    Args:
        threshold: Jaccard similarity of word trigrams above which a conversation repeats an earlier one.

    Raises:
        InputError: nothing was kept.
    """
    from collections import Counter

    from paperflows.components.data.jsonl import write_jsonl
    from paperflows.components.multimodal.filters import near_duplicates, reject, texts_of

    repertoire = {one["modality"]: {r["caption"] for r in read_library(one)[0]} for one in media}
    rows = read_rows(open_artifact(written) / ROWS)
    why = [reject(row, repertoire, most_words=most_words) for row in rows]
    counts = Counter(reason for reason in why if reason)
    good = [row for row, reason in zip(rows, why, strict=True) if reason is None]
    near = near_duplicates([texts_of(row) for row in good], threshold=threshold)
    counts["near duplicate"] = sum(near)
    kept = [row for row, same in zip(good, near, strict=True) if not same]
    if not kept:
        raise InputError(f"the filters left no conversation: {dict(counts)}")
    with new_artifact() as (folder, artifact):
        write_jsonl(folder / ROWS, kept)
    return RowsArtifact(**artifact, counts={"in": len(rows), **dict(counts), "kept": len(kept)})


@cached_task(name="convert_media")
def convert_media(
    filtered: Artifact, media: list[MediaArtifact], things: list[str], tries: int, most: int, seed: int
) -> ConversationsArtifact:
    """Phase 2: every description becomes a file (PNG, WAV, ABC), checked by a judge; a conversation with one that all
    tries failed is dropped with the reason. Every file is read back before it is kept.

    Args:
        tries: of one element.
        most: conversations at most, the first kept ones.
    """
    from collections import Counter

    from paperflows.components.data.jsonl import write_jsonl
    from paperflows.components.multimodal.conversations import combinations, parse_marked
    from paperflows.components.multimodal.conversion import Library, convert
    from paperflows.components.multimodal.filters import combination_counts, distinct, texts_of

    rows = read_rows(open_artifact(filtered) / ROWS)
    train = {one["modality"]: read_library(one) for one in media}
    library = Library({m: [(r["caption"], s) for r, s in zip(*both, strict=True)] for m, both in train.items()})
    judges = {one["modality"]: fit_judge(one, "check", seed + 1, of_conversions=True) for one in media}
    parsed = [[(parse_marked(t["user"]), parse_marked(t["assistant"])) for t in row["turns"]] for row in rows]
    wanted = [
        (i, kind, said)
        for i, turns in enumerate(parsed)
        for t in turns
        for m in t
        for kind, said in m
        if kind != "text"
    ]
    made = convert(library, judges, [(kind, said) for _, kind, said in wanted], tries=tries, seed=seed)
    failed = {
        i: f"{kind} not recognised" for (i, kind, _), one in zip(wanted, made, strict=True) if one["signal"] is None
    }
    queue = iter(zip(wanted, made, strict=True))
    conversations: list[Any] = []
    manifest: list[Any] = []
    with new_artifact() as (folder, artifact), progress("write media") as report:
        (folder / "media").mkdir()
        for i, (row, turns) in enumerate(zip(rows, parsed, strict=True)):
            report(i + 1, len(rows))
            keep = i not in failed and len(conversations) < most
            stored = []
            for turn in turns:
                messages = []
                for said in turn:
                    parts = []
                    for kind, value in said:
                        if kind == "text":
                            parts.append({"kind": "text", "value": value})
                            continue
                        (_, _, description), one = next(queue)
                        if keep:
                            file = write_medium(folder / "media", f"{len(manifest):06d}", kind, one["signal"])
                            parts.append({"kind": kind, "file": f"media/{file}"})
                            manifest.append(
                                {"file": f"media/{file}", "kind": kind, "prompt": description,
                                 "generator": library.name, **{k: one[k] for k in ("seed", "tries", "judged")}}
                            )  # fmt: skip
                    messages.append(parts)
                stored.append(messages)
            if keep:
                conversations.append({**row, "turns": stored})
        decoded = sum(read_medium(folder / one["file"], one["kind"]) is not None for one in manifest)
        write_jsonl(folder / ROWS, conversations)
        write_jsonl(folder / MANIFEST, manifest)
    texts = [texts_of(row) for i, row in enumerate(rows) if i not in failed][:most]
    pairs = combinations([one["modality"] for one in media], things)
    covered = combination_counts(conversations, pairs)
    figures = {
        "files": float(len(manifest)), "decoded": float(decoded), "distinct_2": distinct(texts, 2),
        "distinct_3": distinct(texts, 3),
        "combinations_least_to_mean": min(covered) * len(covered) / max(1, sum(covered)),
        "combinations_most_to_mean": max(covered) * len(covered) / max(1, sum(covered)),
        "tries": sum(one["tries"] for one in made) / len(made),
    }  # fmt: skip
    counts = {"in": len(rows), **Counter(failed.values()), "kept": len(conversations)}
    return ConversationsArtifact(
        **artifact, counts=counts, figures=figures, examples=[_example(row) for row in rows[:5]],
        matrix={f"{given} to {wanted_}": n for (given, wanted_), n in zip(pairs, covered, strict=True)},
    )  # fmt: skip


@cached_task(name="judge_conversions")
def judge_conversions(conversations: Artifact, media: list[MediaArtifact], seed: int) -> Artifact:
    """Whether the other panel of judges recovers each file's description, from the file: outputs `media` (N,)."""
    import numpy as np
    from safetensors.numpy import save_file

    from paperflows.components.multimodal.captions import facets

    folder = open_artifact(conversations)
    manifest = read_rows(folder / MANIFEST)
    right = np.zeros(len(manifest))
    for one in media:
        rows = [i for i, m in enumerate(manifest) if m["kind"] == one["modality"]]
        judge = fit_judge(one, "claims", seed, of_conversions=True)
        said = judge.name([read_medium(folder / manifest[i]["file"], one["modality"]) for i in rows])
        truth = [next(iter(facets(one["modality"], manifest[i]["prompt"]).values())) for i in rows]
        right[rows] = [a == b for a, b in zip(said, truth, strict=True)]
    with new_artifact() as (target, artifact):
        save_file({"media": right}, target / OUTPUTS)
    return artifact


def read_library(media: MediaArtifact) -> tuple[list[dict[str, Any]], list[Any]]:
    """The half of the training split that conversions are made of; what judges them learns from the other half."""
    rows, signals = read_signals(media, "train")
    return rows[::2], signals[::2]


def fit_judge(media: MediaArtifact, panel: Any, seed: int, *, of_conversions: bool = False) -> Any:
    """A judge of a modality, learnt from the real signals of its training split (once in a process).

    Args:
        of_conversions: from those alone that no conversion is made of.
    """
    return _fitted(media["path"], media["sha256"], media["name"], media["modality"], panel, seed, of_conversions)


@lru_cache(maxsize=16)
def _fitted(path: str, sha256: str, name: str, modality: str, panel: Any, seed: int, of_conversions: bool) -> Any:
    from paperflows.components.multimodal.captions import FACETS, facets
    from paperflows.components.multimodal.judges import Judge

    stored = MediaArtifact(
        path=path, sha256=sha256, name=name, modality=modality, content="", rows={"train": 1}, classes={}, left_out=0,
        warnings=[],
    )  # fmt: skip
    rows, signals = read_signals(stored, "train")
    if of_conversions:
        rows, signals = rows[1::2], signals[1::2]
    labels = [facets(modality, row["caption"])[FACETS[modality][0]] for row in rows]
    return Judge(modality, panel, seed=seed).fit(signals, labels)


def write_medium(folder: Any, name: str, kind: str, signal: Any, *, title: str = "tune") -> str:
    """Write a signal as PNG, WAV or ABC and return the file's name."""
    from paperflows.components.data.media import write_png, write_wav
    from paperflows.components.multimodal.music import write_abc

    if kind == "speech":
        write_wav(folder / f"{name}.wav", signal, RATE)
        return f"{name}.wav"
    if kind == "music":
        (folder / f"{name}.abc").write_text(write_abc(signal, title=title), encoding="utf-8")
        return f"{name}.abc"
    write_png(folder / f"{name}.png", signal)
    return f"{name}.png"


def read_medium(path: Any, kind: str) -> Any:
    """The signal of a file that `write_medium` wrote.

    Raises:
        DataError: the file is no picture or sound.
    """
    from paperflows.components.data.media import read_picture, read_wav
    from paperflows.components.multimodal.music import parse_written

    if kind == "speech":
        return read_wav(path)[0]
    if kind == "music":
        return parse_written(path.read_text(encoding="utf-8"))
    return read_picture(path)


def read_conversations(conversations: Artifact, tokenizers: dict[str, Any]) -> list[list[Any]]:
    """Turns of (user's parts, assistant's parts) with media as their tokenizer's ids.

    The message holds the media's ids and nothing of their description.
    """
    folder = open_artifact(conversations)
    rows = read_rows(folder / ROWS)
    files = [
        (p["kind"], p["file"]) for row in rows for turn in row["turns"] for said in turn for p in said if "file" in p
    ]
    ids: dict[str, list[int]] = {}
    for kind, tokenizer in tokenizers.items():
        mine = [file for k, file in files if k == kind]
        if mine:
            ids |= dict(zip(mine, tokenizer.encode([read_medium(folder / file, kind) for file in mine]), strict=True))
    return [
        [
            tuple([(p["kind"], ids[p["file"]] if "file" in p else p["value"]) for p in said] for said in turn)
            for turn in row["turns"]
        ]
        for row in rows
    ]


def _example(row: dict[str, Any]) -> dict[str, str]:
    said = [f"user: {turn['user']} / assistant: {turn['assistant']}" for turn in row["turns"]]
    return {"topic": row["topic"], "conversation": " / ".join(said)}
