"""Aspect sentiment: data as words, the fine-tuned encoder, and classifiers that read trees."""

from typing import Any

from paperflows.components.errors import InputError
from paperflows.tasks.data import DatasetArtifact, read_rows, read_split
from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import GOLD, GROUPS, OUTPUTS, Artifact, new_artifact, open_artifact
from paperflows.tasks.training import ModelArtifact, fit

SPLITS = ("train", "validation", "test")


class AspectsArtifact(Artifact):
    """Aspects (`aspects.jsonl`), those that trees are made for marked by the number of their sentence in
    `sentences.jsonl`; `gold.safetensors` holds the labels of the marked test aspects, `groups.safetensors` their
    sentences.
    """

    name: str
    labels: list[str]
    counts: dict[str, int]


@cached_task(name="collect_aspects", task_run_name="collect_aspects-{dataset[name]}")
def collect_aspects(dataset: DatasetArtifact, max_words: int, sentences: dict[str, int]) -> AspectsArtifact:
    """Aspects as words, a sentence's aspects all in one split, and the sentences that get trees.

    Args:
        max_words: longer sentences are left out and counted.
        sentences: how many sentences of each split get trees, the first ones.

    Raises:
        InputError: a split has no aspect left, or one with a label that no training aspect has.
    """
    import numpy as np
    from safetensors.numpy import save_file

    from paperflows.components.data.jsonl import write_jsonl
    from paperflows.components.syntax.words import aspect_of

    counts = dict.fromkeys(("left_out.long", "left_out.shared", "left_out.no_word"), 0)
    rows: list[dict[str, Any]] = []
    numbers: dict[tuple[str, ...], int] = {}
    seen: set[str] = set()
    for split in reversed(SPLITS):
        here: set[str] = set()
        for row in read_split(dataset, split):
            aspect = aspect_of(row)
            if aspect is None or len(aspect.words) > max_words or aspect.sentence in seen:
                which = "no_word" if aspect is None else "shared" if aspect.sentence in seen else "long"
                counts[f"left_out.{which}"] += 1
                continue
            here.add(aspect.sentence)
            marked = aspect.words in numbers or len(here) <= sentences[split]
            number = numbers.setdefault(aspect.words, len(numbers)) if marked else None
            inside = np.flatnonzero(aspect.inside).tolist()
            rows.append(
                {"split": split, "words": aspect.words, "inside": inside, "label": aspect.label, "sentence": number}
            )
            counts[split] = counts.get(split, 0) + 1
            counts[f"{split}.with_trees"] = counts.get(f"{split}.with_trees", 0) + marked
        seen |= here
    for split in SPLITS:
        if not counts.get(split):
            left = ", ".join(
                f"{n} {name.partition('.')[2]}" for name, n in counts.items() if name.startswith("left_out")
            )
            raise InputError(
                f"dataset {dataset['name']!r}: no aspect of {split} stands in a sentence of at most {max_words} words "
                f"(left out of all splits: {left})"
            )
    labels = sorted({row["label"] for row in rows if row["split"] == "train"})
    if unknown := [(row["label"], row["split"]) for row in rows if row["label"] not in labels]:
        raise InputError(
            f"dataset {dataset['name']!r}: label {unknown[0][0]!r} of a {unknown[0][1]} aspect is not among those of "
            f"the training aspects in sentences of at most {max_words} words: {', '.join(labels)}"
        )
    tested = [r for r in rows if r["split"] == "test" and r["sentence"] is not None]
    with new_artifact() as (folder, artifact):
        write_jsonl(folder / "aspects.jsonl", rows)
        write_jsonl(folder / "sentences.jsonl", [{"words": list(words)} for words in numbers])
        gold = np.array([labels.index(r["label"]) for r in tested], dtype=np.float64)
        save_file({dataset["name"]: gold}, folder / GOLD)
        save_file({dataset["name"]: np.array([r["sentence"] for r in tested])}, folder / GROUPS)
    return AspectsArtifact(**artifact, name=dataset["name"], labels=labels, counts=counts)


class AspectModel(ModelArtifact):
    """A fine-tuned encoder in the form of transformers, and what its own MLP says of the test aspects with trees."""

    test: dict[str, float]


@cached_task(name="finetune_aspect_encoder", task_run_name="finetune-{aspects[name]}")
def finetune_aspect_encoder(
    aspects: AspectsArtifact,
    model: str,
    steps: int,
    batch_size: int,
    learning_rate: float,
    evaluations: int,
    seed: int,
    device: str,
) -> AspectModel:
    """The pure encoder with an MLP, end to end on all training aspects; validation macro-F1 picks the weights."""
    import numpy as np
    import torch
    import torch.nn.functional as F
    from safetensors.numpy import load_file

    from paperflows.components.evaluation.statistics import macro_f1
    from paperflows.components.syntax.aspect_encoder import AspectEncoder, aspect_batches, load_aspect_encoder
    from paperflows.components.training.batching import Batches

    rows = read_rows(open_artifact(aspects) / "aspects.jsonl")
    train, held_out = ([r for r in rows if r["split"] == split] for split in ("train", "validation"))
    base = load_aspect_encoder(model)
    torch.manual_seed(seed)
    encoder = AspectEncoder(base, classes=len(aspects["labels"]))
    inputs, checks = encoder.inputs(train), encoder.inputs(held_out)
    gold = torch.tensor([aspects["labels"].index(r["label"]) for r in train])
    wanted = np.array([aspects["labels"].index(r["label"]) for r in held_out], dtype=np.float64)
    batches = Batches(batch_size=batch_size, seed=seed, lengths=inputs.lengths)

    def batch_at(step: int) -> dict[str, Any]:
        chosen = batches.at(step)
        return {**inputs.pad(chosen), "gold": gold[chosen], "ids": chosen.tolist()}

    def loss_fn(trained: Any, batch: Any) -> Any:
        return F.cross_entropy(trained(batch["tokens"], batch["mask"], batch["aspect"]), batch["gold"])

    def classes_of(trained: Any, asked: Any) -> Any:
        guesses = np.zeros(len(asked.lengths))
        for chosen in aspect_batches(asked):
            batch = {k: v.to(next(trained.parameters()).device) for k, v in asked.pad(chosen).items()}
            guesses[chosen] = trained(batch["tokens"], batch["mask"], batch["aspect"]).argmax(-1).cpu().numpy()
        return guesses

    def evaluate(trained: Any) -> float:
        return float(macro_f1(wanted, classes_of(trained, checks)))

    settings = {"model": model, "steps": steps, "learning_rate": learning_rate, "seed": seed}
    name = f"finetune-{aspects['name']}"
    done = fit(
        name, settings, encoder, batch_at, loss_fn, steps, learning_rate, seed, device,
        evaluate=evaluate, evaluate_every=max(1, steps // evaluations),
    )  # fmt: skip
    asked = encoder.inputs([r for r in rows if r["split"] == "test" and r["sentence"] is not None])
    with torch.inference_mode():
        classes = classes_of(encoder.eval(), asked)
    right = load_file(open_artifact(aspects) / GOLD)[aspects["name"]]
    with new_artifact() as (folder, artifact):
        encoder.cpu().save(folder)
    test = {"f1": float(macro_f1(right, classes)), "accuracy": float((right == classes).mean())}
    return AspectModel(**artifact, name=name, score=done.best_score, history=done.history, test=test)


class TreeMeasures(Artifact):
    """Closeness (minus ASD) of every test aspect that has a sentiment word with its sentence, and means over them.

    `asd_ratio` is ASD over the distance to the other words of the same sentences.
    """

    asd: float
    asd_ratio: float
    neighbours: float
    count: int


@cached_task(name="measure_trees", task_run_name="measure_trees-{label}")
def measure_trees(aspects: AspectsArtifact, trees: Artifact, label: str) -> TreeMeasures:
    """Aspects-sentiment distance over the test aspects, and how chain-like the trees are."""
    import numpy as np
    from safetensors.numpy import save_file

    from paperflows.components.syntax.trees import distances, neighbour_share
    from paperflows.components.syntax.words import sentiment_words

    lexicon, others = sentiment_words(), []
    found = [np.array(row["heads"]) for row in read_rows(open_artifact(trees) / "trees.jsonl")]
    asd, neighbours, sentences = [], [], []
    for row in read_rows(open_artifact(aspects) / "aspects.jsonl"):
        if row["split"] != "test" or row["sentence"] is None:
            continue
        heads = found[row["sentence"]]
        neighbours.append(neighbour_share(heads))
        words = [i for i, word in enumerate(row["words"]) if word.lower() in lexicon and i not in row["inside"]]
        rest = [i for i in range(len(row["words"])) if i not in row["inside"] and i not in words]
        if words:
            apart = distances(heads)[row["inside"]]
            asd.append(float(apart[:, words].mean()))
            sentences.append(row["sentence"])
            others += [float(apart[:, rest].mean())] if rest else []
    if not asd:
        raise InputError(f"dataset {aspects['name']!r}: no test sentence has a word of the sentiment lexicon")
    with new_artifact() as (folder, artifact):
        save_file({aspects["name"]: -np.array(asd)}, folder / OUTPUTS)
        save_file({aspects["name"]: np.array(sentences)}, folder / GROUPS)
    return TreeMeasures(
        **artifact, asd=float(np.mean(asd)), asd_ratio=float(np.mean(asd) / np.mean(others)),
        neighbours=float(np.mean(neighbours)), count=len(asd),
    )  # fmt: skip


@cached_task(name="encode_aspects", task_run_name="encode_aspects-{aspects[name]}")
def encode_aspects(aspects: AspectsArtifact, encoder: Artifact, device: str) -> Artifact:
    """The frozen last states of the words of every aspect that has a tree, by split (`states.safetensors`)."""
    from paperflows.components.syntax.aspect_encoder import aspect_states, load_aspect_encoder

    loaded = load_aspect_encoder(str(open_artifact(encoder)), device=device)
    return _store_states(aspects, lambda rows: aspect_states(loaded, rows))


@cached_task(name="embed_aspects", task_run_name="embed_aspects-{aspects[name]}")
def embed_aspects(aspects: AspectsArtifact, model: str, device: str) -> Artifact:
    """Instead of states the encoder's input embeddings, which know neither the sentence nor the task."""
    from paperflows.components.syntax.aspect_encoder import load_aspect_encoder, word_embeddings

    loaded = load_aspect_encoder(model, device=device)
    return _store_states(aspects, lambda rows: word_embeddings(loaded, [r["words"] for r in rows]))


def _store_states(aspects: AspectsArtifact, states_of: Any) -> Artifact:
    import torch
    from safetensors.torch import save_file

    rows = [r for r in read_rows(open_artifact(aspects) / "aspects.jsonl") if r["sentence"] is not None]
    tensors: dict[str, Any] = {}
    for split in SPLITS:
        table = states_of([r for r in rows if r["split"] == split])
        tensors |= {f"{split}.states": table.flat[:-1].contiguous(), f"{split}.lengths": torch.tensor(table.lengths)}
    with new_artifact() as (folder, artifact):
        save_file(tensors, folder / "states.safetensors")
    return artifact


def _read_states(states: Artifact, split: str) -> Any:
    from safetensors.torch import load_file

    from paperflows.components.syntax.aspect_encoder import WordTable

    tensors = load_file(open_artifact(states) / "states.safetensors")
    return WordTable(tensors[f"{split}.states"], tensors[f"{split}.lengths"].numpy())


@cached_task(name="train_aspect_models", task_run_name="train-{model}-{label}")
def train_aspect_models(
    aspects: AspectsArtifact,
    states: Artifact,
    trees: Artifact,
    model: str,
    label: str,
    hidden: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    evaluations: int,
    recurrent: bool,
    seeds: list[int],
    device: str,
) -> list[dict[str, Any]]:
    """One kind of classifier on one kind of tree and one kind of frozen states, once a seed.

    Args:
        states: of `embed_aspects`, to be read by a BiLSTM (`recurrent`), or of `encode_aspects`.

    Returns:
        An artifact a seed with the classes of the test aspects, and its macro-F1 and accuracy.
    """
    import numpy as np
    from safetensors.numpy import load_file, save_file

    from paperflows.components.evaluation.statistics import macro_f1
    from paperflows.components.syntax.aspect_training import AspectData, predict_classes, train_classifier

    folder = open_artifact(aspects)
    rows = [r for r in read_rows(folder / "aspects.jsonl") if r["sentence"] is not None]
    heads = [np.array(row["heads"]) for row in read_rows(open_artifact(trees) / "trees.jsonl")]
    data = {
        split: AspectData(
            [r for r in rows if r["split"] == split],
            heads,
            _read_states(states, split),
            aspects["labels"],
        )
        for split in SPLITS
    }
    gold = load_file(folder / GOLD)[aspects["name"]]
    results = []
    for seed in seeds:
        trained = train_classifier(
            model, data["train"], data["validation"], hidden=hidden, steps=steps, batch_size=batch_size,
            learning_rate=learning_rate, evaluations=evaluations, recurrent=recurrent, seed=seed, device=device,
        )  # fmt: skip
        classes = predict_classes(trained, data["test"])
        with new_artifact() as (out, artifact):
            save_file({aspects["name"]: classes}, out / OUTPUTS)
        scores = {"f1": float(macro_f1(gold, classes)), "accuracy": float((gold == classes).mean())}
        results.append({**artifact, **scores})
    return results


@cached_task(name="merge_datasets")
def merge_datasets(artifacts: list[Artifact], file: str = OUTPUTS) -> Artifact:
    """The outputs of several datasets as those of one system."""
    from safetensors.numpy import load_file, save_file

    merged: dict[str, Any] = {}
    for artifact in artifacts:
        merged |= load_file(open_artifact(artifact) / file)
    with new_artifact() as (folder, out):
        save_file(merged, folder / file)
    return out
