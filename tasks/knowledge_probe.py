"""What the words of an encoder recall of the facts that it was trained on (Petroni et al. 2019), and what it is to
plain sentences.
"""

from random import Random
from typing import Any

from paperflows.components.errors import InputError
from paperflows.tasks.data import DatasetArtifact
from paperflows.tasks.knowledge import WEIGHTS
from paperflows.tasks.knowledge_baselines import WORDS
from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import OUTPUTS, Artifact, new_artifact, open_artifact
from paperflows.tasks.text_graph import World, open_world
from paperflows.tasks.training import ModelArtifact


class Recall(Artifact):
    """Whether the masked word comes first (P@1), a number a fact, and the mean."""

    hits: float
    facts: int


@cached_task(name="probe_facts", task_run_name="probe_facts-{model[name]}")
def probe_facts(
    model: ModelArtifact, graphs: bool, data: DatasetArtifact, encoder: str, layers: int, texts: int, device: str
) -> Recall:
    """Mask the tail of a training fact in test texts and predict it from the words alone, over the whole vocabulary.

    Only tails of one piece are asked for, in texts that do not name them elsewhere; no entity or relation is in the
    input, of encoders of graphs neither.

    Args:
        texts: of each fact, at most.
    """
    import numpy as np
    import torch
    from safetensors.numpy import save_file
    from safetensors.torch import load_model

    from paperflows.components.knowledge.graphs import Names, build_graph, collate
    from paperflows.components.training.device import accelerator

    world = open_world(data, encoder)
    questions = _masked_texts(world, texts)
    if not questions:
        raise InputError(f"dataset {data['name']!r}: no test text states a training fact whose tail is one piece")
    net: Any = world.model(layers, 0.0, 0) if graphs else world.body(layers)
    load_model(net, str(open_artifact(model) / (WEIGHTS if graphs else WORDS)))
    net.to(accelerator(device).device).eval()
    mask, rng = world.tokenizer.mask_token_id, Random(0)
    made = [build_graph(text, [], {}, Names({}, {}), world.tokenizer, rng=rng) for _, text, _ in questions]
    hits: dict[tuple[str, str, str], list[bool]] = {}
    with torch.inference_mode():
        for at in range(0, len(made), 64):
            batch = collate(made[at : at + 64])
            if graphs:
                hidden, head = net.encode(batch), net.lm.cls
            else:
                place = next(net.parameters()).device
                ids, real = batch.index.to(place), batch.real.long().to(place)
                hidden, head = net.bert(input_ids=ids, attention_mask=real).last_hidden_state, net.cls
            said = head(hidden[(batch.index == mask).to(hidden.device)]).argmax(-1).tolist()
            for (fact, _, gold), word in zip(questions[at : at + 64], said, strict=True):
                hits.setdefault(fact, []).append(word == gold)
    values = np.array([np.mean(hits[fact]) for fact in sorted(hits)])
    with new_artifact() as (folder, artifact):
        save_file({"facts": values}, folder / OUTPUTS)
    return Recall(**artifact, hits=float(values.mean()), facts=len(values))


@cached_task(name="read_as_texts", task_run_name="read_as_texts-{label}")
def read_as_texts(
    model: ModelArtifact | None, graphs: bool, data: DatasetArtifact, encoder: str, layers: int, label: str
) -> Artifact:
    """An encoder of graphs or of words as one of plain sentences, in the form of transformers, mean of the states.

    Args:
        model: None is the encoder before any training.
        graphs: whether it was trained on graphs; what it knows of entities and relations stays behind.
    """
    from safetensors.torch import load_model

    from paperflows.components.knowledge.plain_texts import text_encoder
    from paperflows.components.models.encoder import SentenceEncoder

    world = open_world(data, encoder)
    net: Any = world.model(layers, 0.0, 0) if graphs else world.body(layers)
    if model:
        load_model(net, str(open_artifact(model) / (WEIGHTS if graphs else WORDS)))
    bert = text_encoder(net) if graphs else net.bert
    with new_artifact() as (folder, artifact):
        SentenceEncoder(bert, world.tokenizer, pooling="mean").save(folder)
    return artifact


def _masked_texts(world: World, texts: int) -> list[tuple[tuple[str, str, str], str, int]]:
    """(training fact, test text with its tail as one [MASK], the tail's piece), at most `texts` a fact."""
    known, taken, found = set(world.triples), dict[tuple[str, str, str], int](), []
    for row in world.test:
        for fact in world.triples_of(row):
            spans = [m for m in row["mentions"] if str(m["entity"]) == fact[2]]
            if fact not in known or len(spans) != 1 or taken.get(fact, 0) >= texts:
                continue
            said = row["text"][spans[0]["start"] : spans[0]["end"]]
            pieces = world.tokenizer(said, add_special_tokens=False)["input_ids"]
            before, after = row["text"][: spans[0]["start"]], row["text"][spans[0]["end"] :]
            if len(pieces) != 1 or said.casefold() in (before + "|" + after).casefold():
                continue
            taken[fact] = taken.get(fact, 0) + 1
            found.append((fact, f"{before}{world.tokenizer.mask_token}{after}", pieces[0]))
    return found
