"""Scoring held-out texts: batches mix the corpora, each text is scored once, and what routing wastes is recorded."""

import math

import numpy as np
import pytest
import torch

from paperflows.components.models.tiny_decoder import tiny_decoder
from paperflows.components.moe import worker
from paperflows.components.moe.language_model import next_token_loss, replace_ffn
from paperflows.components.moe.layer import Router

DECODER = {"vocabulary": 64, "width": 16, "layers": 2, "heads": 2, "hidden": 24, "positions": 32, "seed": 0}


@pytest.fixture
def data():
    random = np.random.default_rng(0)
    found = {"train": random.integers(0, 64, (8, 17))}
    for split in ("validation", "test"):
        for corpus, texts in (("a", 12), ("b", 4), ("c.d", 8)):
            found[f"{split}.{corpus}"] = random.integers(0, 64, (texts, 17))
            found[f"bytes.{split}.{corpus}"] = random.integers(20, 40, texts)
    return found


def both(model, data):
    """What two workers find."""
    return [worker.score_split(model, data, "test", rank=rank, workers=2, batch_size=3) for rank in range(2)]


def test_bits_per_byte_are_those_of_the_text(data):
    dense = tiny_decoder(**DECODER)
    first, second = both(dense, data)
    assert first["shares"] == {}
    for corpus, texts in (("a", 12), ("b", 4), ("c.d", 8)):
        bits = first["bits"][corpus] | second["bits"][corpus]
        assert sorted(bits) == list(range(texts)) and not first["bits"][corpus].keys() & second["bits"][corpus].keys()
        with torch.no_grad():
            nats = next_token_loss(dense, torch.from_numpy(data[f"test.{corpus}"])).sum(1).double().numpy()
        wanted = nats / math.log(2) / data[f"bytes.test.{corpus}"]
        assert [bits[number] for number in range(texts)] == pytest.approx(wanted.tolist(), rel=1e-5)


def test_batches_mix_the_corpora_on_every_worker(data, monkeypatch):
    corpus_of = {tuple(text): name for name in data if name.startswith("test.") for text in data[name].tolist()}
    batches = []

    def seen(model, ids):
        batches.append({corpus_of[tuple(text)] for text in ids.tolist()})
        return next_token_loss(model, ids)

    monkeypatch.setattr(worker, "next_token_loss", seen)
    both(tiny_decoder(**DECODER), data)
    assert len(batches) == 8
    # one corpus after the other would leave one mixed batch to each worker
    assert sum(len(batch) > 1 for batch in batches) > 2
    assert all(set.union(*part) == {"test.a", "test.b", "test.c.d"} for part in (batches[:4], batches[4:]))


def test_waste_of_the_test_pass_is_recorded(data):
    plain = replace_ffn(tiny_decoder(**DECODER), experts=4, router=Router())
    rectified = replace_ffn(tiny_decoder(**DECODER), experts=4, router=Router(), rectify=("intra", "fill"))
    shares, better = both(plain, data)[0]["shares"], both(rectified, data)[0]["shares"]
    assert shares["skipped"] == pytest.approx(shares["dropped"]) and shares["dropped"] > 0 == shares["rectified"]
    assert better["skipped"] == better["padded"] == 0 < better["rectified"] == better["dropped"]


def test_with_a_capacity_later_tokens_change_earlier_logits_and_without_one_they_do_not():
    """Why bits per byte with a capacity are no likelihood of an autoregressive model."""
    generator = torch.Generator().manual_seed(1)
    ids, others = (torch.randint(0, 64, (4, 24), generator=generator) for _ in range(2))
    changed = torch.cat([ids[:, :12], others[:, 12:]], dim=1)
    causal = {}
    for name, factor in (("capacity", 1.0), ("dropless", None)):
        model = replace_ffn(tiny_decoder(**DECODER), experts=4, router=Router(capacity_factor=factor)).eval()
        with torch.no_grad():
            before, after = (model(input_ids=x).logits[:, :12] for x in (ids, changed))
        causal[name] = torch.allclose(before, after, atol=1e-5)
    assert causal == {"capacity": False, "dropless": True}
