import os
import re
import subprocess
import sys
from collections import Counter
from random import Random

import pytest

from paperflows.components.alignment.scale import SCALES
from paperflows.components.data.sources import load
from paperflows.components.data.world import WORLD, build
from paperflows.components.data.world.facts import Fact, facts
from paperflows.components.data.world.hashing import part_of
from paperflows.components.data.world.meaning import score
from paperflows.components.data.world.render_facts import rounded
from paperflows.components.data.world.render_minimal_pairs import GROUPS
from paperflows.components.data.world.render_scenes import article, sentence, third_person
from paperflows.components.data.world.render_tags import tagged_fact
from paperflows.components.data.world.scenes import Scene, cores, draw
from paperflows.components.errors import InputError
from paperflows.components.retrieval.closed_book import holds_answer

SIZES = {
    "world_chinese": ("text", {"train": 3000, "validation": 300, "test": 300}),
    "world_graph": ("text graph", {"train": 505, "validation": 158, "test": 192, "entities": 834}),
    "world_judged": ("classification", {"train": 2250, "validation": 600, "test": 600}),
    "world_nli": ("classification", {"train": 6300, "validation": 600, "test": 1500}),
    "world_pairs_class": ("classification", {"train": 1500, "validation": 300, "test": 600}),
    "world_questions": ("classification", {"train": 1500, "validation": 300, "test": 600}),
    "world_relations": ("relation classification", {"train": 1116, "validation": 153, "test": 184}),
    "world_requests": ("classification", {"train": 1438, "validation": 360, "test": 720}),
    "world_reviews": ("aspect sentiment", {"train": 1200, "validation": 200, "test": 400}),
    "world_sts": ("pair regression", {"train": 3000, "validation": 800, "test": 1500}),
    "world_text": ("text", {"train": 9000, "validation": 800, "test": 800}),
    "world_topics": ("classification", {"train": 1500, "validation": 300, "test": 600}),
    "world_sums": ("reasoning", {"train": 2_500, "validation": 300, "test": 300}),
    "world_tellings": ("paraphrase sets", {"train": 2_500, "validation": 300, "test": 300}),
    "world_trees": ("tagging", {"train": 400, "validation": 100, "test": 200}),
}


@pytest.fixture(scope="module")
def world():
    return {name: load("builtin", name) for name in WORLD}


def sentences(rows):
    return [row[field] for row in rows for field in ("text", "text_pair") if field in row]


@pytest.mark.parametrize("name", SIZES)
def test_sizes_and_tasks(world, name):
    task, sizes = SIZES[name]
    assert world[name].task == task
    assert {split: len(rows) for split, rows in world[name].splits.items()} == sizes
    assert world[name].warnings == ()


@pytest.mark.parametrize("name", sorted(SIZES))
def test_no_evaluation_sentence_is_ever_trained_on(world, name):
    trained = {text for other in SIZES for text in sentences(world[other].splits["train"])}
    for split in ("validation", "test"):
        assert not trained.intersection(sentences(world[name].splits[split])), split


def test_text_is_distinct(world):
    for rows in world["world_text"].splits.values():
        assert len({row["text"] for row in rows}) == len(rows)


def test_triples_are_many_and_test_entities_are_known_from_train(world):
    splits = world["world_triples"].splits
    triples = [tuple(row.values()) for split in ("train", "validation", "test") for row in splits[split]]
    assert len(facts()) >= 2000
    assert len(triples) == len(set(triples)) >= 2000
    trained = {row[end] for row in splits["train"] for end in ("head", "tail")}
    assert {row["id"] for row in splits["entities"]} == trained
    assert min(len(splits["test"]), len(splits["validation"])) > 200


def test_nli_has_every_label_once_a_premise_and_no_giveaway_word(world):
    for rows in world["world_nli"].splits.values():
        premises = {}
        for row in rows:
            premises.setdefault(row["text"], []).append(row["label"])
            assert row["text"] != row["text_pair"]
        assert all(sorted(labels) == ["contradiction", "entailment", "neutral"] for labels in premises.values())
        denied = Counter(row["label"] for row in rows if re.search(r"\b(no|not)\b", row["text_pair"]))
        assert max(denied.values()) < 3 * min(denied.values())


def test_classes_are_balanced(world):
    for name, classes in {"world_topics": 10, "world_questions": 6, "world_pairs_class": 2}.items():
        for rows in world[name].splits.values():
            counts = Counter(row["label"] for row in rows)
            assert len(counts) == classes
            assert max(counts.values()) - min(counts.values()) <= 1


def test_words_in_common_do_not_tell_the_score(world):
    from scipy.stats import spearmanr

    rows = world["world_sts"].splits["test"]
    words = [[set(re.findall(r"\w+", row[field].lower())) for field in ("text", "text_pair")] for row in rows]
    overlap = [len(a & b) / len(a | b) for a, b in words]
    assert 0.1 < spearmanr(overlap, [row["score"] for row in rows])[0] < 0.5
    assert sum(row["score"] == 5 and common < 0.4 for row, common in zip(rows, overlap, strict=True)) >= 30
    assert sum(row["score"] <= 2.1 and common > 0.6 for row, common in zip(rows, overlap, strict=True)) >= 60
    assert min(Counter(int(row["score"]) for row in rows).values()) >= 50


MAN = Scene("man", 1, "eat", "apple", place="in the kitchen")
DOG = Scene("dog", 1, "chase", "cat")
PARIS = Fact("Paris", "capital of", "France", "city")


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (MAN, MAN, 5.0),
        (MAN, Scene("man", 1, "eat", "apple"), 4.1),  # place said once: 1.8 * 0.5
        (MAN, Scene("man", 1, "eat", "apple", place="in the office"), 3.56),  # both indoors: 1.8 * 0.8
        (MAN, Scene("man", 1, "slice", "apple", place="in the kitchen"), 3.25),  # same kind of action: 3.5 * 0.5
        (MAN, Scene("woman", 1, "eat", "apple", place="in the kitchen"), 3.68),  # sibling: 2.2 * 0.6
        (MAN, Scene("any person", 1, "eat", "apple", place="in the kitchen"), 4.34),  # kind: 2.2 * 0.3
        (MAN, Scene("man", 2, "eat", "apple", place="in the kitchen"), 3.6),  # one against two: 1.4
        (MAN, Scene("man", 1, "eat", "apple", place="in the kitchen", negated=True), 2.0),
        (MAN, Scene("man", 1, "eat", "apple", "old", place="in the kitchen"), 4.2),  # attribute once: 1.6 * 0.5
        (DOG, Scene("cat", 1, "chase", "dog"), 2.0),  # roles swapped
        (MAN, Scene("cat", 1, "sleep"), 0.0),
        (MAN, PARIS, 0.0),
        (PARIS, PARIS, 5.0),
        (PARIS, Fact("Paris", "located in", "France", "city"), 3.6),
        (PARIS, Fact("Berlin", "capital of", "Germany", "city"), 1.64),  # 5 - (2.8 + 1.4) * 0.8
        (Fact("Chad", "borders", "Niger", "country"), Fact("Niger", "borders", "Chad", "country"), 5.0),
        (PARIS, Fact("Paris", "population", 2_000_000, "city"), 0.8),  # 5 - 2.8 - 1.4
    ],
)
def test_score_by_hand(first, second, expected):
    assert score(first, second) == score(second, first) == expected


def test_sentences_by_hand():
    said = {sentence(Scene("man", 1, "eat", "apple", place="in the kitchen"), style) for style in range(3000)}
    assert {
        "A man is eating an apple in the kitchen.",
        "An apple is being eaten by a man in the kitchen.",
        "In the kitchen, a guy is eating an apple.",
        "There is a gentleman consuming an apple in the kitchen.",
        "It is a man who is eating an apple in the kitchen.",
        "Man eating an apple in the kitchen",
    } <= said
    denied = {sentence(Scene("man", 1, "eat", "apple", negated=True), style) for style in range(500)}
    assert all(" not " in text or " no " in text for text in denied)
    assert sentence(DOG, 7) == sentence(DOG, 7)


def test_grammar_of_many_sentences(world):
    texts = [text for name in SIZES for rows in world[name].splits.values() for text in sentences(rows)]
    assert len(texts) > 30_000
    for text in texts:
        assert text[0].isupper() or not text[0].islower(), text
        assert "  " not in text and " ," not in text and not text.endswith(".."), text
        if re.search("[^a-z ,.?-]", text[1:].replace("TV", "")):
            continue  # names of places hold an "an" of their own
        assert not re.search(r"\b[Aa]n [^aeiou]", text), text
        assert not re.search(r"\b[Aa] [aeio]", text), text
        assert not re.search(r"\b(two|three|pair of|trio of) [\w' -]*? (is|isn't)\b", text.split(" by ")[0]), text
        assert not re.search(r"\b(the the|a a|an an|the a)\b", text, re.IGNORECASE), text


@pytest.mark.parametrize(
    ("word", "expected"),
    [("carry", "carries"), ("watch", "watches"), ("look at", "looks at"), ("fix", "fixes"), ("play", "plays")],
)
def test_third_person(word, expected):
    assert third_person(word) == expected


def test_articles_and_rounding():
    assert [article(word) for word in ("apple", "unhappy man", "uniform", "hound")] == [
        "an apple",
        "an unhappy man",
        "a uniform",
        "a hound",
    ]
    assert [rounded(n) for n in (66_987_244, 1_411_778_724, 2_040_000, 508_437, 94)] == [
        "67 million",
        "1.4 billion",
        "2 million",
        "510,000",
        "94",
    ]


def test_drawn_scenes_make_sense_and_stay_in_their_split():
    rng = Random(3)
    known = set(cores())
    assert len(known) > 10_000
    for part in ("train", "validation", "test"):
        for _ in range(200):
            scene = draw(rng, part=part)
            assert (scene.agent, scene.action, scene.object) in known
            assert part_of(scene.key) == part


def test_names_are_tagged_as_their_facts_say():
    words, tags = tagged_fact(Fact("New York", "located in", "the United States", "city"), 3)
    spans = {
        tag.split("-")[1]: [w for w, t in zip(words, tags, strict=True) if t.endswith(tag[1:])]
        for tag in tags
        if tag[0] == "B"
    }
    assert spans["city"] == ["New", "York"]
    assert [w.lower() for w in spans["country"]] == ["the", "united", "states"]
    _, counted = tagged_fact(Fact("Chad", "population", 16_426_000, "country"), 1)
    assert {t for t in counted if t != "O"} >= {"B-country", "B-quantity"}


def test_tagged_sentences(world):
    data = world["world_names"]
    assert data.task == "tagging" and {s: len(rows) for s, rows in data.splits.items()} == {
        "train": 1200,
        "validation": 300,
        "test": 500,
    }
    trained = {tuple(row["tokens"]) for row in data.splits["train"]}
    kinds = set()
    for split, rows in data.splits.items():
        assert split == "train" or not trained.intersection(tuple(row["tokens"]) for row in rows)
        for row in rows:
            kinds.update(tag[2:] for tag in row["tags"])
            assert all(a[1:] == b[1:] for a, b in zip(row["tags"], row["tags"][1:], strict=False) if b.startswith("I-"))
        assert 0.15 < sum(set(row["tags"]) == {"O"} for row in rows) / len(rows) < 0.35
    assert {"city", "country", "element", "quantity", "currency", "language"} <= kinds


def test_letter_problems_have_computed_answers_and_misleading_majorities(world):
    lost = 0
    for row in world["world_chains"].splits["test"]:
        words = row["question"].split('"')[1].split()
        assert row["answer"] == "".join(word[-1] for word in words).casefold()
        said = Counter(chain["answer"] for chain in row["chains"])
        assert len(row["chains"]) == 40 and said[row["answer"]] > 0
        lost += said.most_common(1)[0][0] != row["answer"]
    assert 0.1 < lost / 300 < 0.6, "on some problems most chains share a wrong answer"


def test_documents_hold_the_answers_of_their_questions(world):
    splits = world["world_documents"].splits
    assert world["world_documents"].task == "question answering" and world["world_documents"].warnings == ()
    passages = {row["id"]: row for row in splits["passages"]}
    assert len(passages) >= 10_000
    questions = [row for part in ("train", "validation", "test") for row in splits[part]]
    assert len({row["question"] for row in questions}) == len(questions)
    assert min(Counter(row["relation"] for row in splits["test"]).values()) >= 10
    for row in questions:
        gold = [passages[place] for place in row["passages"]]
        holds = [[answer in passage["text"] for answer in row["answers"]] for passage in gold]
        assert all(map(any, zip(*holds, strict=True))), row
        assert 1 <= len(gold) <= 5 and len(set(row["answers"])) == len(row["answers"])
        if row["relation"] in ("chain", "fan"):
            link, rest = gold[0], gold[1:]
            assert row["topic"] == link["title"] and row["topic"].removeprefix("the ") in row["question"]
            named = [passage["title"].removeprefix("the ") for passage in rest]
            assert not holds_answer(link["text"], row["answers"]), "the link alone answers nothing"
            if "capital" not in row["question"].lower():
                assert all(name in link["text"] for name in named), row
        elif row["relation"] == "several":
            assert len(gold) == len(row["answers"]) > 1


def test_unknown_name():
    with pytest.raises(InputError, match="expected one of world_"):
        build("world")


def test_minimal_pairs_differ_in_the_group_and_the_reference_names_none(world):
    for attribute, rows in world["world_minimal_pairs"].splits.items():
        assert len(rows) == 200 and [row["pair"] for row in rows] == [i // 2 for i in range(200)]
        for first, second in zip(rows[0::2], rows[1::2], strict=True):
            assert first["reference"] == second["reference"]
            words = [Counter(text.split()) for text in (first["candidate"], second["candidate"], first["reference"])]
            (one,), (other,) = (tuple(candidate - words[2]) for candidate in words[:2])
            assert {one, other} in [set(groups) for groups in GROUPS[attribute]]


def test_reviews_name_their_aspects_and_trees_are_trees(world):
    for rows in world["world_reviews"].splits.values():
        assert {row["label"] for row in rows} == {"positive", "negative", "neutral"}
        assert all(row["text"][row["from"] : row["to"]] == row["aspect"] for row in rows)
    for row in world["world_trees"].splits["test"]:
        heads = row["heads"]
        assert heads.count(0) == 1
        for word in range(1, len(heads) + 1):
            steps = 0
            while word:
                word, steps = heads[word - 1], steps + 1
                assert steps <= len(heads), "a cycle"


def test_recorded_answers_keep_the_scales_and_the_writers_differ(world):
    rows = world["world_prompts"].splits["test"]
    mean = {writer: sum(row["scores"][writer] for row in rows) / len(rows) for writer in ("careful", "mixed", "blunt")}
    assert mean["careful"] > mean["mixed"] + 0.2 > mean["blunt"] + 0.4
    for row in rows:
        assert row["answers"].keys() == row["scores"].keys() == mean.keys()
        assert set(row["scores"].values()) <= (
            {1, 3} if row["dimension"] in ("Legality", "Data protection") else {1, 2, 3}
        )
    assert {row["dimension"] for row in rows} == set(SCALES)


DIGESTS = """
from paperflows.components.data.sources import load
from paperflows.components.data.world import WORLD
print([load("builtin", name).sha256 for name in WORLD])
"""


def test_every_process_builds_the_same(world):
    for setting in (
        {"PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo", "LC_ALL": "C"},
        {"PYTHONHASHSEED": "2", "TZ": "UTC", "LANG": "de_DE.UTF-8"},
    ):
        environment = {**os.environ, **setting}
        done = subprocess.run(
            [sys.executable, "-c", DIGESTS], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == str([one.sha256 for one in world.values()])


def test_labelled_facts_lie_in_the_split_of_the_graphs_facts(world):
    graphs, labelled = world["world_graph"].splits, world["world_relations"].splits
    taught = {tuple(triple) for row in graphs["train"] for triple in row["triples"]}
    for split, rows in labelled.items():
        for row in rows:
            assert [row["tokens"][i] for i in row["head"]["mention"]] == row["head"]["name"].split()
            assert [row["tokens"][i] for i in row["tail"]["mention"]] == row["tail"]["name"].split()
            if split != "train":
                assert (row["head"]["entity"], row["label"], row["tail"]["entity"]) not in taught
