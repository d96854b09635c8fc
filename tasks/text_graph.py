"""A text graph as its tasks use it: training rows, facts and numbers, and questions about held-out facts."""

import copy
import json
import logging
from functools import cached_property, lru_cache
from typing import Any

from paperflows.components.errors import InputError
from paperflows.tasks.data import DatasetArtifact, read_split
from paperflows.tasks.store import OUTPUTS, Artifact, new_artifact, open_artifact

log = logging.getLogger(__name__)

SETTINGS = ("transductive", "inductive")
ENDS = ("head", "tail")
VECTORS = "vectors.safetensors"
LONGEST = 256  # pieces of a text that is read; the paper's graphs have as many nodes at most


class Completion(Artifact):
    """Mean reciprocal rank of each held-out fact over the texts that state it, by setting; their means.

    Where ends are ranked, a setting is "head transductive" and so on, and the output "tail" holds whether the tail
    comes first, settings together.
    """

    mrr: dict[str, float]
    hits: dict[str, float]
    history: list[dict[str, float]]


def open_world(data: DatasetArtifact, encoder: str) -> "World":
    """The world of a dataset, read once in a process; what it holds is not to be changed."""
    return _world(json.dumps(data, sort_keys=True), str(open_artifact(data)), encoder)


@lru_cache(maxsize=1)
def _world(data: str, folder: str, encoder: str) -> "World":
    return World(json.loads(data), encoder)


class World:
    """Rows, facts and numbers of the training split, and what test asks; a longer text than `LONGEST` is not read.

    Args:
        encoder: whose tokenizer and first layers are used.
    """

    def __init__(self, data: DatasetArtifact, encoder: str) -> None:
        import torch

        from paperflows.components.knowledge.graphs import Names
        from paperflows.components.models.pretrained import load_tokenizer

        self.data, self.encoder, self.tokenizer = data, encoder, load_tokenizer(encoder)
        self.rows, self.pieces = self._short("train")
        self._start: dict[int, Any] = {}
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

    @cached_property
    def test(self) -> list[dict[str, Any]]:
        """Rows of the test split."""
        return self._short("test")[0]

    def _short(self, split: str) -> tuple[list[dict[str, Any]], list[list[int]]]:
        """Rows of a split whose text is not too long, and the pieces of their texts."""
        rows = read_split(self.data, split)
        ids = self.tokenizer([row["text"] for row in rows], add_special_tokens=False)["input_ids"] if rows else []
        kept = [i for i, of_row in enumerate(ids) if len(of_row) <= LONGEST]
        if not kept:
            raise InputError(f"dataset {self.data['name']!r}: no {split} text has {LONGEST} word pieces or fewer")
        if len(kept) < len(rows):
            log.warning(
                "%s: %d of %d %s texts have more than %d word pieces and are left out",
                self.data["name"], len(rows) - len(kept), len(rows), split, LONGEST,
            )  # fmt: skip
        return [rows[i] for i in kept], [ids[i] for i in kept]

    def sizes(self, share: float) -> Any:
        """(rows,) nodes that a training row's graph has on average, by which rows are grouped into batches."""
        import numpy as np

        from paperflows.components.knowledge.graphs import FACTS

        facts = {entity: min(FACTS, len(known)) for entity, known in self.neighbours.items()}
        brought = [sum(facts.get(e, 0) for e in {str(m["entity"]) for m in row["mentions"]}) for row in self.rows]
        return np.array([len(ids) for ids in self.pieces]) + (2 * share * np.array(brought)).round().astype(int)

    @staticmethod
    def triples_of(row: dict[str, Any]) -> list[tuple[str, str, str]]:
        """The facts that a row states."""
        return [(h, r, t) for h, r, t in row["triples"]]

    def title(self, entity: str) -> str:
        """An entity's name, as words."""
        return self.titles.get(entity, entity).replace("_", " ")

    def body(self, layers: int) -> Any:
        """The encoder's first layers as a masked LM, a copy of its own for each call."""
        return copy.deepcopy(self._started(layers)[0])

    def _started(self, layers: int) -> tuple[Any, Any, Any]:
        """Masked LM, rows of entities and rows of relations before any training; 0 is the mask's."""
        import torch

        from paperflows.components.models.cut_vocabulary import start_masked_lm

        if layers not in self._start:
            used = torch.tensor([i for ids in self.pieces for i in ids], dtype=torch.long)
            counts = torch.bincount(used, minlength=len(self.tokenizer))
            lm: Any = start_masked_lm(self.encoder, self.tokenizer, counts, layers=layers, pretrained=True, seed=0)
            mask = lm.bert.embeddings.word_embeddings.weight.detach()[[self.tokenizer.mask_token_id]]
            entities = torch.cat([mask, self.named(lm, [self.title(entity) for entity in self.names.entities])])
            relations = torch.cat([mask, self.named(lm, [_spoken(relation) for relation in self.names.relations])])
            self._start = {layers: (lm, entities, relations)}
        return self._start[layers]

    def model(self, layers: int, entity_rate: float, seed: int) -> Any:
        """An encoder whose entities and relations start as the mean of the pieces of their names, and whose relations
        start as likely as they are among the facts.
        """
        import torch

        from paperflows.components.knowledge.encoder import KnowledgeEncoder
        from paperflows.components.knowledge.tables import RowTable

        lm, entities, relations = self._started(layers)
        torch.manual_seed(seed)
        counts = torch.ones(len(relations))
        for _, relation, _ in self.triples:
            counts[self.names.relations[relation]] += 1
        net = KnowledgeEncoder(copy.deepcopy(lm), RowTable(entities, learning_rate=entity_rate), relations)
        with torch.no_grad():
            net.relation_bias.copy_((counts / counts.sum()).log())
        return net

    def named(self, lm: Any, said: list[str]) -> Any:
        """(N, D) the mean embedding of the pieces of each name."""
        import torch

        words = lm.bert.embeddings.word_embeddings.weight.detach()
        ids = self.tokenizer(said, add_special_tokens=False)["input_ids"]
        unknown = [self.tokenizer.unk_token_id]
        return torch.stack([words[i or unknown].mean(0) for i in ids]) if ids else words[:0]

    def name_unseen(self, net: Any, entities: Any, names: Any = None) -> Any:
        """Give `net` a row for each of these entities that has none, the mean embedding of its name's pieces.

        Args:
            names: numbers so far; empty for those of training.

        Returns:
            The names with these entities' numbers, which follow the others in sorted order.
        """
        from paperflows.components.knowledge.graphs import Names

        known = (names or self.names).entities
        unseen = sorted({str(entity) for entity in entities} - known.keys())
        net.entities.append(self.named(net.lm, [self.title(entity) for entity in unseen]))
        numbers = {entity: len(known) + 1 + i for i, entity in enumerate(unseen)}
        return Names({**known, **numbers}, self.names.relations)

    def unseen(self, questions: Any) -> list[str]:
        """Ends of held-out facts that training never saw; their numbers follow those of `names`, in this order."""
        return sorted({end for _, (h, _, t), _ in questions for end in (h, t)} - self.names.entities.keys())

    def numbers(self, questions: Any) -> dict[str, int]:
        """Numbers of all entities that can be an answer, from 1."""
        known = self.names.entities
        return {**known, **{end: len(known) + 1 + i for i, end in enumerate(self.unseen(questions))}}

    def mentions_with_names(self, row: dict[str, Any], entity: str) -> list[dict[str, Any]]:
        """A row's mentions, and every further place in its words that names the entity as a mention or its title do."""
        import re

        mentions = list(row["mentions"])
        said = {row["text"][m["start"] : m["end"]] for m in mentions if str(m["entity"]) == entity}
        for name in sorted(said | {self.title(entity)}, key=len, reverse=True):
            for match in re.finditer(rf"\b{re.escape(name)}\b", row["text"], re.IGNORECASE):
                start, end = match.span()
                if all(end <= m["start"] or m["end"] <= start for m in mentions):
                    mentions.append({"start": start, "end": end, "entity": entity})
        return mentions

    def questions(self, texts: int) -> list[tuple[dict[str, Any], tuple[str, str, str], str]]:
        """(row, held-out fact, setting) of test, both entities mentioned, at most `texts` rows a fact."""
        taken: dict[tuple[str, str, str], int] = {}
        found = []
        for row in self.test:
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

    def completion(
        self, questions: Any, scores: Any, history: list[dict[str, float]], vectors: Any = None
    ) -> Completion:
        """Filtered ranks of the gold relations, averaged over the texts of each fact.

        Args:
            scores: (M, R).
            vectors: (E, X) of the entities with a number, kept in the artifact.
        """
        import numpy as np

        from paperflows.components.knowledge.ranking import ranks

        number = self.names.relations
        gold = np.array([number[triple[1]] for _, triple, _ in questions])
        left_out = _also_true(
            scores.shape,
            [((h, t), number[r]) for h, r, t in [*self.triples, *(triple for _, triple, _ in questions)]],
            [(h, t) for _, (h, _, t), _ in questions],
        )
        return _summary(questions, {"": ranks(scores, gold, left_out)}, history, vectors)

    def end_completion(self, questions: Any, scores: dict[str, Any]) -> Completion:
        """Filtered ranks of the gold heads and tails among all entities, averaged over the texts of each fact.

        Args:
            scores: by end (M, E), column e for the entity of number e.
        """
        import numpy as np

        from paperflows.components.knowledge.ranking import ranks

        number = self.numbers(questions)
        facts = [*self.triples, *(triple for _, triple, _ in questions)]
        found = {}
        for end, place in zip(ENDS, (0, 2), strict=True):
            gold = np.array([number[triple[place]] for _, triple, _ in questions])
            left_out = _also_true(
                scores[end].shape,
                [((f[1], f[2 - place]), number[f[place]]) for f in facts],
                [(triple[1], triple[2 - place]) for _, triple, _ in questions],
            )
            found[f"{end} "] = ranks(scores[end], gold, left_out)
        return _summary(questions, found, [], None)


def _also_true(shape: Any, facts: list[tuple[Any, int]], asked: list[Any]) -> Any:
    """(M, C) true for every candidate that is a right answer to the question of the row."""
    import numpy as np

    true: dict[Any, set[int]] = {}
    for key, candidate in facts:
        true.setdefault(key, set()).add(candidate)
    left_out = np.zeros(shape, dtype=bool)
    for row, key in enumerate(asked):
        left_out[row, list(true[key])] = True
    return left_out


def _summary(questions: Any, found: dict[str, Any], history: list[dict[str, float]], vectors: Any) -> Completion:
    """Ranks of each question, by what is ranked, as the outputs of held-out facts."""
    import numpy as np
    from safetensors.numpy import save_file

    from paperflows.components.data.jsonl import write_jsonl

    outputs, hits = {}, {}
    for what, ranked in found.items():
        by: dict[str, dict[tuple[str, str, str], list[float]]] = {setting: {} for setting in SETTINGS}
        for (_, triple, setting), rank in zip(questions, ranked, strict=True):
            by[setting].setdefault(triple, []).append(float(rank))
        for setting, facts in by.items():
            outputs[what + setting] = np.array([np.mean([1 / r for r in facts[t]]) for t in sorted(facts)])
            hits[what + setting] = float(np.mean([r == 1 for of_fact in facts.values() for r in of_fact]))
        if what:
            first = {t: np.mean([r == 1 for r in of_fact]) for facts in by.values() for t, of_fact in facts.items()}
            outputs[what.strip()] = np.array([first[t] for t in sorted(first)])
    rows = [
        {"triple": list(triple), "setting": setting, **{f"{w}rank": float(r[i]) for w, r in found.items()}}
        for i, (_, triple, setting) in enumerate(questions)
    ]
    with new_artifact() as (folder, artifact):
        save_file(outputs, folder / OUTPUTS)
        write_jsonl(folder / "ranks.jsonl", rows)
        if vectors is not None:
            save_file({"vectors": vectors}, folder / VECTORS)
    mrr = {setting: float(outputs[setting].mean()) for setting in hits}
    return Completion(**artifact, mrr=mrr, hits=hits, history=history)


def _spoken(relation: str) -> str:
    """A relation's name as words: birthPlace -> birth place."""
    import re

    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", relation).replace("_", " ").lower()
