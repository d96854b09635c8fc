"""An encoder of word-knowledge graphs as one of plain texts."""

import copy
from typing import Any

import torch

from paperflows.components.knowledge.encoder import KnowledgeEncoder
from paperflows.components.knowledge.graphs import WORD


def text_encoder(net: KnowledgeEncoder) -> Any:
    """A `BertModel` of its own that gives words the states that `net` gives them where there are words alone.

    The type embedding of words goes into those of the segments, which every word has.
    """
    bert = copy.deepcopy(net.lm.bert)
    with torch.no_grad():
        bert.embeddings.token_type_embeddings.weight += net.kinds.weight[WORD]
    return bert
