"""Scorers of answers by topic: the encoder with its heads, and what it is compared with."""

from typing import Any

from paperflows.components.errors import InputError
from paperflows.tasks.data import DatasetArtifact, read_rows, read_split
from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import GOLD, OUTPUTS, Artifact, new_artifact, open_artifact
from paperflows.tasks.training import ModelArtifact, fit


class JudgedArtifact(Artifact):
    """Scored answers by split as `judged.<split>.jsonl`, the scores and topics that occur, gold of the test split,
    and whether answers stand beside their prompts.
    """

    scores: list[int]
    topics: list[str]
    paired: bool


@cached_task(name="collect_judged")
def collect_judged(dataset: DatasetArtifact, scores: dict[str, int], limits: dict[str, int]) -> JudgedArtifact:
    """A classification dataset with topics as scored answers.

    Args:
        scores: label -> score, such as safe -> 3.
        limits: most rows of each split, the first ones.
    """
    import numpy as np
    from safetensors.numpy import save_file

    from paperflows.components.data.jsonl import write_jsonl

    found: dict[str, list[dict[str, Any]]] = {}
    for split, limit in limits.items():
        rows = read_split(dataset, split)[:limit]
        for row in rows:
            if str(row["label"]) not in scores or not row.get("topic"):
                raise InputError(
                    f"dataset {dataset['name']!r}, {split}: a row needs `topic` and a label of {[*scores]}"
                )
        found[split] = [{**row, "score": scores[str(row["label"])]} for row in rows]
    values = sorted({row["score"] for row in found["train"]})
    if len(values) < 2:
        raise InputError(f"dataset {dataset['name']!r}: all training rows have the score {values[0]}")
    topics = sorted({row["topic"] for row in found["train"]})
    with new_artifact() as (folder, artifact):
        for split, rows in found.items():
            write_jsonl(folder / f"judged.{split}.jsonl", rows)
        save_file({"judged": np.array([float(row["score"]) for row in found["test"]])}, folder / GOLD)
    paired = any(row.get("text_pair") for row in found["train"])
    return JudgedArtifact(**artifact, scores=values, topics=topics, paired=paired)


class ScoredArtifact(Artifact):
    """Scores of the test answers and their macro-F1 by topic and over all."""

    f1: dict[str, float]


@cached_task(name="train_scorer", task_run_name="scorer-{label}-seed{seed}")
def train_scorer(
    judged: JudgedArtifact,
    encoder: Artifact | str,
    label: str,
    shared: bool,
    max_length: int,
    pairs: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    evaluations: int,
    seed: int,
    device: str,
) -> ModelArtifact:
    """An encoder with a head for each topic, or one head for all (`shared`); validation macro-F1 picks the weights.

    Args:
        pairs: buckets for pairs of neighbouring characters, 0 for none.
    """
    import numpy as np
    import torch
    import torch.nn.functional as F

    from paperflows.components.alignment.scorer import new_scorer
    from paperflows.components.evaluation.statistics import macro_f1
    from paperflows.components.training.batching import Batches

    rows, held_out = _rows(judged, "train"), _rows(judged, "validation")
    name = encoder if isinstance(encoder, str) else str(open_artifact(encoder))
    topics = ["all"] if shared else judged["topics"]
    scorer = new_scorer(name, topics=topics, scores=judged["scores"], max_length=max_length, pairs=pairs, seed=seed)
    table, heads = scorer.table(rows), scorer.heads_of([r["topic"] for r in rows])
    gold = torch.tensor([judged["scores"].index(r["score"]) for r in rows])
    wanted = np.array([float(r["score"]) for r in held_out])
    batches = Batches(batch_size=batch_size, seed=seed, lengths=table.lengths)

    def batch_at(step: int) -> dict[str, Any]:
        chosen = batches.at(step)
        ids, mask = table.pad(chosen)
        return {"tokens": ids, "mask": mask, "head": heads[chosen], "gold": gold[chosen], "ids": chosen.tolist()}

    def loss_fn(trained: Any, batch: Any) -> Any:
        return F.cross_entropy(trained(batch["tokens"], batch["mask"], batch["head"]), batch["gold"])

    def evaluate(trained: Any) -> float:
        return float(macro_f1(wanted, np.array(judged["scores"])[trained.probabilities(held_out).argmax(1)]))

    settings = {"scorer": label, "steps": steps, "learning_rate": learning_rate, "seed": seed}
    title = f"scorer-{label}-seed{seed}"
    done = fit(
        title, settings, scorer, batch_at, loss_fn, steps, learning_rate, seed, device,
        evaluate=evaluate, evaluate_every=max(1, steps // evaluations),
    )  # fmt: skip
    with new_artifact() as (folder, artifact):
        scorer.cpu().save(folder)
    return ModelArtifact(**artifact, name=title, score=done.best_score, history=done.history)


@cached_task(name="test_scorer")
def test_scorer(judged: JudgedArtifact, scorer: Artifact, device: str) -> ScoredArtifact:
    """The trained scorer on the test answers."""
    import numpy as np

    from paperflows.components.alignment.scorer import load_scorer
    from paperflows.components.training.device import accelerator

    rows = _rows(judged, "test")
    loaded = load_scorer(open_artifact(scorer)).to(accelerator(device).device)
    classes = loaded.probabilities(rows).argmax(1)
    return _scored(judged, rows, np.array(judged["scores"])[classes])


@cached_task(name="test_majority")
def test_majority(judged: JudgedArtifact) -> ScoredArtifact:
    """The most frequent training score of each topic, whatever the answer says."""
    import numpy as np

    counts: dict[str, dict[int, int]] = {topic: {} for topic in judged["topics"]}
    for row in _rows(judged, "train"):
        counts[row["topic"]][row["score"]] = counts[row["topic"]].get(row["score"], 0) + 1
    best = {topic: max(sorted(found), key=found.__getitem__) for topic, found in counts.items()}
    rows = _rows(judged, "test")
    return _scored(judged, rows, np.array([best[row["topic"]] for row in rows]))


@cached_task(name="test_tfidf")
def test_tfidf(judged: JudgedArtifact, ngrams: int, strengths: list[float]) -> ScoredArtifact:
    """TF-IDF of characters' n-grams with logistic regression; validation macro-F1 picks the regularisation.

    Args:
        ngrams: longest n-gram.
        strengths: inverse regularisation strengths that are tried.
    """
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    from paperflows.components.evaluation.statistics import macro_f1

    splits = {split: _rows(judged, split) for split in ("train", "validation", "test")}
    texts = {s: [f"{r['text']}\n{r.get('text_pair') or ''}" for r in rows] for s, rows in splits.items()}
    gold = {s: np.array([float(r["score"]) for r in rows]) for s, rows in splits.items()}
    vectors = TfidfVectorizer(analyzer="char", ngram_range=(1, ngrams), min_df=2, sublinear_tf=True)
    train = vectors.fit_transform(texts["train"])
    held_out = vectors.transform(texts["validation"])
    fitted = [LogisticRegression(C=c, max_iter=300).fit(train, gold["train"]) for c in strengths]
    best = max(fitted, key=lambda model: float(macro_f1(gold["validation"], model.predict(held_out))))
    return _scored(judged, splits["test"], best.predict(vectors.transform(texts["test"])))


def _rows(judged: JudgedArtifact, split: str) -> list[dict[str, Any]]:
    return read_rows(open_artifact(judged) / f"judged.{split}.jsonl")


def _scored(judged: JudgedArtifact, rows: list[dict[str, Any]], scores: Any) -> ScoredArtifact:
    import numpy as np
    from safetensors.numpy import save_file

    from paperflows.components.evaluation.statistics import macro_f1

    gold = np.array([float(r["score"]) for r in rows])
    scores = np.asarray(scores, dtype=np.float64)
    f1 = {"all": float(macro_f1(gold, scores))}
    for topic in judged["topics"]:
        chosen = np.array([r["topic"] == topic for r in rows])
        if chosen.any():
            f1[topic] = float(macro_f1(gold[chosen], scores[chosen]))
    with new_artifact() as (folder, artifact):
        save_file({"judged": scores}, folder / OUTPUTS)
    return ScoredArtifact(**artifact, f1=f1)
