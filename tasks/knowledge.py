"""Train encoders of words and knowledge together, and rank relations that they have not seen stated."""

from random import Random
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from paperflows.tasks.data import DatasetArtifact
from paperflows.tasks.policy import cached_task
from paperflows.tasks.progress import progress
from paperflows.tasks.store import OUTPUTS, new_artifact, open_artifact
from paperflows.tasks.text_graph import ENDS, Completion, open_world
from paperflows.tasks.training import ModelArtifact, fit

WEIGHTS = "encoder.safetensors"


class Knowledge(BaseModel):
    """What an encoder sees of the graph."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    graph: bool = Field(True, description="Attention along the graph's edges; else every node sees every node")
    share: float = Field(0.5, ge=0, le=1, description="How often an entity brings its facts in training")


@cached_task(name="train_knowledge", task_run_name="{name}-seed{seed}")
def train_knowledge(
    name: str, knowledge: Knowledge, data: DatasetArtifact, encoder: str, layers: int, training: dict[str, Any],
    seed: int, device: str,
) -> ModelArtifact:  # fmt: skip
    """Words, entities and relations masked and predicted together on the graphs of the training texts.

    Args:
        training: steps, batch_size, learning_rate, entity_rate, negatives.
    """
    import torch
    from safetensors.torch import save_model

    from paperflows.components.knowledge.graphs import build_graph, collate
    from paperflows.components.knowledge.masking import mask_graphs
    from paperflows.components.training.batching import Batches
    from paperflows.components.training.loop import WARMUP, linear_warmup

    world = open_world(data, encoder)
    model, t = world.model(layers, training["entity_rate"], seed), training
    batches = Batches(batch_size=t["batch_size"], seed=seed, lengths=world.sizes(knowledge.share))
    special = torch.tensor(world.tokenizer.all_special_ids)

    def batch_at(step: int) -> dict[str, Any]:
        rows, rng = batches.at(step), Random(f"{seed} {step}")
        graphs = [
            build_graph(
                world.rows[i]["text"], world.rows[i]["mentions"], world.neighbours, world.names, world.tokenizer,
                share=knowledge.share, rng=rng,
            )
            for i in rows
        ]  # fmt: skip
        batch = collate(graphs, full=not knowledge.graph)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        masked = mask_graphs(
            batch, mask_word=world.tokenizer.mask_token_id, special=special, words=len(world.tokenizer),
            entities=len(world.names.entities) + 1, relations=len(world.names.relations) + 1, generator=generator,
        )  # fmt: skip
        negatives = 1 + torch.multinomial(world.popularity, t["negatives"], replacement=True, generator=generator)
        return {"graphs": batch, "index": masked.index, "target": masked.target, "negatives": negatives, "ids": [step]}

    def loss_fn(net: Any, batch: Any) -> Any:
        factor = linear_warmup(batch["ids"][0], steps=t["steps"], warmup=int(WARMUP * t["steps"]))
        net.entities.learning_rate = t["entity_rate"] * factor
        return net.loss(batch["graphs"], batch["index"], batch["target"], batch["negatives"])

    done = fit(
        f"{name}-seed{seed}", {"method": name, "seed": seed, **t}, model, batch_at, loss_fn, t["steps"],
        t["learning_rate"], seed, device,
    )  # fmt: skip
    with new_artifact() as (folder, artifact):
        save_model(model.cpu(), str(folder / WEIGHTS))
    return ModelArtifact(**artifact, name=name, score=None, history=done.history)


@cached_task(name="complete_relations", task_run_name="complete-{model[name]}-{neighbours}-{named}")
def complete_relations(
    model: ModelArtifact, knowledge: Knowledge, data: DatasetArtifact, encoder: str, layers: int, neighbours: bool,
    named: bool, texts: int, device: str,
) -> Completion:  # fmt: skip
    """Rank the relation of each held-out fact between its two entities in the texts that state it.

    A masked relation node stands between the two anchors, whose words have given way to them.

    Args:
        neighbours: whether the entities bring their training facts (never one between the same two entities).
        named: an entity that training never saw has the mean embedding of its name's pieces, so that its name is read
            as it is by those who read words; else the mask's row, as in the paper.
        texts: of each fact, at most.
    """
    import torch
    from safetensors.torch import load_model

    from paperflows.components.knowledge.graphs import ask_relation, build_graph, collate
    from paperflows.components.training.device import accelerator

    world = open_world(data, encoder)
    net = world.model(layers, 0.0, 0)
    load_model(net, str(open_artifact(model) / WEIGHTS))
    questions, graphs, nodes, names = world.questions(texts), [], [], world.names
    if named:
        names = world.name_unseen(net, [m["entity"] for row, _, _ in questions for m in row["mentions"]])
    net.to(accelerator(device).device).eval()
    for row, triple, _ in questions:
        graph = build_graph(
            row["text"], row["mentions"], world.neighbours, names, world.tokenizer, share=float(neighbours),
            hidden=[triple], rng=Random(0),
        )  # fmt: skip
        node = ask_relation(graph, triple[0], triple[2])
        assert node is not None
        graphs.append(graph)
        nodes.append(node)
    scores = torch.empty(len(graphs), len(world.names.relations) + 1)
    order = sorted(range(len(graphs)), key=lambda i: len(graphs[i]))
    with progress(f"complete with {model['name']}") as report, torch.inference_mode():
        for at in range(0, len(order), 32):
            some = order[at : at + 32]
            hidden = net.encode(collate([graphs[i] for i in some], full=not knowledge.graph))
            picked = hidden[torch.arange(len(some)), torch.tensor([nodes[i] for i in some])]
            scores[some] = net.relation_scores(picked).float().cpu()
            report(at + len(some), len(order))
    return world.completion(questions, scores.numpy(), [])


@cached_task(name="complete_ends", task_run_name="complete_ends-{model[name]}-{text}-{neighbours}")
def complete_ends(
    model: ModelArtifact, data: DatasetArtifact, encoder: str, layers: int, text: bool, neighbours: bool, texts: int,
    device: str,
) -> Completion:  # fmt: skip
    """Rank the head and the tail of each held-out fact among all entities, the other end and the relation given.

    The end that is asked for is a masked node; no word names it. An entity that training never saw has the mean
    embedding of its name's pieces, as a candidate and where it is mentioned.

    Args:
        text: whether the texts that state the fact are read; else only the fact itself.
        neighbours: whether the other entities bring their training facts.
        texts: of each fact, at most.
    """
    import torch
    from safetensors.torch import load_model

    from paperflows.components.knowledge.graphs import build_graph, collate, state_fact
    from paperflows.components.training.device import accelerator

    world = open_world(data, encoder)
    net = world.model(layers, 0.0, 0)
    load_model(net, str(open_artifact(model) / WEIGHTS))
    questions = world.questions(texts)
    names = world.name_unseen(net, world.unseen(questions))
    place = accelerator(device).device
    candidates = net.entities.rows.to(place)
    names = world.name_unseen(net, [m["entity"] for row, _, _ in questions for m in row["mentions"]], names)
    net.to(place).eval()
    scores = {end: torch.empty(len(questions), len(candidates)) for end in ENDS}
    asked = []
    for number, (row, triple, _) in enumerate(questions):
        for side, end in enumerate(ENDS):
            masked, given = triple[2 * side], triple[2 - 2 * side]
            words, mentions = given, [{"start": 0, "end": len(given), "entity": given}]
            if text:
                words, mentions = row["text"], world.mentions_with_names(row, masked)
            graph = build_graph(
                words, mentions, world.neighbours, names, world.tokenizer, share=float(neighbours), hidden=[triple],
                masked=masked, rng=Random(0),
            )  # fmt: skip
            asked.append((number, end, graph, state_fact(graph, triple, names)[side]))
    asked.sort(key=lambda one: len(one[2]))
    with progress(f"ends with {model['name']}") as report, torch.inference_mode():
        for at in range(0, len(asked), 32):
            some = asked[at : at + 32]
            hidden = net.encode(collate([graph for _, _, graph, _ in some]))
            picked = hidden[torch.arange(len(some)), torch.tensor([node for *_, node in some])]
            found = (net.to_entity(picked) @ candidates.t()).float().cpu()
            for (number, end, _, _), row_scores in zip(some, found, strict=True):
                scores[end][number] = row_scores
            report(at + len(some), len(asked))
    for end in ENDS:
        scores[end][:, 0] = -torch.inf
    return world.end_completion(questions, {end: s.numpy() for end, s in scores.items()})


@cached_task(name="time_graphs")
def time_graphs(
    model: ModelArtifact, knowledge: Knowledge, data: DatasetArtifact, encoder: str, layers: int,
    training: dict[str, Any], repeats: int, device: str,
) -> dict[str, Any]:  # fmt: skip
    """Seconds of a training step on graphs and on plain texts of as many tokens, in turns.

    Returns:
        `graphs` and `words`: artifact of the seconds of each repeat.
    """
    import time

    import numpy as np
    import torch
    from safetensors.numpy import save_file

    from paperflows.components.knowledge.graphs import build_graph, collate
    from paperflows.components.knowledge.masking import mask_graphs
    from paperflows.components.models.tiny_bert import masked_lm_loss
    from paperflows.components.training.device import accelerator

    world, place = open_world(data, encoder), accelerator(device).device
    net = world.model(layers, training["entity_rate"], 0).to(place).train()
    plain = world.body(layers).to(place).train()
    special, rng = torch.tensor(world.tokenizer.all_special_ids), Random(0)
    seconds: dict[str, list[float]] = {"graphs": [], "words": []}

    def clock() -> float:
        if place.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    for turn in range(repeats + 1):
        rows = rng.sample(world.rows, min(training["batch_size"], len(world.rows)))
        began = clock()
        graphs = [
            build_graph(
                row["text"], row["mentions"], world.neighbours, world.names, world.tokenizer, share=knowledge.share,
                rng=rng,
            )
            for row in rows
        ]  # fmt: skip
        batch = collate(graphs)
        generator = torch.Generator().manual_seed(turn)
        masked = mask_graphs(
            batch, mask_word=world.tokenizer.mask_token_id, special=special, words=len(world.tokenizer),
            entities=len(world.names.entities) + 1, relations=len(world.names.relations) + 1, generator=generator,
        )  # fmt: skip
        negatives = 1 + torch.multinomial(world.popularity, training["negatives"], replacement=True)
        net.loss(batch, masked.index, masked.target, negatives).backward()
        middle = clock()
        ids = torch.randint(1000, len(world.tokenizer), batch.index.shape, generator=generator).to(place)
        labels = torch.where(torch.rand(ids.shape, generator=generator).to(place) < 0.15, ids, -100)
        masked_lm_loss(plain, ids, batch.real.long().to(place), labels).backward()
        end = clock()
        net.zero_grad()
        plain.zero_grad()
        if turn:  # the first is warm-up
            seconds["graphs"].append(middle - began)
            seconds["words"].append(end - middle)
    found = {}
    for what, values in seconds.items():
        with new_artifact() as (folder, artifact):
            save_file({"seconds": np.array(values)}, folder / OUTPUTS)
        found[what] = artifact
    return found
