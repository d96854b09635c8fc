"""How good the model is that wrote a chain, from other questions: weights for a vote that reads no chain."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from paperflows.components.reasoning.recorded import Question
from paperflows.components.reasoning.verifier import Array, fold_of_chains


def out_of_fold(questions: Sequence[Question], right: NDArray[np.bool_], *, folds: int, seed: int) -> Array | None:
    """(N,) the share of right chains of each chain's model on the questions of the other folds.

    The folds are those of the verifier with the same `folds` and `seed`. A model that wrote nothing there counts as all
    models together. None where the chains name no model, or only one.

    Args:
        right: (N,) which chains are right, question by question.
    """
    names, model = np.unique([name for q in questions for name in q.models], return_inverse=True)
    if len(names) < 2:
        return None
    fold = fold_of_chains(questions, folds, seed)
    weights = np.zeros(len(right))
    for number in np.unique(fold):
        others = fold != number
        average = right[others].mean() if others.any() else 0.5
        for one in range(len(names)):
            known = right[others & (model == one)]
            weights[~others & (model == one)] = known.mean() if len(known) else average
    return weights
