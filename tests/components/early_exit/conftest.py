import copy
from functools import cache

import pytest
import torch
from transformers import BertConfig, DistilBertConfig, ElectraConfig, RobertaConfig

SMALL = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
CONFIGS = {
    "bert": BertConfig(**SMALL),
    "roberta": RobertaConfig(**SMALL, type_vocab_size=1, pad_token_id=1),
    "electra": ElectraConfig(**SMALL, embedding_size=8),
    "distilbert": DistilBertConfig(vocab_size=60, dim=16, n_layers=3, n_heads=2, hidden_dim=32),
}


def small(kind="bert", **changes):
    """A fresh copy of a random encoder of these sizes (see `_built`)."""
    return copy.deepcopy(_built(kind, tuple(sorted(changes.items()))))


@cache
def _built(kind, changes):
    """A random encoder with norms that are not the identity, so that a forgotten one shows."""
    from transformers import AutoModel

    torch.manual_seed(0)
    config = CONFIGS[kind]
    config = type(config)(**{**config.to_dict(), **dict(changes)})
    model = AutoModel.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture
def batch():
    torch.manual_seed(1)
    ids = torch.randint(5, 60, (5, 9))
    mask = torch.arange(9)[None] < torch.tensor([9, 6, 1, 8, 3])[:, None]
    return torch.where(mask, ids, 1), mask.long()
