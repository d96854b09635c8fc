"""UAR's decision, heads, baselines and requests against loops and hand-worked cases."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paperflows.components.retrieval.closed_book import ClosedBook, choose_read, holds_answer, recite
from paperflows.components.retrieval.criteria import (
    HEADS,
    CriteriaHeads,
    RetrievalDecider,
    best_threshold,
    class_weights,
    decide,
    heads_loss,
    knn_unknown,
    load_heads,
    save_heads,
    states_of,
)
from paperflows.components.retrieval.requests import (
    SHOULD_RETRIEVE,
    Item,
    balanced,
    cell_of,
    dress,
    is_static,
    wordings,
)


def test_the_decision_is_the_papers_list_of_questions():
    for intent, knowledge, time, unknown in product([False, True], repeat=4):
        if intent:
            expected = True
        elif not knowledge:
            expected = False
        elif time:
            expected = True
        else:
            expected = unknown
        got = decide(*(np.array([flag]) for flag in (intent, knowledge, time, unknown)))
        assert got.tolist() == [expected]


def test_loss_leaves_out_what_is_not_asked_and_weighs_classes():
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 2, 2), torch.tensor([[0, 1], [1, -1], [0, -1], [0, -1], [0, -1], [0, 0]])
    weights = torch.from_numpy(class_weights(labels.numpy()))
    assert weights.tolist() == pytest.approx(np.array([[0.6, 3.0], [1.0, 1.0]]))
    log = logits.log_softmax(-1)
    first = -(0.6 * (log[[0, 2, 3, 4, 5], 0, 0].sum()) + 3 * log[1, 0, 1]) / (5 * 0.6 + 3)
    second = -(log[0, 1, 1] + log[5, 1, 0]) / 2
    assert float(heads_loss(logits, labels, weights)) == pytest.approx(float(first + second), abs=1e-6)
    assert float(heads_loss(logits, torch.full_like(labels, -1), weights)) == 0


def test_one_request_is_decided_as_in_a_batch_and_from_disk(tmp_path):
    torch.manual_seed(1)
    states = torch.randn(40, 12) * 3 + 1
    heads = CriteriaHeads(states.mean(0), states.std(0))
    save_heads(heads, tmp_path / "heads.safetensors", states={"model": "m", "kind": "k"})
    assert states_of(tmp_path / "heads.safetensors") == {"model": "m", "kind": "k"}
    loaded = load_heads(tmp_path / "heads.safetensors")
    yes = (heads(states)[..., 1] > heads(states)[..., 0]).numpy()
    expected = decide(*yes.T[:4])
    decider = RetrievalDecider(lambda texts: states[[int(t) for t in texts]].numpy(), loaded)
    found = [decider.decide(f"{i}?") for i in range(40)]
    assert [d.retrieve for d in found] == expected.tolist()
    assert [d.criteria["time"] > 0.5 for d in found] == yes[:, 2].tolist()
    assert len(HEADS) == 5


@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=1, max_size=30))
def test_threshold_is_the_best_of_all(pairs):
    scores, wanted = np.array([p[0] for p in pairs], float), np.array([p[1] for p in pairs])
    best = max(((scores > cut) == wanted).mean() for cut in np.arange(-6, 7, 0.5))
    assert ((scores > best_threshold(scores, wanted)) == wanted).mean() == best


def test_neighbours_by_hand():
    train = np.array([[1, 0], [1, 0.1], [0, 1]], np.float32)
    found = knn_unknown(np.array([[2, 0], [0, 3]], np.float32), train, np.array([True, False, False]), 2)
    assert found.tolist() == [0.5, 0.0]


def test_a_closed_book_knows_what_it_has_read():
    torch.manual_seed(0)
    encoded = torch.randn(60, 16)
    model = ClosedBook(16, 64, 30)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(encoded[:30]), torch.arange(30)).backward()
        optimizer.step()
    answers, confidence = recite(model, encoded)
    assert answers[:30].tolist() == list(range(30))
    assert confidence[:30].mean() > confidence[30:].mean()


def test_what_is_read_follows_topics():
    random = np.random.default_rng(0)
    centres = random.normal(size=(10, 8)) * 20
    topic = np.repeat(np.arange(10), 100)
    read = choose_read(
        (centres[topic] + random.normal(size=(1000, 8))).astype(np.float32), topics=10, share=0.5, seed=0
    )
    shares = sorted(read[topic == t].mean() for t in range(10))
    assert max(shares[:5]) < 0.2 and min(shares[5:]) > 0.8


@pytest.mark.parametrize(
    ("text", "answers", "expected"),
    [
        ("It is the Naira, they say.", ["naira"], True),
        ("Nairas", ["naira"], False),
        ("The U.S.A. won", ["usa", "U.S.A."], True),
        ("of an age", ["the"], False),
        ("", ["x"], False),
    ],
)
def test_answers_stand_as_whole_words(text, answers, expected):
    assert holds_answer(text, answers) is expected


def test_requests_keep_wordings_apart_and_labels_right():
    for kind in ("asking", "mentioning"):
        assert not set(wordings(kind, "train")) & set(wordings(kind, "test"))
        assert all(around.count("|") == 1 and "{" not in around for around in wordings(kind, "train"))
    items = {
        part: [Item(f"fact {i}?", "facts", "f", ("a",)) for i in range(60)]
        + [Item(f"today {i}?", "timed", "t") for i in range(60)]
        + [Item(f"poem {i}.", "other", "o") for i in range(60)]
        for part in ("train", "test")
    }
    rows = dress(items, asking=0.3, mentioning=0.2, seed=0)
    assert len(rows) == 360
    for row in rows:
        assert not row["text"].endswith(("?", ".")) and row["bare"] in row["text"]
        around = row["text"].replace(row["bare"], "|")
        used = wordings("asking" if row["intent"] else "mentioning", row["part"])
        assert around == "|" or around in [w.replace("| ", "|. ").rstrip(".") for w in used]
        assert row["time"] == {"facts": False, "timed": True, "other": None}[row["kind"]]
    cells = [cell_of(row, known=int(row["bare"].split()[1]) % 2 == 0) for row in rows]
    mix = balanced(cells, most=120, seed=0)
    counts = {cell: sum(cells[p] == cell for p in mix) for cell in SHOULD_RETRIEVE}
    assert counts == {"asked": 20, "timed": 20, "unknown": 20, "other": 30, "known": 30}
    assert balanced(["asked", "timed"], most=9, seed=0) == []


def test_questions_of_the_present_are_not_static():
    assert (
        is_static("who wrote hamlet")
        and not is_static("who is the current pope")
        and not is_static("nba champion 2017")
    )
