"""Trees of sentences: induced, parsed, or made of nothing; and what they are worth on a treebank."""

from typing import Any

from paperflows.components.errors import InputError
from paperflows.tasks.data import DatasetArtifact, read_rows, read_split
from paperflows.tasks.policy import cached_task
from paperflows.tasks.progress import progress
from paperflows.tasks.store import OUTPUTS, Artifact, new_artifact, open_artifact
from paperflows.tasks.training import ModelArtifact, fit


@cached_task(name="collect_treebank")
def collect_treebank(dataset: DatasetArtifact, max_words: int, limit: int) -> Artifact:
    """`limit` random test sentences of 3 to `max_words` words with their gold heads (`sentences.jsonl`)."""
    from paperflows.components.data.jsonl import write_jsonl

    rows = _some([r for r in read_split(dataset, "test") if 3 <= len(r["tokens"]) <= max_words], limit, 0)
    if not rows or any(r.get("heads") is None for r in rows):
        raise InputError(f"dataset {dataset['name']!r}: the test split needs `heads`, in sentences of 3 words and more")
    with new_artifact() as (folder, artifact):
        found = [{"words": r["tokens"], "heads": [h - 1 for h in r["heads"]]} for r in rows]
        write_jsonl(folder / "sentences.jsonl", found)
    return artifact


@cached_task(name="induce_trees", task_run_name="induce_trees-{label}")
def induce_trees(
    sentences: Artifact, model: Artifact | str, layer: int, decoder: str, label: str, device: str
) -> Artifact:
    """Trees from the impact matrices of a pretrained (name) or fine-tuned (artifact) encoder (`trees.jsonl`).

    Args:
        layer: whose states are compared, from 1.
        decoder: "mst" (Chu-Liu/Edmonds) or "projective" (Eisner).
    """
    import numpy as np

    from paperflows.components.data.jsonl import write_jsonl
    from paperflows.components.models.adapters import keep_layers
    from paperflows.components.syntax.aspect_encoder import load_aspect_encoder
    from paperflows.components.syntax.perturbed_masking import impact_matrices
    from paperflows.components.syntax.trees import chu_liu_edmonds, eisner

    loaded = load_aspect_encoder(model if isinstance(model, str) else str(open_artifact(model)), device=device)
    keep_layers(loaded.model, layer)
    words = [row["words"] for row in read_rows(open_artifact(sentences) / "sentences.jsonl")]
    decode = {"mst": chu_liu_edmonds, "projective": eisner}[decoder]
    trees: list[dict[str, Any]] = []
    with progress(f"trees {label}") as report:
        for start in range(0, len(words), 50):
            for matrix in impact_matrices(loaded.model, loaded.tokenizer, words[start : start + 50]):
                trees.append({"heads": decode(matrix.T, np.zeros(len(matrix))).tolist()})
            report(len(trees), len(words))
    with new_artifact() as (folder, artifact):
        write_jsonl(folder / "trees.jsonl", trees)
    return artifact


@cached_task(name="control_trees", task_run_name="control_trees-{kind}")
def control_trees(sentences: Artifact, kind: str, seed: int) -> Artifact:
    """Trees that know nothing: "left_chain" or "random"."""
    import numpy as np

    from paperflows.components.data.jsonl import write_jsonl
    from paperflows.components.syntax.trees import chain, random_tree

    random = np.random.default_rng(seed)
    lengths = [len(row["words"]) for row in read_rows(open_artifact(sentences) / "sentences.jsonl")]
    make = {"left_chain": chain, "random": lambda n: random_tree(n, random)}[kind]
    with new_artifact() as (folder, artifact):
        write_jsonl(folder / "trees.jsonl", [{"heads": make(n).tolist()} for n in lengths])
    return artifact


@cached_task(name="train_parser")
def train_parser(
    treebank: DatasetArtifact,
    model: str,
    hidden: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    limit: int,
    seed: int,
    device: str,
) -> ModelArtifact:
    """A biaffine parser on the frozen states of all layers of an encoder, trained on the treebank's train split.

    Args:
        limit: training sentences, drawn at random.

    Raises:
        InputError: the train split has no heads.
    """
    import torch
    from safetensors.torch import save_file

    from paperflows.components.syntax.aspect_encoder import layer_states, load_aspect_encoder
    from paperflows.components.syntax.parser import BiaffineParser, parser_loss
    from paperflows.components.training.batching import Batches

    rows = _some([r for r in read_split(treebank, "train") if r.get("heads") and len(r["tokens"]) <= 60], limit, seed)
    if not rows:
        raise InputError(
            f"dataset {treebank['name']!r}: the train split needs `heads`, in sentences of 60 words at most"
        )
    loaded = load_aspect_encoder(model, device=device)
    table = layer_states(loaded, [r["tokens"] for r in rows])
    heads = [torch.tensor(r["heads"]) for r in rows]
    torch.manual_seed(seed)
    parser = BiaffineParser(table.flat.shape[1], table.flat.shape[2], hidden)
    batches = Batches(batch_size=batch_size, seed=seed, lengths=table.lengths)

    def batch_at(step: int) -> dict[str, Any]:
        chosen = batches.at(step)
        states, mask = table.pad(chosen)
        gold = torch.nn.utils.rnn.pad_sequence([heads[i] for i in chosen], batch_first=True, padding_value=-100)
        return {"states": states, "mask": mask, "gold": gold, "ids": chosen.tolist()}

    def loss_fn(trained: Any, batch: Any) -> Any:
        return parser_loss(trained(batch["states"], batch["mask"]), batch["gold"])

    settings = {"hidden": hidden, "steps": steps, "learning_rate": learning_rate, "seed": seed}
    done = fit("parser", settings, parser, batch_at, loss_fn, steps, learning_rate, seed, device)
    with new_artifact() as (folder, artifact):
        save_file({k: v.cpu().contiguous() for k, v in parser.state_dict().items()}, folder / "parser.safetensors")
    return ModelArtifact(**artifact, name="parser", score=None, history=done.history)


@cached_task(name="parse_sentences", task_run_name="parse_sentences")
def parse_sentences(sentences: Artifact, parser: ModelArtifact, model: str, device: str) -> Artifact:
    """The parser's trees (Chu-Liu/Edmonds, one root word)."""
    import numpy as np
    import torch
    from safetensors.torch import load_file

    from paperflows.components.data.jsonl import write_jsonl
    from paperflows.components.syntax.aspect_encoder import layer_states, load_aspect_encoder
    from paperflows.components.syntax.parser import BiaffineParser
    from paperflows.components.syntax.trees import chu_liu_edmonds

    words = [row["words"] for row in read_rows(open_artifact(sentences) / "sentences.jsonl")]
    weights = load_file(open_artifact(parser) / "parser.safetensors")
    table = layer_states(load_aspect_encoder(model, device=device), words)
    trained = BiaffineParser(len(weights["mix"]), weights["encoder.weight_ih_l0"].shape[1], len(weights["head.bias"]))
    trained.load_state_dict(weights)
    trained.eval()
    trees = []
    with torch.inference_mode():
        for start in range(0, len(words), 64):
            chosen = np.arange(start, min(start + 64, len(words)))
            scores = trained(*table.pad(chosen)).double().numpy()
            for row, i in zip(scores, chosen, strict=True):
                n = len(words[i])
                trees.append({"heads": chu_liu_edmonds(row[1 : n + 1, :n], row[0, :n]).tolist()})
    with new_artifact() as (folder, artifact):
        write_jsonl(folder / "trees.jsonl", trees)
    return artifact


class GoldComparison(Artifact):
    """Scores of every sentence and their mean."""

    mean: float


@cached_task(name="compare_with_gold", task_run_name="compare_with_gold-{label}")
def compare_with_gold(sentences: Artifact, trees: Artifact, label: str) -> GoldComparison:
    """Undirected attachment score of every sentence of a treebank."""
    import numpy as np
    from safetensors.numpy import save_file

    from paperflows.components.syntax.trees import undirected_attachment

    gold = read_rows(open_artifact(sentences) / "sentences.jsonl")
    found = read_rows(open_artifact(trees) / "trees.jsonl")
    scores = [
        undirected_attachment(np.array(t["heads"]), np.array(g["heads"])) for t, g in zip(found, gold, strict=True)
    ]
    with new_artifact() as (folder, artifact):
        save_file({"treebank": np.array(scores)}, folder / OUTPUTS)
    return GoldComparison(**artifact, mean=float(np.mean(scores)))


def _some(rows: list[dict[str, Any]], limit: int, seed: int) -> list[dict[str, Any]]:
    """`limit` of the rows at random, in their order: treebanks stand genre by genre."""
    from random import Random

    chosen = sorted(Random(seed).sample(range(len(rows)), min(limit, len(rows))))
    return [rows[i] for i in chosen]
