"""Encoding beside sentence-transformers, search beside plain faiss, 64 questions beside one by one, and a decision."""

import http.client
import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from measure import interleaved

ENCODED, SEARCHED, TOGETHER, DECIDED = 320, 20_000, 64, 100


def figures() -> list[dict[str, Any]]:
    """All figures of this section."""
    from paperflows.components.data.sources import load
    from paperflows.components.models.encoder import load_encoder
    from paperflows.components.retrieval.dense import encode

    splits = load("builtin", "world_documents").splits
    passages = splits["passages"][::10]
    chains = [row["question"] for row in splits["test"] if row["relation"] == "chain"]
    encoder = load_encoder("minilm", device="cpu")
    vectors = encode(encoder, [shown(passage) for passage in passages])
    return [
        *encoding(encoder, [shown(passage) for passage in passages[:ENCODED]]),
        *searching(vectors, encode(encoder, chains)),
        *together(encoder, passages, vectors, chains[:TOGETHER]),
        *deciding(encoder, chains),
    ]


def shown(passage: dict[str, Any]) -> str:
    """A passage as it is read."""
    return f"{passage['title']}: {passage['text']}"


def encoding(encoder: Any, texts: list[str]) -> list[dict[str, Any]]:
    """Passages a second."""
    import numpy as np
    from sentence_transformers import SentenceTransformer

    from paperflows.components.models.pretrained import model_location
    from paperflows.components.retrieval.dense import encode

    theirs = SentenceTransformer(model_location("minilm"), device="cpu")
    theirs.max_seq_length = encoder.max_length
    reference = theirs.encode(texts[:64], normalize_embeddings=True)
    apart = float(np.abs(encode(encoder, texts[:64]) - reference).max())
    times = interleaved(
        {
            "ours": lambda: encode(encoder, texts),
            "batch 32": lambda: theirs.encode(texts, batch_size=32, normalize_embeddings=True),
            "batch 128": lambda: theirs.encode(texts, batch_size=128, normalize_embeddings=True),
        },
        3,
    )
    best = min(times["batch 32"], times["batch 128"])
    return [
        {"what": f"encoding {len(texts)} passages", "value": len(texts) / times["ours"], "unit": "passages/s",
         "ratio": best / times["ours"], "goal": 1.0,
         "to": f"sentence-transformers, its better batch size (largest difference {apart:.0e})"},
    ]  # fmt: skip


def searching(vectors: Any, queries: Any) -> list[dict[str, Any]]:
    """Queries a second of saved and mapped indexes: the vectors, with noise and as often as makes a corpus of them."""
    import faiss
    import numpy as np

    from paperflows.components.retrieval.dense import build_dense, open_dense

    copies = np.tile(vectors, (SEARCHED // len(vectors) + 1, 1))[:SEARCHED]
    many = copies + np.random.default_rng(0).normal(0, 0.3 / copies.shape[1] ** 0.5, copies.shape).astype(np.float32)
    faiss.normalize_L2(many)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("flat", "ivfpq", "hnsw"):
            path = Path(folder) / f"{kind}.faiss"
            build_dense(many, kind).save(path)  # type: ignore[arg-type]
            ours, plain = open_dense(path), faiss.read_index(str(path))
            if kind == "ivfpq":
                plain.nprobe = 16
            if kind == "hnsw":
                plain.hnsw.efSearch = 64
            same = float((ours.search(queries, 50)[1] == plain.search(queries, 50)[1]).mean())
            times = interleaved(
                {
                    "ours": lambda o=ours: [o.search(queries, 50) for _ in range(5)],
                    "faiss": lambda p=plain: [p.search(queries, 50) for _ in range(5)],
                },
                9,
            )
            found.append(
                {"what": f"search, {kind}, {len(many)} vectors", "value": 5 * len(queries) / times["ours"],
                 "unit": "queries/s", "ratio": times["ours"] / times["faiss"], "goal": 1.1,
                 "to": f"the time of plain faiss from memory ({100 * same:.0f} % of results equal)"}
            )  # fmt: skip
    return found


def together(encoder: Any, passages: Any, vectors: Any, questions: list[str]) -> list[dict[str, Any]]:
    """Questions a second through the rounds of verified retrieval.

    The cross-encoder is untrained, so that it sees what a cosine does; no passage reaches its threshold, so that every
    question goes on until nothing more is asked for.
    """
    import numpy as np

    from paperflows.components.retrieval.cross_encoder import new_cross_encoder
    from paperflows.components.retrieval.dense import build_dense, encode
    from paperflows.components.retrieval.names import TitleLinks
    from paperflows.components.retrieval.support import SupportReader
    from paperflows.components.retrieval.verified import Settings, retrieve_verified

    texts, index = [shown(passage) for passage in passages], build_dense(vectors)
    model = new_cross_encoder("minilm", outputs=3, max_length=128, layers=2).eval()
    links = TitleLinks(passage["title"] for passage in passages)

    def run(some: list[str]) -> list[list[int]]:
        known: dict[str, Any] = {}  # each text is encoded once, as in the flow

        def encoded(parts: Any) -> Any:
            new = [part for part in dict.fromkeys(parts) if part not in known]
            known.update(zip(new, encode(encoder, new), strict=True) if new else ())
            return np.stack([known[part] for part in parts]) if len(parts) else vectors[:0]

        def cosine(parts: Any, places: Any) -> Any:
            return (encoded(parts) * vectors[np.asarray(places, np.int64)]).sum(1)

        def score(parts: Any, places: Any) -> Any:
            return 1 / (1 + np.exp(-model.score(parts, [texts[place] for place in places], cosine(parts, places))))

        reader = SupportReader(some, passages, score, cosine, links=links, looks=4, thresholds=(0.5, 1.0))
        found = retrieve_verified(
            some, lambda q, depth: index.search(encoded(q), depth)[1].tolist(), reader,
            Settings(pool=20, window=10, rounds=2),  # the flow goes on for four
        )  # fmt: skip
        return [outcome.chosen for outcome in found]

    chosen: dict[str, list[list[int]]] = {}
    works = {
        "ours": lambda: chosen.update(ours=run(questions)),
        "single": lambda: chosen.update(single=[run([question])[0] for question in questions]),
    }
    times = interleaved(works, 1)
    same = float(np.mean([a == b for a, b in zip(chosen["ours"], chosen["single"], strict=True)]))
    return [
        {"what": f"verified retrieval, two rounds, {len(questions)} questions together", "value": len(questions) / times["ours"],
         "unit": "questions/s", "ratio": times["single"] / times["ours"],
         "to": f"one question after the other ({100 * same:.0f} % chose the same passages)"},
    ]  # fmt: skip


def deciding(encoder: Any, questions: list[str]) -> list[dict[str, Any]]:
    """Milliseconds of one request to the service of UAR's decision, one after the other on one connection."""
    import torch
    import uvicorn

    from paperflows.components.ports import free_port
    from paperflows.components.retrieval.criteria import CriteriaHeads, RetrievalDecider
    from paperflows.components.retrieval.dense import encode
    from paperflows.components.retrieval.service import decision_service

    states = torch.from_numpy(encode(encoder, questions))
    decider = RetrievalDecider(lambda texts: encode(encoder, texts), CriteriaHeads(states.mean(0), states.std(0)))
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(decision_service(decider), port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def ask(text: str) -> None:
        connection.request("POST", "/decide", json.dumps({"text": text}), {"Content-Type": "application/json"})
        assert "retrieve" in json.load(connection.getresponse())

    some = (questions * DECIDED)[:DECIDED]
    times = interleaved(
        {"served": lambda: [ask(text) for text in some], "called": lambda: [decider.decide(text) for text in some]}, 5
    )
    connection.close()
    server.should_exit = True
    thread.join()
    return [
        {"what": "one decision over HTTP", "value": 1000 * times["served"] / len(some), "unit": "ms",
         "ratio": times["served"] / times["called"], "to": "the same decision without HTTP"},
    ]  # fmt: skip
