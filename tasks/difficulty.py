"""The learnability study: can a model foresee from the text where another one errs?"""

from typing import Any

from paperflows.components.errors import InputError
from paperflows.tasks.data import DatasetArtifact, read_dataset, read_split
from paperflows.tasks.exits import ExitsArtifact
from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import OUTPUTS, Artifact, new_artifact, open_artifact
from paperflows.tasks.training import fit

BITS = "bits.safetensors"


@cached_task(name="foresee_errors", task_run_name="foresee_errors-{kind}")
def foresee_errors(
    kind: str, start: Artifact, data: DatasetArtifact | None, exits: ExitsArtifact, task: DatasetArtifact,
    evaluated: int, examples: int, training: dict[str, Any], seed: int, device: str,
) -> Artifact:  # fmt: skip
    """The encoder `start` fine-tuned to say a text's bits, by binary cross-entropy: its bits on validation and test.

    Args:
        kind: "model" or "human"; data, exits, task, evaluated and examples as in `study_difficulty`.
        training: max_length, pooling, freeze_embeddings, steps, batch_size, learning_rate, head_rate.
    """
    import torch
    import torch.nn.functional as F
    from safetensors.torch import save_file

    from paperflows.components.early_exit.encoder import load_exit_encoder
    from paperflows.components.early_exit.exits import MultiExitClassifier
    from paperflows.components.early_exit.sentences import LabelledTexts, exit_signals
    from paperflows.components.models.pretrained import load_tokenizer
    from paperflows.components.training.batching import Batches, TokenTable
    from paperflows.components.training.device import bf16_is_fast

    t, folder, bf16 = training, str(open_artifact(start)), bf16_is_fast(device)
    model_bits, human_bits, _ = _splits(data, exits, task, evaluated)
    train, *others = model_bits if kind == "model" else human_bits
    tokenizer = load_tokenizer(folder)

    def table(rows: Any, bits: Any) -> LabelledTexts:
        pairs = [row["text_pair"] for row in rows] if rows[0].get("text_pair") else None
        texts = TokenTable.from_texts([row["text"] for row in rows], tokenizer, max_length=t["max_length"], pairs=pairs)
        return LabelledTexts(texts, torch.from_numpy(bits).float())

    torch.manual_seed(seed)
    encoder = load_exit_encoder(
        folder, separator=tokenizer.sep_token_id, depth=None, freeze_embeddings=t["freeze_embeddings"]
    )
    model = MultiExitClassifier(encoder, outputs=train[1].shape[1], pooling=t["pooling"])
    texts = table(train[0][:examples], train[1][:examples])
    batches = Batches(batch_size=t["batch_size"], seed=seed, lengths=texts.table.lengths)

    def loss_fn(trained: Any, batch: Any) -> Any:
        with torch.autocast(batch["tokens"].device.type, dtype=torch.bfloat16, enabled=bf16):
            (logits,), _ = trained(batch["tokens"], batch["mask"], only=[encoder.depth - 1])
        return F.binary_cross_entropy_with_logits(logits.float(), batch["target"])

    fit(
        f"foresee-{kind}", {"kind": kind, "seed": seed, **t}, model, lambda step: texts.batch(batches.at(step)),
        loss_fn, t["steps"], t["learning_rate"], seed, device, rates={"exits.": t["head_rate"]},
    )  # fmt: skip
    said = {
        split: (exit_signals(model, table(*some), bf16=bf16)["logits"][:, -1] > 0).double()
        for split, some in zip(("validation", "test"), others, strict=True)
    }
    with new_artifact() as (out, artifact):
        save_file(said, out / BITS)
    return artifact


@cached_task(name="study_difficulty")
def study_difficulty(
    data: DatasetArtifact | None, exits: ExitsArtifact, task: DatasetArtifact, evaluated: int, examples: int,
    tuned: dict[str, Artifact],
) -> dict[str, Any]:  # fmt: skip
    """Predict from the text where a model errs (and where annotators disagree), against each layer's majority.

    Args:
        data: a dataset with splits model_* (`correct` bits) and human_* (easy or hard); None takes the bits of `exits`,
            predictors learnt on validation and judged on test.
        examples: most texts that a predictor learns from, the first ones.
        tuned: kind -> of `foresee_errors`.

    Returns:
        Artifacts of per-text outputs (predictor, majority; human: right or not) and the measures.
    """
    import numpy as np
    from safetensors.numpy import load_file, save_file

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
        bits = load_file(open_artifact(tuned[kind]) / BITS)
        said["fine-tuned"] = float((bits["validation"] == validation[1]).mean()), bits["test"]
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
