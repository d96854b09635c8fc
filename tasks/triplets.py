"""Human NLI pairs as triplets, with the judge's similarity of each positive."""

from contextlib import ExitStack

from paperflows.components.errors import InputError, ServiceError
from paperflows.tasks.annotators import Annotator, open_judge
from paperflows.tasks.data import DatasetArtifact, read_dataset, read_split
from paperflows.tasks.environment import state_folder
from paperflows.tasks.policy import cached_task, current_key
from paperflows.tasks.store import Artifact, new_artifact


@cached_task(name="score_triplets", retries=2, retry_on=(ServiceError,))
def score_triplets(
    dataset: DatasetArtifact, held_out: list[DatasetArtifact], judge: Annotator, limit: int, device: str
) -> Artifact:
    """NLI triplets (premise, entailed, contradicting) of the train split, with the judge's similarity of the positive.

    Triplets with a sentence of any evaluation split are left out; one the judge cannot score counts as similarity 1.

    Args:
        limit: triplets used, the first ones.
    """
    from paperflows.components.contrastive.triplets import nli_triplets
    from paperflows.components.data.jsonl import write_jsonl

    forbidden = {
        text.casefold()
        for data in [*held_out, dataset]
        for split, rows in read_dataset(data).items()
        if split != "train"
        for row in rows
        for text in (row["text"], row.get("text_pair") or "")
    }
    found = nli_triplets(read_split(dataset, "train"))
    found = [t for t in found if not any(text.casefold() in forbidden for text in t)][:limit]
    if not found:
        raise InputError(f"dataset {dataset['name']!r}: no premise has both an entailment and a contradiction")
    with ExitStack() as opened:
        score, _ = open_judge(judge, device, state_folder() / "checkpoints" / current_key(), opened)
        judged = score([(premise, positive) for premise, positive, _ in found])
    with new_artifact() as (folder, artifact):
        rows = [
            {"text": a, "positive": p, "negative": n, "score": 1.0 if j.score is None else j.score}
            for (a, p, n), j in zip(found, judged, strict=True)
        ]
        write_jsonl(folder / "triplets.jsonl", rows)
    return artifact
