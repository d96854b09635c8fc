"""Which dataset on the Hugging Face hub stands for which name here, and how its columns become ours. Data only.

The hub's splits are the publisher's: where a folder of datasets has another division of the same corpus, the numbers
of the two are not comparable. `sts12`, `sts13` and `sts15` come as one split `test` without their sources.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]
Splits = dict[str, list[Row]]


@dataclass(frozen=True)
class HubDataset:
    """One dataset of the hub.

    Attributes:
        id: owner/name, or the path of a local folder that `datasets` can load.
        config: the hub's configuration name.
        revision: branch, tag or commit; None is the main branch.
        splits: our split name -> the hub's.
        columns: our field -> the hub's column.
        labels: names of the integer labels, in their order; rows with another integer (-1: unlabelled) are left out.
        convert: makes our row of one of theirs where renaming is not enough.
        gather: makes our splits of all rows, such as a split of passages.
        data_files: split -> file name where the hub's repository has more than one corpus.
        unverified: the id or a column could not be confirmed from public text; loading it may fail.
    """

    id: str
    columns: Mapping[str, str]
    splits: Mapping[str, str] = field(
        default_factory=lambda: {"train": "train", "validation": "validation", "test": "test"}
    )
    config: str | None = None
    revision: str | None = None
    labels: tuple[str, ...] | None = None
    convert: Callable[[Row], Row] | None = None
    gather: Callable[[Splits], Splits] | None = None
    data_files: Mapping[str, str] | None = None
    unverified: bool = False


def final_answer(row: Row) -> Row:
    """GSM8K: the final answer stands after `####` in the worked solution."""
    return {**row, "answer": row["solution"].rsplit("####", 1)[-1].strip().replace(",", "")}


def answer_texts(row: Row) -> Row:
    """SQuAD form: answers are `{"text": [...], "answer_start": [...]}`; equal ones are kept once, in order."""
    return {**row, "answers": list(dict.fromkeys(row["answers"]["text"]))}


def tag_names(row: Row) -> Row:
    """WNUT 17: numbers of tags to their names."""
    kinds = ("corporation", "creative-work", "group", "location", "person", "product")
    names = ("O", *(f"{prefix}-{kind}" for kind in kinds for prefix in "BI"))
    return {**row, "tags": [names[number] for number in row["tags"]]}


def contexts_to_passages(splits: Splits) -> Splits:
    """Each different `context` becomes a row of the split `passages`; questions refer to it by id."""
    ids: dict[str, str] = {}
    for rows in splits.values():
        for row in rows:
            context = row.pop("context")
            row["passages"] = [ids.setdefault(context, f"p{len(ids)}")]
    return {**splits, "passages": [{"id": number, "text": text} for text, number in ids.items()]}


_PAIR = {"text": "sentence1", "text_pair": "sentence2"}
_STS = {**_PAIR, "score": "score"}
_TEXT = {"text": "text", "label": "label"}
_SQUAD = {"id": "id", "question": "question", "answers": "answers", "context": "context"}
_TRAIN_TEST = {"train": "train", "test": "test"}
_TEST = {"test": "test"}


def _xquad(language: str) -> HubDataset:
    return HubDataset(
        id="google/xquad",
        config=f"xquad.{language}",
        columns=_SQUAD,
        splits={"test": "validation"},
        convert=answer_texts,
        gather=contexts_to_passages,
    )


HUB: dict[str, HubDataset] = {
    "ag_news": HubDataset(
        id="fancyzhx/ag_news",
        columns=_TEXT,
        splits=_TRAIN_TEST,
        labels=("world", "sports", "business", "science_technology"),
    ),
    "conll04": HubDataset(id="DFKI-SLT/conll04", columns={name: name for name in ("tokens", "entities", "relations")}),
    "cr": HubDataset(id="SetFit/CR", columns=_TEXT, splits=_TRAIN_TEST, labels=("negative", "positive")),
    "gsm8k": HubDataset(
        id="openai/gsm8k",
        config="main",
        columns={"question": "question", "solution": "answer"},
        splits=_TRAIN_TEST,
        convert=final_answer,
    ),
    "mrpc": HubDataset(
        id="nyu-mll/glue", config="mrpc", columns={**_PAIR, "label": "label"}, labels=("not_paraphrase", "paraphrase")
    ),
    "multi30k": HubDataset(id="bentrevett/multi30k", columns={"text": "en", "de": "de"}),
    "nq_open": HubDataset(
        id="google-research-datasets/nq_open",
        columns={"question": "question", "answers": "answer"},
        splits={"train": "train", "test": "validation"},
    ),
    "sickr": HubDataset(id="mteb/sickr-sts", columns=_STS, splits=_TEST),
    "snli": HubDataset(
        id="stanfordnlp/snli",
        columns={"text": "premise", "text_pair": "hypothesis", "label": "label"},
        labels=("entailment", "neutral", "contradiction"),
    ),
    "squad": HubDataset(
        id="rajpurkar/squad",
        columns=_SQUAD,
        splits={"train": "train", "validation": "validation"},
        convert=answer_texts,
        gather=contexts_to_passages,
    ),
    "sst2": HubDataset(
        id="nyu-mll/glue",
        config="sst2",
        columns={"text": "sentence", "label": "label"},
        splits={"train": "train", "validation": "validation"},
        labels=("negative", "positive"),
    ),
    "sts12": HubDataset(id="mteb/sts12-sts", columns=_STS, splits=_TEST),
    "sts13": HubDataset(
        id="mteb/sts13-sts", columns=_STS, splits=_TEST, revision="7e90230a92c190f1bf69ae9002b8cea547a64cca"
    ),
    "sts15": HubDataset(id="mteb/sts15-sts", columns=_STS, splits=_TEST),
    "stsb": HubDataset(id="mteb/stsbenchmark-sts", columns=_STS),
    "subj": HubDataset(id="SetFit/subj", columns=_TEXT, splits=_TRAIN_TEST, labels=("objective", "subjective")),
    "trec": HubDataset(id="SetFit/TREC-QC", columns={"text": "text", "label": "label_coarse_text"}, splits=_TRAIN_TEST),
    "wikitext2": HubDataset(id="Salesforce/wikitext", config="wikitext-2-v1", columns={"text": "text"}),
    # the publisher's repository holds a loading script; the converted branch is the hub's own work
    "wnut17": HubDataset(
        id="leondz/wnut_17",
        revision="refs/convert/parquet",
        columns={"id": "id", "tokens": "tokens", "tags": "ner_tags"},
        convert=tag_names,
        unverified=True,
    ),
    "xquad_en": _xquad("en"),
    "xquad_zh": _xquad("zh"),
}
