"""Training of the classifiers of `aspect_models` on frozen word states. Letters as there, E examples."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from paperflows.components.evaluation.statistics import macro_f1
from paperflows.components.syntax.aspect_encoder import WordTable
from paperflows.components.syntax.aspect_models import MODELS
from paperflows.components.syntax.trees import Heads, distances
from paperflows.components.training.batching import Batches
from paperflows.components.training.loop import train


class AspectData:
    """E aspects with the states of their words, the tree distances of their sentences, and their classes.

    Args:
        rows: with `words`, `inside`, `label` and `sentence` (a number into `heads`).
        states: of the words of every row (`aspect_encoder.aspect_states`, or `word_embeddings`).
    """

    def __init__(
        self,
        rows: Sequence[dict[str, Any]],
        heads: Sequence[Heads],
        states: WordTable,
        labels: Sequence[str],
    ) -> None:
        self._table = states
        self.lengths = self._table.lengths
        self._rows = rows
        self._distances = {r["sentence"]: distances(heads[r["sentence"]]) for r in rows}
        self.gold = torch.tensor([labels.index(r["label"]) for r in rows])
        self.classes = len(labels)
        self.width = self._table.flat.shape[-1]

    def batch(self, chosen: NDArray[np.int64]) -> dict[str, Any]:
        """states (B, N, D), mask, aspect (B, N), distance (B, N, N), gold (B,)."""
        states, mask = self._table.pad(chosen)
        count = mask.shape[1]
        distance = np.full((len(chosen), count, count), count, dtype=np.int64)
        aspect = np.zeros((len(chosen), count), dtype=bool)
        for line, i in enumerate(chosen):
            n = len(self._rows[i]["words"])
            distance[line, :n, :n] = self._distances[self._rows[i]["sentence"]]
            aspect[line, self._rows[i]["inside"]] = True
        return {
            "states": states, "mask": mask, "aspect": torch.from_numpy(aspect),
            "distance": torch.from_numpy(distance), "gold": self.gold[chosen], "ids": chosen.tolist(),
        }  # fmt: skip


def train_classifier(
    model: str,
    data: AspectData,
    validation: AspectData,
    *,
    hidden: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    evaluations: int,
    recurrent: bool,
    seed: int,
    device: str,
) -> nn.Module:
    """The classifier with the best validation macro-F1 among `evaluations` of the run.

    Args:
        recurrent: the states are of single words (`aspect_models.WordReader`).
    """
    torch.manual_seed(seed)
    classifier = MODELS[model](data.width, hidden, data.classes, recurrent)
    batches = Batches(batch_size=batch_size, seed=seed, lengths=data.lengths)

    def loss_fn(trained: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(
            trained(batch["states"], batch["mask"], batch["aspect"], batch["distance"]), batch["gold"]
        )

    def evaluate(trained: nn.Module) -> float:
        return float(macro_f1(validation.gold.double().numpy(), predict_classes(trained, validation)))

    train(
        model=classifier, batch_at=lambda step: data.batch(batches.at(step)), loss_fn=loss_fn, steps=steps,
        learning_rate=learning_rate, seed=seed, device=device, evaluate=evaluate,
        evaluate_every=max(1, steps // evaluations),
    )  # fmt: skip
    return classifier


@torch.inference_mode()
def predict_classes(model: nn.Module, data: AspectData) -> NDArray[np.float64]:
    """Class numbers (E,)."""
    out = np.zeros(len(data.lengths))
    device = next(model.parameters()).device
    order = np.argsort(data.lengths, kind="stable")
    for start in range(0, len(order), 128):
        chosen = order[start : start + 128]
        batch = {k: v.to(device) for k, v in data.batch(chosen).items() if isinstance(v, Tensor)}
        logits = model(batch["states"], batch["mask"], batch["aspect"], batch["distance"])
        out[chosen] = logits.argmax(-1).cpu().numpy()
    return out
