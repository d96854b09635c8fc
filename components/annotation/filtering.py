"""What is kept of annotated pairs (DINO's post-processing, as CLAIF uses it), and DINO's hard grades."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Annotated:
    """A pair as writer and judge left it; `text_pair` or `score` is None where one of them failed."""

    text: str
    text_pair: str | None
    score: float | None
    explanation: str = ""
    rate: float = 0.0


def post_process(
    pairs: Sequence[Annotated], *, identity_share: float, random_share: float, seed: int
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Rows to train on and the count of every reason for which a pair was dropped or added.

    Dropped: nothing written, not scored, the same sentence again (case and space ignored), a pair seen before. Added,
    as shares of what is kept: sentences with themselves at similarity 1, and two sentences drawn at random at 0.
    """
    counts: Counter[str] = Counter(dict.fromkeys(("written", "empty", "unparsable", "identical", "duplicate"), 0))
    seen: set[tuple[str, str]] = set()
    rows: list[dict[str, Any]] = []
    for pair in pairs:
        counts["written"] += 1
        if not pair.text_pair or not pair.text_pair.strip():
            counts["empty"] += 1
            continue
        key = (_fold(pair.text), _fold(pair.text_pair))
        if pair.score is None:
            counts["unparsable"] += 1
        elif key[0] == key[1]:
            counts["identical"] += 1
        elif key in seen:
            counts["duplicate"] += 1
        else:
            seen.add(key)
            rows.append({**asdict(pair), "source": "written"})
    counts["kept"] = len(rows)
    sentences = list(dict.fromkeys(pair.text for pair in pairs))
    draw = random.Random(seed)
    extra = [
        _added(text, text, 1.0, "identity") for text in draw.choices(sentences, k=round(identity_share * len(rows)))
    ]
    if len(sentences) > 1:
        for _ in range(round(random_share * len(rows))):
            first, second = draw.sample(sentences, 2)
            extra.append(_added(first, second, 0.0, "random"))
    counts.update(row["source"] for row in extra)
    return rows + extra, dict(counts)


def hard_label(score: float, low: float, high: float) -> float:
    """DINO's grades (Schick and Schuetze 2021): 0 below `low`, 1 from `high` on, 0.5 between."""
    return 0.0 if score < low else 1.0 if score >= high else 0.5


def _added(text: str, text_pair: str, score: float, source: str) -> dict[str, Any]:
    return {**asdict(Annotated(text, text_pair, score)), "source": source}


def _fold(text: str) -> str:
    return " ".join(text.casefold().split())
