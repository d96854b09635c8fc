"""A verifier of reasoning chains, trained on other questions' chains: the judge where no language model is at hand.

N chains, F features. Folds are by topic, so that no chain is judged by a model that saw its question.
"""

import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from paperflows.components.reasoning.answers import as_number, is_correct
from paperflows.components.reasoning.arithmetic import equations
from paperflows.components.reasoning.recorded import Question, count_steps

Array = NDArray[np.float64]
Method = Literal["trees", "pairwise"]
FEATURES = (
    "equations", "wrong", "wrong_share", "numbers_used", "numbers_unused", "ends_in_answer", "integer", "negative",
    "magnitude", "answer_in_question", "steps", "length", "answered", "distinct_numbers",
)  # fmt: skip


def features(question: str, chain: str, answer: str | None) -> list[float]:
    """(F,) what a chain says, without its model, its prompt or how many others agree."""
    stated = equations(chain)
    checked = [e for e in stated if e.holds is not None]
    wrong = sum(not e.holds for e in checked)
    asked = set(re.findall(r"\d+(?:\.\d+)?", question.replace(",", "")))
    said = set(re.findall(r"\d+(?:\.\d+)?", chain.replace(",", "")))
    value = as_number(answer) if answer else None
    ends = bool(stated) and value is not None and abs(stated[-1].stated - value) < 1e-6
    return [
        len(stated), wrong, wrong / max(1, len(checked)), len(asked & said) / max(1, len(asked)), len(asked - said),
        float(ends), float(value is not None and value == int(value)), float(value is not None and value < 0),
        float(np.log1p(min(abs(value), 1e12))) if value is not None else -1.0, float(bool(answer) and answer in asked),
        count_steps(chain), float(len(chain)), float(answer is not None), len(said),
    ]  # fmt: skip


def evidence(questions: Sequence[Question]) -> Array:
    """(N, 2) how the question's other chains agree: share with the same answer, mean share with the chain's numbers."""
    rows = []
    for question in questions:
        numbers = [set(re.findall(r"\d+(?:\.\d+)?", chain.text)) for chain in question.chains]
        for chain, mine in zip(question.chains, numbers, strict=True):
            others = [c for c in question.chains if c.number != chain.number]
            same = sum(c.answer is not None and c.answer == chain.answer for c in others) / max(1, len(others))
            seen = [sum(n in theirs for theirs in numbers) - 1 for n in mine]
            rows.append([same, float(np.mean(seen)) / max(1, len(others)) if seen else 0.0])
    return np.array(rows)


def fold_of_each(questions: Sequence[Question], folds: int, random: np.random.Generator) -> NDArray[np.int64]:
    """(Q,) the fold of each question, drawn by topic."""
    topics = {topic: i for i, topic in enumerate(dict.fromkeys(q.topic for q in questions))}
    fold_of_topic = random.permutation(len(topics)) % folds
    return np.array([fold_of_topic[topics[q.topic]] for q in questions])


def fold_of_chains(questions: Sequence[Question], folds: int, seed: int) -> NDArray[np.int64]:
    """(N,) the fold of each chain's question; the same for every judge with these `folds` and `seed`."""
    return fold_of_each(questions, folds, np.random.default_rng(seed))[owners(questions)]


def out_of_fold(
    questions: Sequence[Question],
    inputs: Array,
    right: NDArray[np.bool_],
    *,
    method: Method,
    folds: int,
    seed: int,
    share: float = 1.0,
) -> Array:
    """(N,) the verifier's score of each chain, from a model trained on other topics.

    Args:
        inputs: (N, F) features of all chains, question by question.
        right: (N,) which chains are right; those of a fold are not seen by its model.
        method: "trees" classifies chains (gradient boosting); "pairwise" ranks right chains above wrong ones of the
            same question (logistic regression on differences of features).
        share: of the training questions used, for learning curves.

    Where all chains to learn from are right, or none (pairwise: in each question), those of the fold score alike.
    """
    random = np.random.default_rng(seed)
    owner = owners(questions)
    fold = fold_of_each(questions, folds, random)
    scores = np.zeros(len(owner))
    for number in range(folds):
        training = np.flatnonzero(fold != number)
        if share < 1:
            training = random.choice(training, max(2, round(share * len(training))), replace=False)
        learn, held = np.isin(owner, training), fold[owner] == number
        if method == "trees" and len(np.unique(right[learn])) < 2:
            scores[held] = right[learn].mean() if learn.any() else 0.5
            continue
        fit = _fit_trees if method == "trees" else fit_pairs
        scores[held] = fit(inputs[learn], right[learn], owner[learn], seed)(inputs[held])
    return scores if method == "trees" else align(scores, fold[owner])


def align(scores: Array, fold: NDArray[np.int64]) -> Array:
    """(N,) scores of mean 0 and deviation 1 in each fold (N,): pairs leave open where a model's scores lie."""
    aligned = np.zeros(len(scores))
    for number in np.unique(fold):
        held = fold == number
        aligned[held] = (scores[held] - scores[held].mean()) / (scores[held].std() + 1e-9)
    return aligned


def calibrate(scores: Array, right: NDArray[np.bool_], fold: NDArray[np.int64]) -> Array:
    """(N,) the share of right chains at each score, by isotonic regression on the chains of all other folds.

    A fold's own answers enter through the models of the other folds alone, which learnt from them: its chances are not
    free of them as its scores are, but a curve of one variable is all they can shape. Never 0 or 1; 0.5 where there is
    no other fold.

    Args:
        scores: (N,) out of fold, aligned.
        fold: (N,) of each chain.
    """
    from sklearn.isotonic import IsotonicRegression

    chance = np.full(len(scores), 0.5)
    for number in np.unique(fold):
        held = fold == number
        if not held.all():
            learnt = IsotonicRegression(out_of_bounds="clip").fit(scores[~held], right[~held].astype(float))
            chance[held] = learnt.predict(scores[held])
    return np.clip(chance, 1e-3, 1 - 1e-3)


def owners(questions: Sequence[Question]) -> NDArray[np.int64]:
    """(N,) the question of each chain."""
    return np.repeat(np.arange(len(questions)), [len(q.chains) for q in questions])


def draw_pairs(
    owner: NDArray[np.int64], right: NDArray[np.bool_], count: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """(count, 2) a right and a wrong chain of one question each, questions drawn evenly; (0, 2) where none has both.

    Args:
        owner: (N,) the question of each chain.
        right: (N,) which chains are right.
    """
    order = np.lexsort((~right, owner))  # a question's chains stand together, its right ones first
    sizes, goods = np.bincount(owner), np.bincount(owner, weights=right).astype(np.int64)
    starts, mixed = np.cumsum(sizes) - sizes, np.flatnonzero((goods > 0) & (goods < sizes))
    if not len(mixed):
        return np.zeros((0, 2), np.int64)
    asked = random.choice(mixed, count)
    good = starts[asked] + random.integers(0, goods[asked])
    bad = starts[asked] + random.integers(goods[asked], sizes[asked])
    return np.stack([order[good], order[bad]], axis=1)


def auc(scores: Array, right: NDArray[np.bool_]) -> float | None:
    """Probability that a right chain scores above a wrong one, over all chains; None where all are right, or none."""
    from sklearn.metrics import roc_auc_score

    if right.all() or not right.any():
        return None
    return float(roc_auc_score(right, scores))


def to_points(scores: Array) -> Array:
    """(N,) 0-10 by quantile, equal scores alike: what a judge with this ranking would give."""
    from scipy.stats import rankdata

    return 10 * (rankdata(scores) - 0.5) / len(scores)


def correct(questions: Sequence[Question], kind: Any) -> NDArray[np.bool_]:
    """(N,) which chains give the right answer."""
    return np.array([is_correct(c.answer, q.gold, kind) for q in questions for c in q.chains])


def _fit_trees(x: Array, y: NDArray[np.bool_], owner: NDArray[np.int64], seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        max_iter=150, learning_rate=0.08, max_leaf_nodes=15, l2_regularization=1.0, random_state=seed
    ).fit(x, y)
    return lambda rows: model.predict_proba(rows)[:, 1]


def fit_pairs(x: Array, y: NDArray[np.bool_], owner: NDArray[np.int64], seed: int) -> Any:
    """A function from features (M, F) to scores (M,), by logistic regression on right against wrong chains."""
    from sklearn.linear_model import LogisticRegression

    centre, scale = x.mean(0), x.std(0) + 1e-9
    z = (x - centre) / scale
    random = np.random.default_rng(seed)
    good, bad = [], []
    for question in np.unique(owner):
        rights, wrongs = np.flatnonzero((owner == question) & y), np.flatnonzero((owner == question) & ~y)
        if len(rights) and len(wrongs):
            pairs = min(20, len(rights) * len(wrongs))
            good.append(random.choice(rights, pairs))
            bad.append(random.choice(wrongs, pairs))
    if not good:
        return lambda rows: np.zeros(len(rows))
    difference = z[np.concatenate(good)] - z[np.concatenate(bad)]
    sign = random.random(len(difference)) < 0.5
    model = LogisticRegression(fit_intercept=False, C=0.1, max_iter=500)
    model.fit(np.where(sign[:, None], difference, -difference), sign)
    return lambda rows: ((rows - centre) / scale) @ model.coef_[0]
