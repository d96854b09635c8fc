"""BERTScore beside the bert-score package, and impact matrices beside the loop over single maskings."""

import os
import random
from typing import Any

from measure import interleaved


def figures() -> list[dict[str, Any]]:
    """All figures of this section."""
    return [*bert_score_pairs(), *impact()]


def bert_score_pairs(references_count: int = 1000) -> list[dict[str, Any]]:
    """10,000 pairs: 1,000 references, ten candidates each, as ten systems give them; same model, layer and scores."""
    import bert_score as package
    import torch

    from paperflows.components.data.sources import load
    from paperflows.components.generation_metrics.matching import bert_score
    from paperflows.components.generation_metrics.token_states import load_token_encoder
    from paperflows.components.models.pretrained import model_location

    data, name = (
        os.environ.get("PAPERFLOWS_DATA", "builtin"),
        "stsb" if "PAPERFLOWS_DATA" in os.environ else "world_sts",
    )
    texts = [t for row in load(data, name).splits["train"] for t in (row["text"], row["text_pair"])]
    texts = list(dict.fromkeys(text for text in texts if len(text.split()) <= 12))
    random.Random(0).shuffle(texts)
    count = references_count
    references, candidates = texts[:count], texts[count:]
    pairs = [(candidates[(i * count + j) % len(candidates)], references[j]) for i in range(10) for j in range(count)]
    encoder = load_token_encoder("minilm", layer=6)
    scorer = package.BERTScorer(model_type=model_location("minilm"), num_layers=6, device="cpu")

    def theirs(part: list[tuple[str, str]]) -> torch.Tensor:
        return torch.stack(scorer.score([c for c, _ in part], [r for _, r in part]), 1)

    def by_system() -> None:
        for start in range(0, len(pairs), count):
            theirs(pairs[start : start + count])

    ours, reference = bert_score(encoder, pairs), theirs(pairs)
    # beside padding the package takes 0 for a negative best match: then its score depends on the other pairs
    close = float(((ours - reference).abs().amax(1) < 1e-4).float().mean())
    alone = torch.cat([theirs([pair]) for pair in pairs[:50]])
    exact = float((ours[:50] - alone).abs().max())
    works = {"ours": lambda: bert_score(encoder, pairs), "one call": lambda: theirs(pairs), "ten calls": by_system}
    times = interleaved(works, 1, warm_up=False)  # each has run above
    one = f"bert-score package, all pairs in one call ({100 * close:.1f} % of scores within 1e-4)"
    ten = f"bert-score package, a call a system (a pair a batch: largest difference {exact:.0e})"
    return [
        {"what": f"BERTScore of {len(pairs):,} pairs, {name}", "value": len(pairs) / times["ours"], "unit": "pairs/s",
         "ratio": times["one call"] / times["ours"], "to": one},
        {"what": f"BERTScore of {len(pairs):,} pairs of ten systems, {name}", "value": len(pairs) / times["ours"], "unit": "pairs/s",
         "ratio": times["ten calls"] / times["ours"], "to": ten, "goal": 3.0},
    ]  # fmt: skip


def impact(count: int = 12) -> list[dict[str, Any]]:
    """Sentences a second of the batched impact matrices and of one masking after the other."""
    import numpy as np
    import torch
    from transformers import AutoModel

    from paperflows.components.data.sources import load
    from paperflows.components.models.pretrained import load_pretrained, load_tokenizer
    from paperflows.components.syntax.perturbed_masking import impact_matrices
    from paperflows.components.syntax.words import pieces_of, pooling_matrix

    rows = load("builtin", "world_trees").splits["test"]
    sentences = [row["tokens"] for row in rows if 8 <= len(row["tokens"]) <= 14][:count]
    model, tokenizer = load_pretrained(AutoModel, "minilm").eval(), load_tokenizer("minilm")

    @torch.inference_mode()
    def loop() -> list[Any]:
        found = []
        for words, (ids, owner) in zip(sentences, pieces_of(tokenizer, sentences), strict=True):
            n, pool = len(words), torch.from_numpy(pooling_matrix(owner, len(words)))

            def state(word: int, masked: tuple[int, ...], ids: Any = ids, owner: Any = owner, pool: Any = pool) -> Any:
                row = torch.tensor(np.where(np.isin(owner, masked), tokenizer.mask_token_id, ids))[None]
                return pool[word] @ model(input_ids=row).last_hidden_state[0]

            matrix = np.zeros((n, n), np.float32)
            for i in range(n):
                alone = state(i, (i,))
                for j in range(n):
                    if i != j:
                        matrix[i, j] = float((alone - state(i, (i, j))).norm())
            found.append(matrix)
        return found

    batched, single = impact_matrices(model, tokenizer, sentences), loop()
    equal = max(float(np.abs(a - b).max()) for a, b in zip(batched, single, strict=True))
    works = {"ours": lambda: impact_matrices(model, tokenizer, sentences), "loop": loop}
    times = interleaved(works, 2, warm_up=False)  # both have run above
    return [
        {"what": "impact matrices of sentences of 8 to 14 words", "value": len(sentences) / times["ours"],
         "unit": "sentences/s", "ratio": times["loop"] / times["ours"], "goal": 10.0,
         "to": f"the loop over single maskings (largest difference {equal:.0e})"},
    ]  # fmt: skip
