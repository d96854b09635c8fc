"""No evaluated question, request or passage is seen in training."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from paperflows.components.errors import InputError
from paperflows.components.models.encoder import load_encoder
from paperflows.components.retrieval.dense import encode, passage_encoder
from paperflows.components.retrieval.names import TitleLinks
from paperflows.components.retrieval.support_pairs import build_pairs
from paperflows.tasks.corpora import PASSAGES as PASSAGES_FILE
from paperflows.tasks.corpora import CorpusArtifact, Prefixes, build_corpus, index_corpus, read_passages
from paperflows.tasks.data import DatasetArtifact
from paperflows.tasks.questions import QuestionSet, gather_questions, read_questions
from paperflows.tasks.requests import Pool, build_requests, read_requests
from paperflows.tasks.store import new_artifact, open_artifact
from paperflows.tasks.support import SupportTraining, similarity, supporting, train_support

PASSAGES = [
    {"id": "0", "title": "Niger", "text": "Niger borders Chad."},
    {"id": "1", "title": "Chad", "text": "The capital of Chad is N'Djamena."},
    {"id": "2", "title": "Mali", "text": "The capital of Mali is Bamako."},
    {"id": "3", "title": "Togo", "text": "The capital of Togo is Lome."},
]


def asked(question, answer, *passages):
    return {"question": question, "answers": [answer], "passages": list(passages)}


TEST = [asked("What is the capital of a neighbour of Niger?", "N'Djamena", "0", "1")]
TRAIN = [
    asked("What is the capital of Mali?", "Bamako", "2"),
    asked("What is the capital of Chad?", "N'Djamena", "1"),  # its passage supports the question of test
    asked("Who knows?", "nobody", "3"),  # the answer stands nowhere
]


def stored(name, splits):
    with new_artifact() as (folder, artifact):
        for split, rows in splits.items():
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    counts = {split: len(rows) for split, rows in splits.items()}
    return DatasetArtifact(
        **artifact, name=name, source="x", task="question answering", content="c", rows=counts, warnings=[]
    )


def test_the_scorer_of_support_reads_no_passage_that_supports_an_evaluated_question(in_project):
    data = stored("qa", {"train": TRAIN, "test": TEST, "passages": PASSAGES})
    corpus = build_corpus.fn([data], [], 50, None)
    place = {passage["place"]: number for number, passage in enumerate(read_passages(corpus))}
    sets = [QuestionSet(dataset="qa", every=True, train="train", test="test")]
    questions = gather_questions.fn(sets, [data], corpus, 9, 9)
    assert questions["left_out"] == 1
    (row,) = read_questions(questions, "test")
    assert row["holders"] == [[place["qa/1"]]] and row["links"] == [[place["qa/0"]]]
    assert supporting(questions) == {place["qa/0"], place["qa/1"]}

    passages = read_passages(corpus)
    train = read_questions(questions, "train")
    near = {question["text"]: list(range(len(passages))) for question in train}
    links = TitleLinks(passage["title"] for passage in passages)
    pairs = build_pairs(train, passages, near, supporting(questions), links, negatives=9, seed=0)
    assert {place for _, place, *_ in pairs} == {place["qa/2"], place["qa/3"]}
    assert {pair[1] for pair in pairs if pair[2] == 1} == {place["qa/2"]}


def test_a_capped_corpus_keeps_what_questions_need(in_project):
    data = stored("qa", {"train": TRAIN[:1], "test": TEST, "passages": PASSAGES})
    kept = {passage["place"] for passage in read_passages(build_corpus.fn([data], [], 50, 3))}
    assert kept == {"qa/0", "qa/1", "qa/2"}


def test_a_text_that_is_evaluated_stands_in_no_other_part(in_project):
    rows = [{"question": f"question {i}?", "answers": ["a"]} for i in range(20)]
    again = [{"question": "question 3", "answers": ["a"]}, {"question": "question 4 ?", "answers": ["a"]}]
    data = stored("qa", {"train": [*rows, *again], "test": rows[:5]})
    pool = Pool(dataset="qa", kind="facts", splits={"train": "train", "test": "test"})
    most = dict.fromkeys(("train", "validation", "test", "unseen"), 99)
    made = read_requests(build_requests.fn([pool], [data], most, 0.3, 0.3))
    parts = {part: {row["bare"] for row in made if row["part"] == part} for part in ("train", "test")}
    assert parts["test"] == {f"question {i}" for i in range(5)}
    assert parts["train"] == {f"question {i}" for i in range(5, 20)}
    with pytest.raises(InputError, match="gives no texts"):
        build_requests.fn(
            [Pool(dataset="qa", kind="facts", only=("x",), splits={"train": "train"})], [data], most, 0, 0
        )


def test_an_encoder_sees_its_words_before_questions_and_passages(in_project):
    texts = ["Oslo lies in Norway.", "Quito lies in Ecuador."]
    with new_artifact() as (folder, artifact):
        rows = [{"place": f"d/{i}", "title": "", "text": text} for i, text in enumerate(texts)]
        (folder / PASSAGES_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = CorpusArtifact(**artifact, passages=2)
    index = index_corpus.fn(corpus, "minilm", "flat", Prefixes(query="query: ", passage="passage: "), "cpu")
    vectors = load_file(open_artifact(index) / "vectors.safetensors")["vectors"]
    encoder = load_encoder("minilm", device="cpu")
    np.testing.assert_allclose(vectors, encode(encoder, [f"passage: {text}" for text in texts]), atol=1e-5)
    assert abs(vectors - encode(encoder, texts)).max() > 0.01, "the prefix is seen"
    encoded, cosine, search = similarity(index, "cpu")
    asked = encode(encoder, ["query: Where is Oslo?"])
    np.testing.assert_allclose(encoded(["Where is Oslo?"]), asked, atol=1e-5)
    np.testing.assert_allclose(encoded(texts, "passage"), vectors, atol=1e-5)
    np.testing.assert_allclose(cosine(["Where is Oslo?"] * 2, [0, 1]), vectors @ asked[0], atol=1e-5)
    assert search(["Where is Oslo?"], 1) == [[0]]


def test_questions_without_answers_or_passages_and_texts_without_a_text(in_project):
    bare = [{"question": "Who knows?", "answers": []}, {"question": "Who else?", "answers": ["Lome"]}]
    data = stored("qa", {"train": [*TRAIN, *bare], "test": [*TEST, *bare], "passages": PASSAGES})
    corpus = build_corpus.fn([data], [], 50, None)
    questions = gather_questions.fn(
        [QuestionSet(dataset="qa", every=True, train="train", test="test")], [data], corpus, 9, 9
    )
    assert questions["left_out"] == 4 + 1, "they are counted: those, and the one whose answer stands nowhere"
    assert len(read_questions(questions, "test")) == 1
    with pytest.raises(InputError, match="'pairs', split train: a row has no text"):
        build_corpus.fn([data], [stored("pairs", {"train": [{"question": "a", "answers": []}]})], 50, None)


def test_a_scorer_without_passages_of_its_own_is_refused(in_project):
    """All passages support an evaluated question: none is left to learn support from."""
    data = stored("qa", {"train": TRAIN[:2] * 9, "test": TRAIN[:2], "passages": PASSAGES})
    corpus = build_corpus.fn([data], [], 50, None)
    index = index_corpus.fn(corpus, "minilm", "flat", Prefixes(query="", passage=""), "cpu")
    questions = gather_questions.fn(
        [QuestionSet(dataset="qa", every=True, train="train", test="test")], [data], corpus, 9, 9
    )
    settings = SupportTraining(
        model="minilm", layers=1, max_length=32, negatives=2, steps=1, batch_size=2, learning_rate=1e-3
    )
    with pytest.raises(InputError, match="no right or no wrong passage to learn from"):
        train_support.fn(questions, corpus, index, settings, 0, "cpu")


def test_a_passage_is_encoded_to_its_end(in_project):
    """BM25 sees all of it, and so must the vectors: up to the 512 positions of the encoder."""
    encoder = passage_encoder("minilm", device="cpu")
    long = "The river is wide. " * 60
    first, second = encode(encoder, [long + "It flows through Bamako.", long + "The bank lends money."])
    assert encoder.max_length == 512 and abs(first - second).max() > 1e-3
