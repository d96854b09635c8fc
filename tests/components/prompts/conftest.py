import pytest
import torch

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *[
        "it",
        "was",
        "good",
        "bad",
        "yes",
        "no",
        "maybe",
        "the",
        "film",
        "a",
        "an",
        "of",
        "is",
        "news",
        ":",
        "?",
        ",",
        ".",
    ],
]


def small(kind="bert", *, layers=4, width=16, vocab=40):
    import transformers as t

    torch.manual_seed(0)
    shared = {"vocab_size": vocab, "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 2}
    shared |= {"intermediate_size": 32, "max_position_embeddings": 64}
    if kind == "roberta":
        return t.RobertaForMaskedLM(t.RobertaConfig(**shared, pad_token_id=0)).eval()
    if kind == "electra":
        return t.ElectraForMaskedLM(t.ElectraConfig(**shared, embedding_size=8)).eval()
    if kind == "distilbert":
        config = t.DistilBertConfig(
            vocab_size=vocab, dim=width, n_layers=layers, n_heads=2, hidden_dim=32, max_position_embeddings=64
        )
        return t.DistilBertForMaskedLM(config).eval()
    return t.BertForMaskedLM(t.BertConfig(**shared)).eval()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 40, (3, 7), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    ids[1, 5:] = 0
    return ids, mask


@pytest.fixture
def tokenizer():
    from transformers import BertTokenizer

    return BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)}, do_lower_case=True)
