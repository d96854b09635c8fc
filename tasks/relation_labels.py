"""Relation classification with few labels, on encoders that were trained before on the same sentences."""

from typing import Any

from paperflows.components.errors import InputError
from paperflows.tasks.data import DatasetArtifact, read_rows, read_split
from paperflows.tasks.knowledge import WEIGHTS
from paperflows.tasks.knowledge_baselines import WORDS, entity_vectors
from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import GOLD, OUTPUTS, Artifact, new_artifact, open_artifact
from paperflows.tasks.text_graph import open_world
from paperflows.tasks.training import ModelArtifact, fit

LABELLED, ASKED = "labelled.jsonl", "asked.jsonl"


@cached_task(name="join_sentences", task_run_name="join_sentences-{sentences[name]}")
def join_sentences(graph: DatasetArtifact, sentences: DatasetArtifact, limit: int, evaluated: int) -> DatasetArtifact:
    """A text graph whose training rows are its own and sentences with one labelled relation, as one fact each.

    A training sentence whose two entities are also asked about in test is in neither the graph nor the labels: no
    test fact is ever known. The graph's held-out facts stay held out. Every second sentence of a relation may be a row
    of the graph, the others are labelled examples, about other pairs of entities: no method reads a label as a fact
    because the example was a row of the graph. What the graph itself states of a labelled pair stays known, as
    Wikidata's training facts do in the paper.

    Args:
        sentences: relation classification.
        limit: training sentences that become rows of the graph, at most.
        evaluated: test sentences, the first ones.
    """
    from paperflows.components.data.jsonl import write_jsonl

    asked = [_text_row(row) for row in read_split(sentences, "test")]
    pairs = {frozenset((row["triple"][0], row["triple"][2])) for row in asked}
    held_out = {
        frozenset((row["triples"][i][0], row["triples"][i][2]))
        for split in ("validation", "test")
        for row in read_split(graph, split)
        for i in row.get("targets") or ()
    }
    labelled = [_text_row(row) for row in read_split(sentences, "train")]
    labelled = [row for row in labelled if frozenset((row["triple"][0], row["triple"][2])) not in pairs | held_out]
    if not labelled:
        raise InputError(f"dataset {sentences['name']!r}: every training sentence is about two entities of a test one")
    drawn, others, turn = list[Any](), list[Any](), dict[str, int]()
    for row in labelled:
        turn[row["label"]] = turn.get(row["label"], 0) + 1
        (drawn if turn[row["label"]] % 2 else others).append(row)
    facts = [row for row in others if _apart(*row["mentions"])][:limit]
    train = [
        *read_split(graph, "train"),
        *({"text": r["text"], "mentions": r["mentions"], "triples": [r["triple"]]} for r in facts),
    ]
    stated = {frozenset((row["triple"][0], row["triple"][2])) for row in facts}
    drawn = [row for row in drawn if frozenset((row["triple"][0], row["triple"][2])) not in stated]
    named = {str(row["id"]): row["name"] for row in read_split(graph, "entities")}
    for row in labelled:
        for entity, name in row["names"].items():
            named.setdefault(entity, name)
    rows = {
        "train": train, "test": read_split(graph, "test"),
        "entities": [{"id": entity, "name": name} for entity, name in sorted(named.items())],
    }  # fmt: skip
    with new_artifact() as (folder, artifact):
        for split, some in rows.items():
            write_jsonl(folder / f"{split}.jsonl", some)
        write_jsonl(folder / LABELLED, drawn)
        write_jsonl(folder / ASKED, asked[:evaluated])
    return DatasetArtifact(
        **artifact, name=f"{graph['name']}+{sentences['name']}", source=graph["source"], task=graph["task"],
        content=artifact["sha256"], rows={split: len(some) for split, some in rows.items()}, warnings=[],
    )  # fmt: skip


@cached_task(name="classify_relations", task_run_name="classify-{name}-{shots}-seed{seed}")
def classify_relations(
    name: str, model: ModelArtifact, graphs: bool, named: bool, data: DatasetArtifact, encoder: str, layers: int,
    vectors: Artifact | None, shots: int, tuning: dict[str, Any], seed: int, device: str,
) -> dict[str, Any]:  # fmt: skip
    """A trained encoder tuned on a few labelled sentences of each relation, and what it says of the test sentences.

    Encoders of graphs read the words and a node for each entity with full attention, no fact among them, and keep
    their entity rows; others read the words. All have the same fresh classifier over the first state and those of the
    two entities or mentions.

    Args:
        named: an entity that training never saw has the mean embedding of its name's pieces, else the mask's row, which
            is the same mark at every such mention.
        data: of `join_sentences`.
        vectors: a completion by an embedding of facts, whose vectors are injected at the mentions.
        shots: labelled sentences of each relation; 0 takes all.
        tuning: epochs, steps (at least), batch_size, learning_rate.

    Returns:
        `outputs`: artifact of the said labels; `gold`: of the true ones; `macro_f1`.
    """
    import numpy as np
    import torch
    import torch.nn.functional as F
    from safetensors.numpy import save_file
    from safetensors.torch import load_model

    from paperflows.components.evaluation.statistics import macro_f1
    from paperflows.components.knowledge.graphs import collate, label_graph
    from paperflows.components.knowledge.reader import GraphReader, RelationReader, read_pairs
    from paperflows.components.prompts.fewshot import few_shot
    from paperflows.components.training.batching import Batches

    world, t = open_world(data, encoder), tuning
    labelled, asked = read_rows(open_artifact(data) / LABELLED), read_rows(open_artifact(data) / ASKED)
    label = {name: number + 1 for number, name in enumerate(sorted({row["label"] for row in labelled}))}
    if unknown := {row["label"] for row in asked} - label.keys():
        raise InputError(f"dataset {data['name']!r}: relations {', '.join(sorted(unknown))} have no training sentence")
    chosen: Any = few_shot(labelled, train=shots, dev=0, seed=seed)[0] if shots else labelled
    net: Any
    names: Any = world.names
    if graphs:
        knowledge = world.model(layers, 0.0, 0)
        load_model(knowledge, str(open_artifact(model) / WEIGHTS))
        if named:
            names = world.name_unseen(knowledge, [m["entity"] for row in (*labelled, *asked) for m in row["mentions"]])
        knowledge.entities.learning_rate = 0.0
        torch.manual_seed(seed)
        net = GraphReader(knowledge, len(label) + 1)
    else:
        lm = world.body(layers)
        load_model(lm, str(open_artifact(model) / WORDS))
        torch.manual_seed(seed)
        net = RelationReader(lm, len(label) + 1, entity_vectors(vectors))

    def inputs(rows: Any) -> dict[str, Any]:
        if not graphs:
            return {"pairs": read_pairs([(r, tuple(r["triple"])) for r in rows], world.tokenizer, world.names.entities)}
        made = [label_graph(r["text"], r["mentions"], names, world.tokenizer) for r in rows]
        return {"graphs": collate([graph for graph, _ in made], full=True), "nodes": [nodes for _, nodes in made]}

    def score(net: Any, batch: Any) -> Any:
        return net(batch["graphs"], torch.tensor(batch["nodes"])) if graphs else net(batch["pairs"])

    batches = Batches(batch_size=t["batch_size"], seed=seed, n=len(chosen))
    steps = max(t["steps"], t["epochs"] * batches.per_epoch)

    def batch_at(step: int) -> dict[str, Any]:
        rows = [chosen[i] for i in batches.at(step)]
        return {**inputs(rows), "gold": torch.tensor([label[r["label"]] for r in rows]), "ids": [step]}

    fit(
        f"{name}-{shots}-seed{seed}", {"method": name, "shots": shots, "seed": seed, **t}, net, batch_at,
        lambda m, b: F.cross_entropy(score(m, b), b["gold"]), steps, t["learning_rate"], seed, device,
        rates={"head": 3.0},
    )  # fmt: skip
    net.eval()
    place, said = next(net.parameters()).device, []
    with torch.inference_mode():
        for at in range(0, len(asked), 64):
            batch = inputs(asked[at : at + 64])
            batch |= {"pairs": {k: v.to(place) for k, v in batch["pairs"].items()}} if not graphs else {}
            said += score(net, batch).argmax(-1).tolist()
    gold, found = np.array([label[row["label"]] for row in asked], dtype=float), np.array(said, dtype=float)
    kept = {}
    for what, file, values in (("outputs", OUTPUTS, found), ("gold", GOLD, gold)):
        with new_artifact() as (folder, artifact):
            save_file({"labels": values}, folder / file)
        kept[what] = artifact
    return {**kept, "macro_f1": float(macro_f1(gold, found)), "labels": len(chosen)}


def _text_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row of relation classification as text, mentions of head and tail, and the triple that its label states."""
    starts, text = [], ""
    for token in row["tokens"]:
        text += " " if text else ""
        starts.append(len(text))
        text += token
    mentions = []
    for end in ("head", "tail"):
        first, last = min(row[end]["mention"]), max(row[end]["mention"])
        mentions.append(
            {"start": starts[first], "end": starts[last] + len(row["tokens"][last]), "entity": row[end]["entity"]}
        )
    return {
        "text": text, "mentions": mentions, "label": str(row["label"]),
        "triple": [row["head"]["entity"], str(row["label"]), row["tail"]["entity"]],
        "names": {row[end]["entity"]: row[end]["name"] for end in ("head", "tail")},
    }  # fmt: skip


def _apart(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(one["end"] <= other["start"] or other["end"] <= one["start"]) and one["entity"] != other["entity"]
