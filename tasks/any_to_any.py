"""What aligned and tuned models say, show and play on test items, and who recognises it."""

import random
from typing import Any

from paperflows.components.errors import InputError
from paperflows.tasks.aligning import Mixture, modality_of, open_model
from paperflows.tasks.data import read_rows
from paperflows.tasks.media import MediaArtifact, TokenizedArtifact, open_tokenizer, read_signals
from paperflows.tasks.policy import cached_task
from paperflows.tasks.progress import progress
from paperflows.tasks.store import OUTPUTS, Artifact, new_artifact, open_artifact
from paperflows.tasks.synthesis import fit_judge, read_topics, write_medium
from paperflows.tasks.training import ModelArtifact

SAID = "said.jsonl"
ACROSS = (("speech", "picture"), ("picture", "speech"))


@cached_task(name="measure_ceilings")
def measure_ceilings(
    media: list[MediaArtifact], tokenized: list[TokenizedArtifact], limit: int, seed: int
) -> dict[str, Any]:
    """What the judges recognise of real test signals and of their reconstructions, and how far these are apart.

    Returns:
        `outputs`: artifact of (N,) right or not, by `real.<modality>` and `reconstructed.<modality>`; `measures`.
    """
    import numpy as np
    from safetensors.numpy import save_file

    from paperflows.components.multimodal.captions import FACETS, diversity, facets

    outputs, measures = {}, {}
    by_name = {one["modality"]: one for one in tokenized}
    for one in media:
        m = one["modality"]
        rows, real = read_signals(one, "test")
        rows, real = rows[:limit], real[:limit]
        tokenizer = open_tokenizer(by_name[m])
        ids = [row["ids"] for row in read_rows(open_artifact(by_name[m]) / "test.jsonl")][:limit]
        made = [tokenizer.decode(some) for some in ids]
        judge = fit_judge(one, "claims", seed)
        truth = [facets(m, row["caption"])[FACETS[m][0]] for row in rows]
        for kind, signals in (("real", real), ("reconstructed", made)):
            said = judge.name(signals)
            outputs[f"{kind}.{m}"] = np.array([a == b for a, b in zip(said, truth, strict=True)], float)
            measures[f"judge.{kind}.{m}"] = float(outputs[f"{kind}.{m}"].mean())
        a, b = judge.features(real), judge.features(made)
        measures[f"reconstruction.{m}"] = float(np.sqrt(((a - b) ** 2).sum(1)).mean())
        measures[f"diversity.real.{m}"] = diversity(list(a))
        measures |= {
            f"tokenizer.perplexity.{m}": by_name[m]["perplexity"], f"tokenizer.ids.{m}": float(by_name[m]["n_ids"]),
            f"tokenizer.length.{m}": by_name[m]["length"],
        }  # fmt: skip
    with new_artifact() as (folder, artifact):
        save_file(outputs, folder / OUTPUTS)
    return {"outputs": artifact, "measures": measures}


@cached_task(name="answer_pairs", task_run_name="answer_pairs-{model[name]}")
def answer_pairs(
    model: ModelArtifact, mixture: Mixture, tokenized: list[TokenizedArtifact], media: list[MediaArtifact],
    decoding: dict[str, dict[str, float]], limit: int, seed: int, device: str, directions: list[str] | None = None,
    split: str = "test",
) -> dict[str, Any]:  # fmt: skip
    """Each direction's output for every test item: texts compared with the caption, media judged by the first facet.

    Args:
        decoding: settings by modality, as `components.multimodal.generation.Setting`.
        directions: only these.

    Returns:
        `outputs`: artifact of (N,) right or not by direction, `<direction>.<facet>` for further facets of texts, and of
        what was written (`said.jsonl`); `measures`: accuracies and, of media, how many answers hold one and the mean
        distance of two (0 where there are no two). An answer without a whole medium is wrong.
    """
    import numpy as np
    from safetensors.numpy import save_file

    from paperflows.components.data.jsonl import write_jsonl
    from paperflows.components.multimodal.captions import FACETS, diversity, facets
    from paperflows.components.training.device import accelerator

    network, vocabulary = open_model(model, tokenized, mixture)
    network = network.to(accelerator(device).device)
    by_media, by_ids = {o["modality"]: o for o in media}, {o["modality"]: o for o in tokenized}
    outputs: dict[str, Any] = {}
    measures: dict[str, float] = {}
    said = []
    with progress(f"answer with {model['name']}") as report:
        wanted = directions or mixture.chosen()
        for place, direction in enumerate(wanted):
            m = modality_of(direction)
            if split not in by_media[m]["rows"]:
                continue
            rows = read_rows(open_artifact(by_ids[m]) / f"{split}.jsonl")[:limit]
            truth = [facets(m, row["caption"]) for row in rows]
            if direction.endswith("_to_text"):
                texts = to_text(network, vocabulary, direction, [row["ids"] for row in rows], decoding, seed)
                found = [facets(m, text) for text in texts]
                said += [
                    {"direction": direction, "caption": r["caption"], "said": t}
                    for r, t in zip(rows, texts, strict=True)
                ]
                for facet in FACETS[m]:
                    right = np.array([f[facet] == t[facet] for f, t in zip(found, truth, strict=True)], float)
                    outputs[direction if facet == FACETS[m][0] else f"{direction}.{facet}"] = right
                classes = [t[FACETS[m][0]] for t in truth]
                share = np.array([len(rows) / (len(set(classes)) * classes.count(c)) for c in classes])
                outputs[f"{direction}.balanced"] = outputs[direction] * share  # its mean is the balanced accuracy
            else:
                ids = to_media(network, vocabulary, direction, [row["caption"] for row in rows], decoding, seed)
                tokenizer = open_tokenizer(by_ids[m])
                signals = [tokenizer.decode(some) if some else [] for some in ids]
                judge = fit_judge(by_media[m], "claims", seed)
                found_ = judge.name(signals)
                right = np.array([f == t[FACETS[m][0]] for f, t in zip(found_, truth, strict=True)], float)
                outputs[direction] = right
                heard = [s for s in signals if len(s)]
                measures[f"diversity.{direction}"] = diversity(list(judge.features(heard)) if heard else [])
                measures[f"written.{direction}"] = len(heard) / len(signals)
                said += [
                    {"direction": direction, "caption": r["caption"], "ids": i, "judged": f}
                    for r, i, f in zip(rows, ids, found_, strict=True)
                ]
            report(place + 1, len(wanted))
    measures |= {f"accuracy.{name}": float(right.mean()) for name, right in outputs.items()}
    with new_artifact() as (folder, artifact):
        save_file(outputs, folder / OUTPUTS)
        write_jsonl(folder / SAID, said)
    return {"outputs": artifact, "measures": measures}


@cached_task(name="answer_across", task_run_name="answer_across-{model[name]}-{way}")
def answer_across(
    model: ModelArtifact, mixture: Mixture, tokenized: list[TokenizedArtifact], media: list[MediaArtifact],
    topics: Artifact, things: list[str], decoding: dict[str, dict[str, float]], way: str, limit: int, seed: int,
    device: str,
) -> dict[str, Any]:  # fmt: skip
    """Speech to picture and picture to speech, judged; instructions speak of topics that no conversation has.

    Args:
        things: the words that conversations were about.
        way: `free` (the model answers and begins blocks as it likes), `direct` (the wanted block is forced at once),
            `cascade` (two questions of stage 1: what is it, and then show it).

    Returns:
        `outputs`: artifact of (N,) right or not by `<from>_to_<to>`, and of what was written; `measures`. An answer
        without a whole medium is wrong.

    Raises:
        InputError: no test item says one of the words.
    """
    import numpy as np
    from safetensors.numpy import save_file

    from paperflows.components.data.jsonl import write_jsonl
    from paperflows.components.multimodal.conversations import Scenario, grammar, parse_marked, write_turn
    from paperflows.components.multimodal.dialogue import prompt, unconditional_prompts
    from paperflows.components.multimodal.generation import answer, room_of
    from paperflows.components.training.device import accelerator

    network, vocabulary = open_model(model, tokenized, mixture)
    network = network.to(accelerator(device).device)
    by_media, by_ids = {o["modality"]: o for o in media}, {o["modality"]: o for o in tokenized}
    settings = settings_of(decoding)
    held_out = read_topics(topics, held_out=True)
    outputs, measures, said = {}, {}, []
    for given, wanted in ACROSS:
        rows = read_rows(open_artifact(by_ids[given]) / "test.jsonl")[:limit]
        rows = [row for row in rows if row["caption"] in things]
        if not rows:
            raise InputError(f"no test item of {given} says a word that the conversations are about")
        if way == "cascade":
            texts = to_text(network, vocabulary, f"{given}_to_text", [row["ids"] for row in rows], decoding, seed)
            written = to_media(network, vocabulary, f"text_to_{wanted}", texts, decoding, seed)
        else:
            draw = random.Random(f"{seed}:{given}")
            prompts = []
            for row in rows:
                user, helper = draw.choice(grammar()["roles"])
                scenario = Scenario(draw.choice(held_out), user, helper, draw.choice(grammar()["goals"]), ())
                turn = write_turn(scenario, 0, given, wanted, row["caption"], "C", draw)
                parts = [(k, row["ids"] if k != "text" else v) for k, v in parse_marked(turn["user"])]
                prompts.append(prompt(vocabulary, [], parts))
            empty = unconditional_prompts(vocabulary, f"text_to_{wanted}", len(prompts), seed=seed)
            words = 0 if way == "direct" else 2 * settings["text"].longest  # before the block and behind it
            messages = answer(
                network, vocabulary, prompts, settings, _seeds(len(prompts), seed),
                start=wanted if way == "direct" else "text", unconditional=empty,
                longest=words + room_of(vocabulary, settings, wanted),
            )  # fmt: skip
            parsed = [vocabulary.parse(message) for message in messages]
            written = [next((v for k, v in parts if k == wanted), []) for parts in parsed]
            texts = [" ".join(v for k, v in parts if k == "text") for parts in parsed]
        tokenizer = open_tokenizer(by_ids[wanted])
        judged = fit_judge(by_media[wanted], "claims", seed).name([tokenizer.decode(i) if i else [] for i in written])
        right = np.array([a == row["caption"] for a, row in zip(judged, rows, strict=True)], float)
        outputs[f"{given}_to_{wanted}"] = right
        measures[f"{given}_to_{wanted}"] = float(right.mean())
        measures[f"written.{given}_to_{wanted}"] = sum(map(bool, written)) / len(written)
        said += [
            {"way": f"{given} to {wanted}", "given": row["caption"], "text": text, "ids": ids, "judged": name}
            for row, text, ids, name in zip(rows, texts, written, judged, strict=True)
        ]
    with new_artifact() as (folder, artifact):
        save_file(outputs, folder / OUTPUTS)
        write_jsonl(folder / SAID, said)
    return {"outputs": artifact, "measures": measures}


@cached_task(name="constant_outputs")
def constant_outputs(like: Artifact, value: float) -> Artifact:
    """Outputs that are `value` for every example of `like`: chance, or a bar to clear."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    with new_artifact() as (folder, artifact):
        found = load_file(open_artifact(like) / OUTPUTS)
        save_file({name: np.full(len(right), value) for name, right in found.items()}, folder / OUTPUTS)
    return artifact


@cached_task(name="rename_outputs")
def rename_outputs(outputs: Artifact, names: dict[str, str]) -> Artifact:
    """The same outputs under other names (old -> new); others are left out."""
    from safetensors.numpy import load_file, save_file

    with new_artifact() as (folder, artifact):
        found = load_file(open_artifact(outputs) / OUTPUTS)
        save_file({new: found[old] for old, new in names.items() if old in found}, folder / OUTPUTS)
    return artifact


@cached_task(name="make_previews")
def make_previews(pairs: Artifact, across: Artifact, tokenized: list[TokenizedArtifact], each: int) -> dict[str, Any]:
    """Files to look at and listen to: the first items of each direction into media, and of both ways across.

    Returns:
        `files`: artifact of PNG, WAV and ABC files (tunes also as WAV); `shown`: what each is.
    """
    from paperflows.components.data.media import write_wav
    from paperflows.components.multimodal.music import play

    tokenizers = {one["modality"]: open_tokenizer(one) for one in tokenized}
    wanted: list[tuple[str, str, str, list[int], str]] = []
    for row in read_rows(open_artifact(pairs) / SAID):
        if row["direction"].startswith("text_to_") and row["ids"]:
            wanted.append((row["direction"], modality_of(row["direction"]), row["caption"], row["ids"], row["judged"]))
    for row in read_rows(open_artifact(across) / SAID):
        if row["ids"]:
            kind = row["way"].rpartition(" ")[2]
            wanted.append((row["way"].replace(" ", "_"), kind, row["given"], row["ids"], row["judged"]))
    shown: list[dict[str, str]] = []
    with new_artifact() as (folder, artifact):
        for group in dict.fromkeys(item[0] for item in wanted):
            seen: dict[str, tuple[str, str, str, list[int], str]] = {}
            for item in wanted:
                if item[0] == group:
                    seen.setdefault(item[2], item)
            for number, (_, kind, asked, ids, judged) in enumerate(list(seen.values())[:each]):
                signal = tokenizers[kind].decode(ids)
                name = f"{group}_{number}"
                file = write_medium(folder, name, kind, signal, title=asked)
                if kind == "music":
                    write_wav(folder / f"{name}.wav", play(signal), 8_000)
                shown.append({"file": file, "way": group.replace("_", " "), "asked": asked, "judged": judged})
    return {"files": artifact, "shown": shown}


def to_text(
    network: Any, vocabulary: Any, direction: str, ids: list[list[int]], decoding: dict[str, Any], seed: int
) -> list[str]:
    """What the model says of each item."""
    from paperflows.components.multimodal.dialogue import pair_prompts
    from paperflows.components.multimodal.generation import answer

    prompts = pair_prompts(vocabulary, direction, [(modality_of(direction), one) for one in ids], seed=seed)
    texts: list[str] = []
    for at in range(0, len(prompts), 256):
        some = prompts[at : at + 256]
        said = answer(
            network, vocabulary, some, settings_of(decoding), _seeds(len(some), seed + at), only_text=True,
            longest=settings_of(decoding)["text"].longest,
        )  # fmt: skip
        texts += [" ".join(v for k, v in vocabulary.parse(one) if k == "text") for one in said]
    return texts


def to_media(
    network: Any, vocabulary: Any, direction: str, texts: list[str], decoding: dict[str, Any], seed: int
) -> list[list[int]]:
    """The tokenizer's ids that the model writes for each text; the modality's begin token is forced."""
    from paperflows.components.multimodal.dialogue import pair_prompts, unconditional_prompts
    from paperflows.components.multimodal.generation import answer, room_of

    kind = modality_of(direction)
    prompts = pair_prompts(vocabulary, direction, [("text", text) for text in texts], seed=seed)
    written: list[list[int]] = []
    settings = settings_of(decoding)
    for at in range(0, len(prompts), 256):
        some = prompts[at : at + 256]
        said = answer(
            network, vocabulary, some, settings, _seeds(len(some), seed + at), start=kind,
            unconditional=unconditional_prompts(vocabulary, direction, len(some), seed=seed),
            longest=room_of(vocabulary, settings, kind),
        )  # fmt: skip
        written += [next((v for k, v in vocabulary.parse(one) if k == kind), []) for one in said]
    return written


def settings_of(decoding: dict[str, Any]) -> dict[str, Any]:
    """Decoding settings by modality."""
    from paperflows.components.multimodal.generation import Setting

    return {name: Setting(**values) for name, values in decoding.items()}


def _seeds(count: int, seed: int) -> list[int]:
    return [seed * 1_000_003 + number for number in range(count)]
