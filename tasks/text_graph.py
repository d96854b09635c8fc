"""A text graph as its tasks use it: training rows, facts and numbers, and questions about held-out facts."""

from typing import Any

from paperflows.components.errors import InputError
from paperflows.tasks.claims import OUTPUTS
from paperflows.tasks.data import DatasetArtifact, read_split
from paperflows.tasks.store import Artifact, new_artifact

SETTINGS = ("transductive", "inductive")


class Completion(Artifact):
    """Mean reciprocal rank of each held-out fact over the texts that state it, by setting; their means."""

    mrr: dict[str, float]
    hits: dict[str, float]
    history: list[dict[str, float]]


class World:
    """Rows, facts and numbers of the training split, and what test asks.

    Args:
        encoder: whose tokenizer and first layers are used.
    """

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
        """The facts that a row states."""
        return [(h, r, t) for h, r, t in row["triples"]]

    def title(self, entity: str) -> str:
        """An entity's name, as words."""
        return self.titles.get(entity, entity).replace("_", " ")

    def body(self, layers: int) -> Any:
        """The encoder's first layers as a masked LM."""
        import torch

        from paperflows.components.models.cut_vocabulary import start_masked_lm

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
