"""Encoding beside sentence-transformers, search beside plain faiss, and 64 questions together beside one by one."""

import tempfile
from pathlib import Path
from typing import Any

from measure import interleaved


def figures() -> list[dict[str, Any]]:
    """All figures of this section."""
    from paperflows.components.data.sources import load
    from paperflows.components.models.encoder import load_encoder
    from paperflows.components.retrieval.dense import encode

    splits = load("builtin", "world_documents").splits
    texts = [f"{row['title']}: {row['text']}" for row in splits["passages"]][::5]
    questions = [row["question"] for row in splits["test"]]
    encoder = load_encoder("minilm", device="cpu")
    vectors, queries = encode(encoder, texts), encode(encoder, questions)
    return [*encoding(encoder, texts[:800]), *searching(vectors, queries), *together(encoder, splits, texts, vectors)]


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
    """Queries a second of saved and mapped indexes."""
    import faiss

    from paperflows.components.retrieval.dense import build_dense, open_dense

    found = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("flat", "ivfpq", "hnsw"):
            path = Path(folder) / f"{kind}.faiss"
            build_dense(vectors, kind).save(path)  # type: ignore[arg-type]
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
                {"what": f"search, {kind}, {len(vectors)} passages", "value": 5 * len(queries) / times["ours"],
                 "unit": "queries/s", "ratio": times["ours"] / times["faiss"], "goal": 1.1,
                 "to": f"the time of plain faiss from memory ({100 * same:.0f} % of results equal)"}
            )  # fmt: skip
    return found


def together(encoder: Any, splits: Any, texts: list[str], vectors: Any) -> list[dict[str, Any]]:
    """Questions a second through all rounds of verified retrieval."""
    import numpy as np

    from paperflows.components.retrieval.cross_encoder import new_cross_encoder
    from paperflows.components.retrieval.dense import build_dense, encode
    from paperflows.components.retrieval.names import TitleLinks
    from paperflows.components.retrieval.support import SupportReader
    from paperflows.components.retrieval.verified import Settings, retrieve_verified

    passages, index = splits["passages"][::5], build_dense(vectors)
    questions = [row["question"] for row in splits["test"] if row["relation"] == "chain"][:64]
    model = new_cross_encoder("minilm", outputs=2, max_length=128).eval()
    links = TitleLinks(passage["title"] for passage in passages)

    def run(some: list[str]) -> list[list[int]]:
        def similar(parts: Any, places: Any) -> Any:
            distinct = list(dict.fromkeys(parts))
            rows = dict(zip(distinct, encode(encoder, distinct), strict=True)) if distinct else {}
            return np.array(
                [rows[part] @ vectors[place] for part, place in zip(parts, places, strict=True)], np.float32
            )

        def score(parts: Any, places: Any) -> Any:
            logits = model.score(parts, [texts[place] for place in places], similar(parts, places))
            return 1 / (1 + np.exp(-logits))

        reader = SupportReader(some, passages, score, similar, links=links, looks=8)
        found = retrieve_verified(
            some, lambda q, depth: index.search(encode(encoder, q), depth)[1].tolist(), reader,
            Settings(pool=30, window=15, rounds=3),
        )  # fmt: skip
        return [outcome.chosen for outcome in found]

    batched, single = run(questions), [run([question])[0] for question in questions]
    same = float(np.mean([a == b for a, b in zip(batched, single, strict=True)]))
    times = interleaved({"ours": lambda: run(questions), "single": lambda: [run([q]) for q in questions]}, 1)
    return [
        {"what": "verified retrieval, 64 questions together", "value": len(questions) / times["ours"],
         "unit": "questions/s", "ratio": times["single"] / times["ours"],
         "to": f"one question after the other ({100 * same:.0f} % chose the same passages)"},
    ]  # fmt: skip
