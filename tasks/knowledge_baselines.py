"""What an encoder of words and knowledge is compared with: words, kept vectors of facts, facts alone, names alone."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from paperflows.tasks.data import DatasetArtifact
from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import Artifact, new_artifact, open_artifact
from paperflows.tasks.text_graph import ENDS, LONGEST, VECTORS, Completion, World, open_world
from paperflows.tasks.training import ModelArtifact, fit

WORDS = "words.safetensors"


class Reading(BaseModel):
    """What a text-only classifier of relations reads."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    names: bool = Field(False, description="The names of the two entities alone, not the text")
    inject: bool = Field(False, description="Kept vectors of an embedding of facts, added at the mentions")


@cached_task(name="train_relation_reader", task_run_name="{name}-seed{seed}")
def train_relation_reader(
    name: str, reading: Reading, data: DatasetArtifact, encoder: str, layers: int, training: dict[str, Any],
    vectors: Artifact | None, texts: int, seed: int, device: str,
) -> Completion:  # fmt: skip
    """The same encoder reads words and classifies the relation of two mentions.

    Trained for the same steps on the training facts that the training texts state.

    Args:
        vectors: a completion by an embedding of facts, whose vectors are injected.
    """
    import numpy as np
    import torch
    import torch.nn.functional as F

    from paperflows.components.knowledge.reader import RelationReader, read_pairs
    from paperflows.components.training.batching import Batches

    world, t = open_world(data, encoder), training
    stated = [
        (row, triple)
        for row in world.rows
        for triple in world.triples_of(row)
        if {triple[0], triple[2]} <= {str(m["entity"]) for m in row["mentions"]}
    ]
    questions = world.questions(texts)
    asked = [(row, triple) for row, triple, _ in questions]
    if reading.names:
        stated, asked = ([(_names(world, triple), triple) for _, triple in some] for some in (stated, asked))
    body = world.body(layers)
    torch.manual_seed(seed)
    net = RelationReader(body, len(world.names.relations) + 1, entity_vectors(vectors))
    batches = Batches(batch_size=t["batch_size"], seed=seed, lengths=np.array([len(row["text"]) for row, _ in stated]))

    def batch_at(step: int) -> dict[str, Any]:
        some = [stated[i] for i in batches.at(step)]
        gold = torch.tensor([world.names.relations[triple[1]] for _, triple in some])
        return {**read_pairs(some, world.tokenizer, world.names.entities), "gold": gold, "ids": [step]}

    done = fit(
        f"{name}-seed{seed}", {"seed": seed, **t}, net, batch_at, lambda m, b: F.cross_entropy(m(b), b["gold"]),
        t["steps"], t["learning_rate"], seed, device,
    )  # fmt: skip
    net.eval()
    place, scores = next(net.parameters()).device, []
    with torch.inference_mode():
        for at in range(0, len(asked), 64):
            batch = read_pairs(asked[at : at + 64], world.tokenizer, world.names.entities)
            scores.append(net({k: v.to(place) for k, v in batch.items()}).float().cpu())
    return world.completion(questions, torch.cat(scores).numpy(), done.history)


def _names(world: World, triple: tuple[str, str, str]) -> dict[str, Any]:
    """A row whose text is the two names."""
    head, tail = world.title(triple[0]), world.title(triple[2])
    start = len(head) + 3
    mentions = [
        {"start": 0, "end": len(head), "entity": triple[0]},
        {"start": start, "end": start + len(tail), "entity": triple[2]},
    ]
    return {"text": f"{head} ; {tail}", "mentions": mentions}


def entity_vectors(stored: Artifact | None) -> Any:
    """(E, X) kept vectors, row 0 and rows of entities without a number zero."""
    from safetensors.torch import load_file

    return None if stored is None else load_file(open_artifact(stored) / VECTORS)["vectors"]


@cached_task(name="train_words", task_run_name="words-seed{seed}")
def train_words(
    data: DatasetArtifact, encoder: str, layers: int, training: dict[str, Any], seed: int, device: str
) -> ModelArtifact:
    """The same encoder trained on as a plain masked LM, on the words of the same texts for the same steps."""
    import torch
    from safetensors.torch import save_model

    from paperflows.components.models.tiny_bert import mask_tokens, masked_lm_loss
    from paperflows.components.training.batching import Batches, TokenTable

    world, t = open_world(data, encoder), training
    lm = world.body(layers)
    table = TokenTable.from_texts([row["text"] for row in world.rows], world.tokenizer, max_length=LONGEST + 2)
    batches = Batches(batch_size=t["batch_size"], seed=seed, lengths=table.lengths)

    def batch_at(step: int) -> dict[str, Any]:
        rows = batches.at(step)
        ids, mask = table.pad(rows)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        noisy, labels = mask_tokens(ids, mask, tokenizer=world.tokenizer, share=0.15, generator=generator)
        return {"noisy": noisy, "mask": mask, "labels": labels, "ids": rows.tolist()}

    done = fit(
        f"words-seed{seed}", {"seed": seed, **t}, lm, batch_at,
        lambda m, b: masked_lm_loss(m, b["noisy"], b["mask"], b["labels"]), t["steps"], t["learning_rate"], seed,
        device,
    )  # fmt: skip
    with new_artifact() as (folder, artifact):
        save_model(lm.cpu(), str(folder / WORDS))
    return ModelArtifact(**artifact, name="words", score=None, history=done.history)


@cached_task(name="train_triple_model", task_run_name="{kind}-names-{by_name}-seed{seed}")
def train_triple_model(
    data: DatasetArtifact, encoder: str, kind: str, by_name: bool, settings: dict[str, Any], texts: int,
    end_texts: int, seed: int, device: str,
) -> dict[str, Completion]:  # fmt: skip
    """Embeddings of the training facts alone; entities as rows, or (DKRL's idea) as maps of their names' embeddings.

    Args:
        settings: width, steps, batch_size, learning_rate, margin, negatives.
        texts, end_texts: of each held-out fact, where its relation and where its ends are ranked.

    Returns:
        `relations` and `ends`: what is ranked; the first keeps the vectors of the entities.
    """
    import torch

    from paperflows.components.knowledge.triple_models import TripleModel, corrupt, ranking_loss
    from paperflows.components.models.encoder import load_encoder

    world, s = open_world(data, encoder), settings
    questions, end_questions = world.questions(texts), world.questions(end_texts)
    number, seen = world.numbers(questions), len(world.names.entities)
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
        bad = corrupt(rows, s["negatives"], entities=seen + 1, relations=relations, generator=generator)
        return {"good": rows, "bad": bad, "ids": [step]}

    margin = s["margin"] if kind in ("transe", "rotate") else 0.0
    done = fit(
        f"{kind}-seed{seed}", {"seed": seed, "kind": kind, **s}, net, batch_at,
        lambda m, b: ranking_loss(m, b["good"], b["bad"], margin=margin), s["steps"], s["learning_rate"], seed, device,
    )  # fmt: skip
    net.cpu().eval()
    with torch.inference_mode():
        head = torch.tensor([number[t[0]] for _, t, _ in questions])[:, None]
        tail = torch.tensor([number[t[2]] for _, t, _ in questions])[:, None]
        scores = net(head, torch.arange(relations)[None], tail)
        if not by_name:  # entities without a row say nothing
            scores = torch.where((head > seen) | (tail > seen), 0.0, scores)
        scores[:, 0] = -torch.inf
        vectors = net.rows(torch.arange(seen + 1))
        vectors[0] = 0.0
        of_relations = world.completion(questions, scores.numpy(), done.history, vectors.numpy())
        renumber = world.numbers(end_questions)
        place = torch.tensor([0, *(number[entity] for entity in renumber)])
        ends = {end: _end_scores(net, world, end_questions, number, place, end, by_name) for end in ENDS}
    return {"relations": of_relations, "ends": world.end_completion(end_questions, ends)}


def _end_scores(net: Any, world: World, questions: Any, number: Any, candidates: Any, end: str, by_name: bool) -> Any:
    """(M, E) scores of the candidates (E,) as an end of each fact; without a row they all share the last place."""
    import torch

    facts = sorted({triple for _, triple, _ in questions})
    rows, seen = {}, len(world.names.entities)
    for head, relation, tail in facts:
        given = number[tail if end == "head" else head]
        link, other = torch.tensor(world.names.relations[relation]), torch.tensor(given)
        scores = net(candidates, link, other) if end == "head" else net(other, link, candidates)
        if not by_name:
            scores = torch.zeros_like(scores) if given > seen else scores
            scores = torch.where(candidates > seen, scores.min() - 1, scores)
        scores[0] = -torch.inf
        rows[head, relation, tail] = scores
    return torch.stack([rows[triple] for _, triple, _ in questions]).numpy()


@cached_task(name="complete_by_frequency")
def complete_by_frequency(data: DatasetArtifact, encoder: str, texts: int) -> Completion:
    """Each held-out fact's relation ranked by how often training states it, whatever the text and the entities."""
    import numpy as np

    world = open_world(data, encoder)
    counts = np.zeros(len(world.names.relations) + 1)
    counts[0] = -np.inf
    for _, relation, _ in world.triples:
        counts[world.names.relations[relation]] += 1
    questions = world.questions(texts)
    return world.completion(questions, np.tile(counts, (len(questions), 1)), [])
