"""What a parser recovers from damaged answers."""

from typing import Any

from paperflows.tasks.data import DatasetArtifact, read_split
from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import OUTPUTS, Artifact, new_artifact


class Recovered(Artifact):
    """`outputs.safetensors`: `lines` -> (M, 2) records found, records left in the damaged text; with the shares."""

    kinds: dict[str, float]
    recall: float
    invented: int


@cached_task(name="corrupt_targets")
def corrupt_targets(
    data: DatasetArtifact, names: dict[str, str], relations: bool, rates: list[float]
) -> dict[str, Recovered]:
    """Damage the gold targets of the test split in code form in every way, and read them with our parser, with the
    official expressions, and with one that would find 99 of 100: records found of those that are still written.
    """
    from collections import Counter
    from random import Random

    from paperflows.components.extraction.corruption import KINDS, corrupt, official_records
    from paperflows.components.extraction.forms import FORMS
    from paperflows.components.extraction.records import (
        ENTITY_KEYS,
        RELATION_KEYS,
        read_sentences,
        records_of,
        schema_of,
    )

    sentences = read_sentences(read_split(data, "test"), names)
    schema = schema_of(sentences, relations=relations)
    keys = RELATION_KEYS if relations else ENTITY_KEYS
    form = FORMS["code"]
    found: dict[str, list[tuple[str, int, int, int]]] = {"ours": [], "official": []}
    for kind in KINDS:
        for rate in rates:
            random = Random(f"{kind} {rate}")
            for sentence in sentences:
                records = records_of(sentence, schema)
                text, kept = corrupt(form.target(records, schema), kind, rate, random)
                wanted = [records[i] for i in sorted(kept)]
                for who, read in (
                    ("ours", form.read(text, schema).records), ("official", official_records(text, keys)),
                ):  # fmt: skip
                    same = sum((Counter(map(str, wanted)) & Counter(map(str, read))).values())
                    found[who].append((kind, same, len(wanted), len(read) - same))
    almost = [(kind, 0.99 * left, left, 0) for kind, _, left, _ in found["ours"]]
    return {who: _recovered(rows) for who, rows in found.items()} | {"almost": _recovered(almost)}


def _recovered(rows: list[Any]) -> Recovered:
    import numpy as np
    from safetensors.numpy import save_file

    lines = np.array([[same, left] for _, same, left, _ in rows], dtype=np.float64)
    kinds = {}
    for kind in dict.fromkeys(row[0] for row in rows):
        mine = lines[[row[0] == kind for row in rows]]
        kinds[kind] = float(mine[:, 0].sum() / max(1.0, mine[:, 1].sum()))
    with new_artifact() as (folder, artifact):
        save_file({"lines": lines}, folder / OUTPUTS)
    recall = float(lines[:, 0].sum() / max(1.0, lines[:, 1].sum()))
    return Recovered(**artifact, kinds=kinds, recall=recall, invented=int(sum(row[3] for row in rows)))
