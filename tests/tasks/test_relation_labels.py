import json

import pytest

from paperflows.components.errors import InputError
from paperflows.tasks.data import DatasetArtifact, read_rows, read_split
from paperflows.tasks.relation_labels import ASKED, LABELLED, join_sentences
from paperflows.tasks.store import new_artifact, open_artifact
from paperflows.tasks.text_graph import World

GRAPH = {
    "train": [{"text": "Rome is in Italy", "mentions": [{"start": 0, "end": 4, "entity": "Rome"}], "triples": []}],
    "validation": [],
    "test": [{"text": "t", "mentions": [], "triples": [["Bern", "in", "Alps"]], "targets": [0], "settings": ["x"]}],
    "entities": [{"id": "Rome", "name": "Rome"}],
}


def labelled(head, tail, label="in", overlap=False):
    tokens = [head, "lies", "in", tail, "."]
    return {
        "tokens": tokens, "label": label, "head": {"name": head, "entity": head, "mention": [0]},
        "tail": {"name": tail, "entity": tail, "mention": [0, 1] if overlap else [3]},
    }  # fmt: skip


def stored(name, splits):
    with new_artifact() as (folder, artifact):
        for split, rows in splits.items():
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DatasetArtifact(
        **artifact, name=name, source="x", task="t", content="c", rows={s: 1 for s in splits}, warnings=[]
    )


def test_no_pair_of_entities_that_test_asks_about_is_known_or_labelled(in_project):
    train = [
        labelled("Pisa", "Tuscany"), labelled("Lyon", "France"), labelled("France", "Lyon", "holds"),
        labelled("Alps", "Bern"), labelled("Graz", "Austria"), labelled("Oslo", "Norway"),
        labelled("Oslo", "Oslo Fjord", overlap=True), labelled("Austria", "Graz"), labelled("Kiel", "Holstein"),
    ]  # fmt: skip
    sentences = stored("s", {"train": train, "test": [labelled("Lyon", "France"), labelled("Nice", "France")]})
    graph = stored("g", GRAPH)
    joined = join_sentences.fn(graph, sentences, 1, 1)
    drawn = read_rows(open_artifact(joined) / LABELLED)
    # Lyon and France are asked about in test, Alps and Bern in the graph's test, whatever their order; of the others
    # every second may be a row of the graph, and what that states is no label: Austria and Graz
    assert [row["triple"][0] for row in drawn] == ["Pisa", "Oslo"]
    assert [row["triple"][0] for row in read_rows(open_artifact(joined) / ASKED)] == ["Lyon"]
    rows = read_split(joined, "train")
    assert len(rows) == 2 and rows[0]["text"] == "Rome is in Italy"
    assert rows[1]["triples"] == [["Graz", "in", "Austria"]]
    ends = [rows[1]["text"][m["start"] : m["end"]] for m in rows[1]["mentions"]]
    assert ends == ["Graz", "Austria"] and rows[1]["text"] == "Graz lies in Austria ."
    # a sentence whose mentions overlap can be labelled but is no row of the graph
    assert [r["text"] for r in read_split(join_sentences.fn(graph, sentences, 9, 1), "train")[1:]] == [
        "Graz lies in Austria .", "Kiel lies in Holstein .",
    ]  # fmt: skip
    assert {"Pisa", "Austria", "Rome"} <= {row["id"] for row in read_split(joined, "entities")}


def test_nothing_left_to_learn_from_is_said(in_project):
    sentences = stored("s", {"train": [labelled("Lyon", "France")], "test": [labelled("Lyon", "France")]})
    with pytest.raises(InputError, match="'s': every training sentence"):
        join_sentences.fn(stored("g", GRAPH), sentences, 1, 1)


def test_a_longer_text_than_is_read_is_in_neither_the_graph_nor_the_questions(in_project, caplog):
    long = {"text": "Rome " + "very " * 300, "mentions": [{"start": 0, "end": 4, "entity": "Rome"}], "triples": []}
    fact = {
        "text": "Bern is in Alps and Rome",
        "mentions": [
            {"start": 0, "end": 4, "entity": "Bern"}, {"start": 11, "end": 15, "entity": "Alps"},
            {"start": 20, "end": 24, "entity": "Rome"},
        ],
        "triples": [["Bern", "in", "Alps"], ["Bern", "in", "Rome"]], "targets": [0, 1],
        "settings": ["inductive", "transductive"],
    }  # fmt: skip
    known = {**fact, "triples": [["Rome", "in", "Rome"]] * 3 + [["Alps", "in", "Rome"]] * 20}
    world = World(
        stored("g", {**GRAPH, "train": [long, known], "test": [{**long, **fact, "text": long["text"]}, fact]}), "minilm"
    )
    assert [row["text"] for row in world.rows] == [fact["text"]] and len(world.pieces[0]) == 6
    assert [row["text"] for row, _, _ in world.questions(5)] == [fact["text"]] * 2
    said = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert said == [
        f"g: 1 of 2 {split} texts have more than 256 word pieces and are left out" for split in ("train", "test")
    ]
    # six pieces; Rome brings its one distinct fact and Alps one: two nodes each, half of the time
    assert world.sizes(0.5).tolist() == [8] and world.sizes(0.0).tolist() == [6]
    with pytest.raises(InputError, match="'g': no train text has 256 word pieces or fewer"):
        World(stored("g", {**GRAPH, "train": [long]}), "minilm")
