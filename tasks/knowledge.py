"""Train encoders of words and knowledge together, and rank relations that they have not seen stated."""

from random import Random
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from paperflows.components.errors import InputError
from paperflows.tasks.claims import OUTPUTS
from paperflows.tasks.data import DatasetArtifact, read_split
from paperflows.tasks.policy import cached_task
from paperflows.tasks.progress import progress
from paperflows.tasks.store import Artifact, new_artifact, open_artifact
from paperflows.tasks.training import ModelArtifact, fit

WEIGHTS = "encoder.safetensors"
SETTINGS = ("transductive", "inductive")


class Knowledge(BaseModel):
    """What an encoder sees of the graph."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    graph: bool = Field(True, description="Attention along the graph's edges; else every node sees every node")
    share: float = Field(0.5, ge=0, le=1, description="How often an entity brings its facts in training")


class Completion(Artifact):
    """Mean reciprocal rank of each held-out fact over the texts that state it, by setting; their means."""

    mrr: dict[str, float]
    hits: dict[str, float]
    history: list[dict[str, float]]


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

    world = _World(data, encoder)
    model, t = world.model(layers, training["entity_rate"], seed), training
    batches = Batches(batch_size=t["batch_size"], seed=seed, n=len(world.rows))
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

    done = fit(
        f"{name}-seed{seed}", {"method": name, "seed": seed, **t}, model, batch_at,
        lambda m, b: m.loss(b["graphs"], b["index"], b["target"], b["negatives"]), t["steps"], t["learning_rate"],
        seed, device,
    )  # fmt: skip
    with new_artifact() as (folder, artifact):
        save_model(model.cpu(), str(folder / WEIGHTS))
    return ModelArtifact(**artifact, name=name, score=None, history=done.history)


@cached_task(name="complete_relations", task_run_name="complete-{model[name]}-{neighbours}")
def complete_relations(
    model: ModelArtifact, knowledge: Knowledge, data: DatasetArtifact, encoder: str, layers: int, neighbours: bool,
    texts: int, device: str,
) -> Completion:  # fmt: skip
    """Rank the relation of each held-out fact between its two entities in the texts that state it.

    A masked relation node stands between the two anchors; an entity that training never saw is the mask's row.

    Args:
        neighbours: whether the entities bring their training facts (never one between the same two entities).
        texts: of each fact, at most.
    """
    import torch
    from safetensors.torch import load_model

    from paperflows.components.knowledge.graphs import ask_relation, build_graph, collate
    from paperflows.components.training.device import accelerator

    world = _World(data, encoder)
    net = world.model(layers, 0.0, 0)
    load_model(net, str(open_artifact(model) / WEIGHTS))
    net.to(accelerator(device).device).eval()
    questions, graphs, nodes = world.questions(texts), [], []
    for row, triple, _ in questions:
        graph = build_graph(
            row["text"], row["mentions"], world.neighbours, world.names, world.tokenizer,
            share=float(neighbours), hidden=[triple], rng=Random(0),
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


@cached_task(name="train_relation_reader", task_run_name="relation_reader-seed{seed}")
def train_relation_reader(
    data: DatasetArtifact, encoder: str, layers: int, training: dict[str, Any], texts: int, seed: int, device: str
) -> Completion:
    """The text-only reference: the same encoder reads the words of both mentions and classifies their relation.

    Trained for the same steps on the training facts that the training texts state.
    """
    import torch
    import torch.nn.functional as F

    from paperflows.components.knowledge.reader import RelationReader, read_pairs
    from paperflows.components.training.batching import Batches

    world, t = _World(data, encoder), training
    stated = [
        (row, triple)
        for row in world.rows
        for triple in world.triples_of(row)
        if {triple[0], triple[2]} <= {str(m["entity"]) for m in row["mentions"]}
    ]
    torch.manual_seed(seed)
    net = RelationReader(world.body(layers), len(world.names.relations) + 1)
    batches = Batches(batch_size=t["batch_size"], seed=seed, n=len(stated))

    def batch_at(step: int) -> dict[str, Any]:
        some = [stated[i] for i in batches.at(step)]
        gold = torch.tensor([world.names.relations[triple[1]] for _, triple in some])
        return {**read_pairs(some, world.tokenizer), "gold": gold, "ids": [step]}

    done = fit(
        f"reader-seed{seed}", {"seed": seed, **t}, net, batch_at,
        lambda m, b: F.cross_entropy(m(b["tokens"], b["mask"], b["head"], b["tail"]), b["gold"]), t["steps"],
        t["learning_rate"], seed, device,
    )  # fmt: skip
    net.eval()
    place = next(net.parameters()).device
    questions, scores = world.questions(texts), []
    with torch.inference_mode():
        for at in range(0, len(questions), 64):
            some = [(row, triple) for row, triple, _ in questions[at : at + 64]]
            batch = {k: v.to(place) for k, v in read_pairs(some, world.tokenizer).items()}
            scores.append(net(batch["tokens"], batch["mask"], batch["head"], batch["tail"]).float().cpu())
    return world.completion(questions, torch.cat(scores).numpy(), done.history)


@cached_task(name="train_triple_model", task_run_name="{kind}-names-{by_name}-seed{seed}")
def train_triple_model(
    data: DatasetArtifact, encoder: str, kind: str, by_name: bool, settings: dict[str, Any], texts: int, seed: int,
    device: str,
) -> Completion:  # fmt: skip
    """Embeddings of the training facts alone; entities as rows, or (DKRL's idea) as maps of their names' embeddings.

    Args:
        settings: width, steps, batch_size, learning_rate, margin, negatives.
    """
    import torch

    from paperflows.components.knowledge.triple_models import TripleModel, corrupt, ranking_loss
    from paperflows.components.models.encoder import load_encoder

    world, s = _World(data, encoder), settings
    ends = sorted({end for _, (h, _, t), _ in world.questions(texts) for end in (h, t)} - world.names.entities.keys())
    number = {**world.names.entities, **{end: len(world.names.entities) + 1 + i for i, end in enumerate(ends)}}
    size, relations = len(number) + 1, len(world.names.relations) + 1
    names = None
    if by_name:
        said = [""] * size
        for entity, i in number.items():
            said[i] = world.title(entity)
        names = load_encoder(encoder, device=device).embed(said)
    torch.manual_seed(seed)
    net = TripleModel(kind, entities=size, relations=relations, width=s["width"], names=names)
    known = torch.tensor([[number[h], world.names.relations[r], number[t]] for h, r, t in world.triples])

    def batch_at(step: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        rows = known[torch.randint(len(known), (s["batch_size"],), generator=generator)]
        bad = corrupt(
            rows, s["negatives"], entities=len(world.names.entities) + 1, relations=relations, generator=generator
        )
        return {"good": rows, "bad": bad, "ids": [step]}

    margin = s["margin"] if kind in ("transe", "rotate") else 0.0
    done = fit(
        f"{kind}-seed{seed}", {"seed": seed, "kind": kind, **s}, net, batch_at,
        lambda m, b: ranking_loss(m, b["good"], b["bad"], margin=margin), s["steps"], s["learning_rate"], seed, device,
    )  # fmt: skip
    net.cpu().eval()
    questions = world.questions(texts)
    with torch.inference_mode():
        head = torch.tensor([number[t[0]] for _, t, _ in questions])[:, None]
        tail = torch.tensor([number[t[2]] for _, t, _ in questions])[:, None]
        scores = net(head, torch.arange(relations)[None], tail)
        if not by_name:  # entities without a row say nothing
            unseen = (head > len(world.names.entities)) | (tail > len(world.names.entities))
            scores = torch.where(unseen, 0.0, scores)
        scores[:, 0] = -torch.inf
    return world.completion(questions, scores.numpy(), done.history)


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

    world, place = _World(data, encoder), accelerator(device).device
    net = world.model(layers, training["entity_rate"], 0).to(place).train()
    plain = world.body(layers).to(place).train()
    special, rng = torch.tensor(world.tokenizer.all_special_ids), Random(0)
    seconds: dict[str, list[float]] = {"graphs": [], "words": []}
    for turn in range(repeats + 1):
        rows = rng.sample(world.rows, min(training["batch_size"], len(world.rows)))
        began = time.perf_counter()
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
        middle = time.perf_counter()
        ids = torch.randint(1000, len(world.tokenizer), batch.index.shape, generator=generator).to(place)
        labels = torch.where(torch.rand(ids.shape, generator=generator).to(place) < 0.15, ids, -100)
        masked_lm_loss(plain, ids, batch.real.long().to(place), labels).backward()
        end = time.perf_counter()
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


class _World:
    """The dataset as the tasks use it: training rows, facts and numbers, and questions about held-out facts."""

    def __init__(self, data: DatasetArtifact, encoder: str) -> None:
        import torch

        from paperflows.components.knowledge.graphs import Names
        from paperflows.components.models.pretrained import load_tokenizer

        self.data, self.encoder, self.tokenizer = data, encoder, load_tokenizer(encoder)
        self.rows = read_split(data, "train")
        self.titles = {str(row["id"]): row["name"] for row in read_split(data, "entities")}
        self.triples = sorted({triple for row in self.rows for triple in self.triples_of(row)})
        mentioned = [str(m["entity"]) for row in self.rows for m in row["mentions"]]
        self.names = Names.of(self.triples, mentioned)
        self.neighbours: dict[str, list[tuple[str, str, str]]] = {}
        for triple in self.triples:
            self.neighbours.setdefault(triple[0], []).append(triple)
        counts = torch.ones(len(self.names.entities))
        for name in [*mentioned, *(end for h, _, t in self.triples for end in (h, t))]:
            counts[self.names.entities[name] - 1] += 1
        self.popularity = counts**0.75

    @staticmethod
    def triples_of(row: dict[str, Any]) -> list[tuple[str, str, str]]:
        return [(h, r, t) for h, r, t in row["triples"]]

    def title(self, entity: str) -> str:
        return self.titles.get(entity, entity).replace("_", " ")

    def body(self, layers: int) -> Any:
        """The encoder's first layers as a masked LM."""
        import torch

        from paperflows.components.models.masked_lm import start_masked_lm

        counts = torch.zeros(len(self.tokenizer), dtype=torch.long)
        for ids in self.tokenizer([row["text"] for row in self.rows], add_special_tokens=False)["input_ids"]:
            counts += torch.bincount(torch.tensor(ids), minlength=len(counts))
        return start_masked_lm(self.encoder, self.tokenizer, counts, layers=layers, pretrained=True, seed=0)

    def model(self, layers: int, entity_rate: float, seed: int) -> Any:
        """An encoder whose entities and relations start as the mean of the pieces of their names."""
        import torch

        from paperflows.components.knowledge.encoder import KnowledgeEncoder
        from paperflows.components.knowledge.tables import RowTable

        lm = self.body(layers)
        words = lm.bert.embeddings.word_embeddings.weight.detach()

        def start(said: list[str]) -> Any:
            ids = self.tokenizer(said, add_special_tokens=False)["input_ids"]
            unknown = [self.tokenizer.unk_token_id]
            return torch.stack([words[self.tokenizer.mask_token_id], *(words[i or unknown].mean(0) for i in ids)])

        entities = start([self.title(entity) for entity in self.names.entities])
        relations = start([_spoken(relation) for relation in self.names.relations])
        torch.manual_seed(seed)
        return KnowledgeEncoder(lm, RowTable(entities, learning_rate=entity_rate), relations)

    def questions(self, texts: int) -> list[tuple[dict[str, Any], tuple[str, str, str], str]]:
        """(row, held-out fact, setting) of test, both entities mentioned, at most `texts` rows a fact."""
        taken: dict[tuple[str, str, str], int] = {}
        found = []
        for row in read_split(self.data, "test"):
            mentioned = {str(m["entity"]) for m in row["mentions"]}
            for place, setting in zip(row.get("targets") or (), row.get("settings") or (), strict=True):
                triple = self.triples_of(row)[place]
                if setting not in SETTINGS or triple[1] not in self.names.relations:
                    continue
                if triple[0] == triple[2] or not {triple[0], triple[2]} <= mentioned:
                    continue
                if taken.get(triple, 0) < texts:
                    taken[triple] = taken.get(triple, 0) + 1
                    found.append((row, triple, setting))
        if {setting for _, _, setting in found} != set(SETTINGS):
            raise InputError(
                f"dataset {self.data['name']!r}: its test split has no held-out facts that are "
                f"{' and '.join(s for s in SETTINGS if s not in {f[2] for f in found})} (targets and settings)"
            )
        return found

    def completion(self, questions: Any, scores: Any, history: list[dict[str, float]]) -> Completion:
        """Filtered ranks of the gold relations, averaged over the texts of each fact."""
        import numpy as np
        from safetensors.numpy import save_file

        from paperflows.components.data.jsonl import write_jsonl
        from paperflows.components.knowledge.ranking import ranks

        number = self.names.relations
        gold = np.array([number[triple[1]] for _, triple, _ in questions])
        true: dict[tuple[str, str], set[int]] = {}
        for h, r, t in [*self.triples, *(triple for _, triple, _ in questions)]:
            true.setdefault((h, t), set()).add(number[r])
        left_out = np.zeros(scores.shape, dtype=bool)
        for i, (_, (h, _, t), _) in enumerate(questions):
            left_out[i, list(true[h, t])] = True
        found = ranks(scores, gold, left_out)
        by: dict[str, dict[tuple[str, str, str], list[float]]] = {setting: {} for setting in SETTINGS}
        for (_, triple, setting), rank in zip(questions, found, strict=True):
            by[setting].setdefault(triple, []).append(float(rank))
        outputs = {
            setting: np.array([np.mean([1 / r for r in by[setting][triple]]) for triple in sorted(by[setting])])
            for setting in SETTINGS
        }
        with new_artifact() as (folder, artifact):
            save_file(outputs, folder / OUTPUTS)
            rows = [
                {"triple": list(triple), "setting": setting, "rank": float(rank)}
                for (_, triple, setting), rank in zip(questions, found, strict=True)
            ]
            write_jsonl(folder / "ranks.jsonl", rows)
        first = {s: float(np.mean([r == 1 for ranks_ in by[s].values() for r in ranks_])) for s in SETTINGS}
        return Completion(**artifact, mrr={s: float(v.mean()) for s, v in outputs.items()}, hits=first, history=history)


def _spoken(relation: str) -> str:
    """A relation's name as words: birthPlace -> birth place."""
    import re

    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", relation).replace("_", " ").lower()
