"""Word-knowledge graphs: a sentence's words, the entities it mentions, and facts about these, as one node sequence.

Letters: B graphs, N nodes of the largest. Nodes come in the order words (with [CLS] first and [SEP] last), anchors
(mentioned entities), tails, relations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

WORD, ENTITY, RELATION = 0, 1, 2
FACTS = 15  # that an anchor brings, at most (the official code)
UNKNOWN = 0  # entity row 0 stands for entities without a row of their own, and for masks
Triple = tuple[str, str, str]


@dataclass(frozen=True)
class Names:
    """Numbers of entities and relations; number 0 is no entity and no relation of its own but the mask's."""

    entities: Mapping[str, int]
    relations: Mapping[str, int]

    @classmethod
    def of(cls, triples: Sequence[Triple], mentioned: Sequence[str] = ()) -> "Names":
        """All ends of triples and all mentioned entities, and all relations, in sorted order from 1."""
        entities = sorted({end for h, _, t in triples for end in (h, t)} | set(mentioned))
        relations = sorted({r for _, r, _ in triples})
        return cls({e: i + 1 for i, e in enumerate(entities)}, {r: i + 1 for i, r in enumerate(relations)})


@dataclass
class Graph:
    """Nodes of one graph.

    Attributes:
        kind: WORD, ENTITY or RELATION of each node.
        index: number in the table of its kind.
        position: soft position: reading order for words and anchors; relations of an anchor at p have p + 1, their
            tails p + 2.
        edges: pairs of nodes that see each other beyond the sentence's.
        language: nodes of the sentence (words and anchors), which all see one another.
        anchors: entity -> node.
    """

    kind: list[int] = field(default_factory=list)
    index: list[int] = field(default_factory=list)
    position: list[int] = field(default_factory=list)
    edges: list[tuple[int, int]] = field(default_factory=list)
    language: list[bool] = field(default_factory=list)
    anchors: dict[str, int] = field(default_factory=dict)

    def add(self, kind: int, index: int, position: int, *, language: bool = False) -> int:
        """A new node; its number."""
        self.kind.append(kind)
        self.index.append(index)
        self.position.append(position)
        self.language.append(language)
        return len(self.kind) - 1

    def __len__(self) -> int:
        return len(self.kind)


def build_graph(
    text: str,
    mentions: Sequence[Mapping[str, Any]],
    neighbours: Mapping[str, Sequence[Triple]],
    names: Names,
    tokenizer: Any,
    *,
    share: float = 0.5,
    most: int = FACTS,
    hidden: Sequence[Triple] = (),
    masked: str = "",
    rng: Random,
) -> Graph:
    """One graph of a sentence (section 2 of the paper; the official code's preprocessing).

    The first mention of an entity gives way to its anchor; further mentions stay words. With probability `share` an
    anchor brings up to `most` of its facts, drawn afresh each time; a tail that is an anchor itself is linked.

    Args:
        mentions: start, end and entity of spans of the text that do not overlap.
        neighbours: entity -> its facts, as head.
        hidden: facts that must not show: any fact between the same two entities is left out.
        masked: an entity to be guessed: its anchor has the mask's number and brings no facts, and its further mentions
            are taken out of the words.
    """
    graph = Graph()
    graph.add(WORD, tokenizer.cls_token_id, 0, language=True)
    first: dict[str, Mapping[str, Any]] = {}
    for mention in sorted(mentions, key=lambda m: m["start"]):
        first.setdefault(str(mention["entity"]), mention)
    pieces, done = [], 0
    for mention in sorted(mentions, key=lambda m: m["start"]):
        entity = str(mention["entity"])
        if mention is first[entity] or entity == masked:
            pieces += [(text[done : mention["start"]], ""), ("", entity if mention is first[entity] else "")]
            done = mention["end"]
    pieces.append((text[done:], ""))
    position, places = 1, []
    for words, entity in pieces:
        if entity:
            places.append((entity, position))
            position += 1
        elif words.strip():
            for token in tokenizer(words, add_special_tokens=False)["input_ids"]:
                graph.add(WORD, token, position, language=True)
                position += 1
    graph.add(WORD, tokenizer.sep_token_id, position, language=True)
    for entity, place in places:
        number = UNKNOWN if entity == masked else names.entities.get(entity, UNKNOWN)
        graph.anchors[entity] = graph.add(ENTITY, number, place, language=True)
    ends = {frozenset((h, t)) for h, _, t in hidden}
    facts = []
    for entity in graph.anchors:
        if rng.random() < share and entity != masked:
            known = [f for f in neighbours.get(entity, ()) if frozenset((f[0], f[2])) not in ends]
            facts += rng.sample(known, min(most, len(known)))
    tails: dict[str, int] = {}
    for h, _, t in facts:
        if t not in graph.anchors and t not in tails:
            tails[t] = graph.add(ENTITY, names.entities.get(t, UNKNOWN), graph.position[graph.anchors[h]] + 2)
    for h, r, t in facts:
        anchor = graph.anchors[h]
        relation = graph.add(RELATION, names.relations.get(r, UNKNOWN), graph.position[anchor] + 1)
        graph.edges += [(anchor, relation), (relation, graph.anchors[t] if t in graph.anchors else tails[t])]
    return graph


def ask_relation(graph: Graph, head: str, tail: str) -> int | None:
    """Add a masked relation node between two anchors; its number, or None where one of them is no anchor."""
    if head not in graph.anchors or tail not in graph.anchors:
        return None
    one, two = graph.anchors[head], graph.anchors[tail]
    node = graph.add(RELATION, UNKNOWN, graph.position[one] + 1)
    graph.edges += [(one, node), (node, two)]
    return node


def state_fact(graph: Graph, triple: Triple, names: Names) -> tuple[int, int]:
    """Add a fact's relation node between its ends, and an end that is no anchor as a masked node; (head, tail) nodes.

    Where neither end is an anchor nothing can be asked; a masked head is a node of the sentence, as anchors are.

    Raises:
        ValueError: neither end is an anchor.
    """
    head, relation, tail = triple
    if not {head, tail} & graph.anchors.keys():
        raise ValueError(f"neither end of {triple} is an anchor")
    if head not in graph.anchors:
        graph.anchors[head] = graph.add(ENTITY, UNKNOWN, graph.position[graph.anchors[tail]], language=True)
    one = graph.anchors[head]
    place = graph.position[one]
    two = graph.anchors.get(tail)
    two = graph.add(ENTITY, UNKNOWN, place + 2) if two is None else two
    node = graph.add(RELATION, names.relations.get(relation, UNKNOWN), place + 1)
    graph.edges += [(one, node), (node, two)]
    return one, two


def label_graph(
    text: str, mentions: Sequence[Mapping[str, Any]], names: Names, tokenizer: Any
) -> tuple[Graph, list[int]]:
    """A sentence that keeps all its words, with a node for each mention at the soft position of its first word.

    The input of relation classification: no relation nodes and no neighbours; it is meant to be read with full
    attention.

    Returns:
        The graph, and the nodes of the mentions in their order.
    """
    graph = Graph()
    encoded = tokenizer(text, truncation=True, max_length=256, return_offsets_mapping=True)
    for position, token in enumerate(encoded["input_ids"]):
        graph.add(WORD, token, position, language=True)
    ends = [end for _, end in encoded["offset_mapping"]]
    nodes = []
    for mention in mentions:
        place = next((i for i, end in enumerate(ends) if end > mention["start"]), len(ends) - 1)
        number = names.entities.get(str(mention["entity"]), UNKNOWN)
        nodes.append(graph.add(ENTITY, number, place, language=True))
    return graph, nodes


@dataclass(frozen=True)
class GraphBatch:
    """Padded graphs: kind, index, position (B, N); attention (B, N, N), real and language (B, N) bool."""

    kind: Tensor
    index: Tensor
    position: Tensor
    attention: Tensor
    real: Tensor
    language: Tensor


def collate(graphs: Sequence[Graph], *, full: bool = False) -> GraphBatch:
    """Pad graphs and build their attention from index arrays, without a loop over pairs of nodes.

    Args:
        full: every node sees every node (the ablation without the graph).
    """
    sizes = np.array([len(graph) for graph in graphs])
    width = int(sizes.max())
    inside = np.arange(width)[None, :] < sizes[:, None]

    def padded(rows: Sequence[Sequence[Any]], dtype: Any) -> NDArray[Any]:
        out = np.zeros((len(graphs), width), dtype=dtype)
        out[inside] = np.concatenate([np.asarray(row, dtype=dtype) for row in rows])
        return out

    language = padded([g.language for g in graphs], bool)
    attention = (inside[:, :, None] & inside[:, None, :]) if full else (language[:, :, None] & language[:, None, :])
    rows = np.repeat(np.arange(len(graphs)), [len(g.edges) for g in graphs])
    if len(rows):
        pairs = np.array([edge for g in graphs for edge in g.edges])
        attention[rows, pairs[:, 0], pairs[:, 1]] = attention[rows, pairs[:, 1], pairs[:, 0]] = True
    attention[:, np.arange(width), np.arange(width)] = True  # a row that sees nothing would be NaN
    return GraphBatch(
        torch.from_numpy(padded([g.kind for g in graphs], np.int64)),
        torch.from_numpy(padded([g.index for g in graphs], np.int64)),
        torch.from_numpy(padded([g.position for g in graphs], np.int64)),
        torch.from_numpy(attention),
        torch.from_numpy(inside),
        torch.from_numpy(language),
    )
