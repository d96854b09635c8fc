"""What a parser recovers from damaged answers."""

from typing import Any

from paperflows.tasks.data import DatasetArtifact, read_split
from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import OUTPUTS, Artifact, new_artifact


class Recovered(Artifact):
    """`outputs.safetensors`: `lines` -> (M, 2) records found, records left in the damaged text; with the shares."""

    kinds: dict[str, float]
    answers: int
    invented: int


@cached_task(name="corrupt_targets")
def corrupt_targets(
    data: DatasetArtifact, names: dict[str, str], relations: bool, rates: list[float]
) -> dict[str, Recovered]:
    """Damage the gold targets of the test split in code form in every way, and read them with our parser, with the
    official expressions, and with one that would find 99 of 100: records found of those that are still written.

    Answers that the damage left as they were, or as a lower rate had made them, are not counted. `kinds`: share found
    at the highest rate that leaves records to find.
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
    rows: dict[str, list[tuple[str, float, int, int, int]]] = {"ours": [], "official": []}
    for kind in KINDS:
        seen = {(number, form.target(records_of(s, schema), schema)) for number, s in enumerate(sentences)}
        for rate in sorted(rates):
            random = Random(f"{kind} {rate}")
            for number, sentence in enumerate(sentences):
                records = records_of(sentence, schema)
                text, kept = corrupt(form.target(records, schema), kind, rate, random)
                if (number, text) in seen:
                    continue
                seen.add((number, text))
                wanted = [records[i] for i in sorted(kept)]
                for who, read in (
                    ("ours", form.read(text, schema).records), ("official", official_records(text, keys)),
                ):  # fmt: skip
                    same = sum((Counter(map(str, wanted)) & Counter(map(str, read))).values())
                    rows[who].append((kind, rate, same, len(wanted), len(read) - same))
    almost = [(kind, rate, 0.99 * left, left, 0) for kind, rate, _, left, _ in rows["ours"]]
    return {who: _recovered(some) for who, some in rows.items()} | {"almost": _recovered(almost)}


def _recovered(rows: list[Any]) -> Recovered:
    import numpy as np
    from safetensors.numpy import save_file

    kinds: dict[str, float] = {}
    for kind, rate in sorted({row[:2] for row in rows}):  # the highest rate comes last
        same, left = (sum(row[place] for row in rows if row[:2] == (kind, rate)) for place in (2, 3))
        if left:
            kinds[kind] = float(same / left)
    with new_artifact() as (folder, artifact):
        save_file({"lines": np.array([row[2:4] for row in rows], dtype=np.float64)}, folder / OUTPUTS)
    return Recovered(**artifact, kinds=kinds, answers=len(rows), invented=int(sum(row[4] for row in rows)))
