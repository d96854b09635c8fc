"""What an encoder of words and knowledge is compared with: words alone, facts alone, names alone."""

from typing import Any

from paperflows.tasks.data import DatasetArtifact
from paperflows.tasks.policy import cached_task
from paperflows.tasks.text_graph import Completion, World
from paperflows.tasks.training import fit


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

    world, t = World(data, encoder), training
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

    world, s = World(data, encoder), settings
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
