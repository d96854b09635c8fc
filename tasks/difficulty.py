"""The learnability study: can a model foresee from the text where another one errs?"""

from typing import Any

from paperflows.components.errors import InputError
from paperflows.tasks.data import DatasetArtifact, read_dataset, read_split
from paperflows.tasks.exits import ExitsArtifact
from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import OUTPUTS, new_artifact, open_artifact


@cached_task(name="study_difficulty")
def study_difficulty(
    data: DatasetArtifact | None, exits: ExitsArtifact, task: DatasetArtifact, evaluated: int, examples: int
) -> dict[str, Any]:
    """Predict from the text where a model errs (and where annotators disagree), against each layer's majority.

    Args:
        data: a dataset with splits model_* (`correct` bits) and human_* (easy or hard); None takes the bits of `exits`,
            predictors learnt on validation and judged on test.
        examples: most texts that a predictor learns from, the first ones.

    Returns:
        Artifacts of per-text outputs (predictor, majority; human: right or not) and the measures.
    """
    import numpy as np
    from safetensors.numpy import save_file

    from paperflows.components.early_exit import difficulty

    model, human, name = _splits(data, exits, task, evaluated)
    measures: dict[str, float] = {}
    result: dict[str, Any] = {"name": name, "measures": measures}

    def best(kind: str, train: Any, validation: Any, test: Any) -> Any:
        train = train[0][:examples], train[1][:examples]
        texts = [_texts(rows) for rows in (train[0], validation[0], test[0])]
        features = {"words": difficulty.bag_of_words(texts[0], texts[1:]), "embeddings": _embeddings(texts)}
        said = {}
        for which, (x, y, z) in features.items():
            learnt = difficulty.predict_bits(x, train[1], y)
            said[which] = float((learnt == validation[1]).mean()), difficulty.predict_bits(x, train[1], z)
        chosen = max(said, key=lambda which: said[which][0])
        for which, (_, predicted) in said.items():
            told = difficulty.bit_measures(test[1], predicted)
            measures.update({f"{kind}.{which}.{key}": value for key, value in told.items()})
        return said[chosen][1]

    predicted = best("model", *model)
    truth, floor = model[2][1], difficulty.majority_bits(model[0][1], len(model[2][1]))
    measures.update({f"model.majority.{k}": v for k, v in difficulty.bit_measures(truth, floor).items()})
    outputs = {"predictor": (predicted == truth).mean(1), "majority": (floor == truth).mean(1)}
    if human:
        said = best("human", *human)
        outputs["human"] = (said == human[2][1]).mean(1)
        outputs["coin"] = np.full(len(said), 0.5)
    for key, value in outputs.items():
        with new_artifact() as (folder, artifact):
            save_file({name: value.astype(np.float64)}, folder / OUTPUTS)
        result[key] = artifact
    return result


def _splits(data: Any, exits: Any, task: Any, evaluated: int) -> tuple[Any, Any, str]:
    """(rows, bits) of train, validation and test for the model's bits and, where given, the annotators' labels."""
    import numpy as np
    from safetensors.torch import load_file

    from paperflows.components.early_exit import sentences

    if data is not None:
        splits = read_dataset(data)
        missing = [s for s in ("model_train", "model_test", "human_train", "human_test") if s not in splits]
        if missing:
            raise InputError(f"dataset {data['name']!r}: a study of difficulty needs the split {missing[0]}")

        def part(kind: str, split: str) -> Any:
            rows = splits[f"{kind}_{split}"]
            bits = [r["correct"] for r in rows] if kind == "model" else [[r["label"] == "hard"] for r in rows]
            return rows, np.array(bits, dtype=np.float64)

        return *([part(k, s) for s in ("train", "validation", "test")] for k in ("model", "human")), data["name"]
    folder, parts = open_artifact(exits), {}
    for split in ("validation", "test"):
        signals = load_file(folder / f"{split}.safetensors")
        bits = (signals["logits"].argmax(-1) == signals["target"][:, None]).double().numpy()
        parts[split] = sentences.sample(read_split(task, split), evaluated, seed=0), bits
    rows, bits = parts["validation"]
    cut = max(1, len(rows) // 5)
    return [(rows[cut:], bits[cut:]), (rows[:cut], bits[:cut]), parts["test"]], None, task["name"]


def _texts(rows: Any) -> list[str]:
    return [f"{row['text']} {row.get('text_pair') or ''}" for row in rows]


def _embeddings(texts: list[list[str]]) -> list[Any]:
    """MiniLM's sentence embeddings, scaled to unit variance a coordinate."""
    from paperflows.components.models.encoder import load_encoder

    encoder = load_encoder("minilm", device="cpu")
    vectors = [encoder.embed(one).numpy() for one in texts]
    scale = vectors[0].std(0) + 1e-6
    return [v / scale for v in vectors]
