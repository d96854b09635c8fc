"""The loop of verified retrieval, its offline judge and the measures of citations, by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperflows.components.retrieval.citations import (
    Gold,
    Statement,
    answer_recall,
    citation_precision,
    citation_recall,
    is_sufficient,
    judgements_of,
    known_support,
    shuffled,
)
from paperflows.components.retrieval.names import TitleLinks
from paperflows.components.retrieval.support import SupportReader, best_f_threshold, choose_covering, part_of
from paperflows.components.retrieval.verified import Ask, Settings, retrieve_verified

PASSAGES = [
    {"title": "Chad", "text": "Chad borders Niger. Chad borders South Sudan."},
    {"title": "Niamey", "text": "Niamey is the capital of Niger."},
    {"title": "Juba", "text": "Juba is the capital of South Sudan."},
    {"title": "Niger", "text": "Niger has a river."},
    {"title": "South Sudan", "text": "South Sudan is hot."},
    {"title": "Sudan", "text": "Sudan is not meant."},
    *({"title": f"Town {i}", "text": "A town."} for i in range(40)),
]
QUESTION = "Name the capitals of the countries that border Chad."
GOLD = {
    (QUESTION, 0): (0.9, 0.1), (part_of(QUESTION, "Niger"), 1): (0.9, 0.9), (part_of(QUESTION, "South Sudan"), 2): (0.8, 0.9)
}  # fmt: skip


def reader(questions=(QUESTION,)):
    def score(parts, places):
        found = [GOLD.get(pair, (0.05, 0.02)) for pair in zip(parts, places, strict=True)]
        return np.array([(*two, 0.5) for two in found], np.float32)

    def cosine(parts, places):
        return np.array([GOLD.get(pair, (0.0,))[0] for pair in zip(parts, places, strict=True)], np.float32)

    links = TitleLinks(p["title"] for p in PASSAGES)
    return SupportReader(list(questions), PASSAGES, score, cosine, links=links, looks=3)


def search(queries, depth):
    """The passage on the name after the colon; else Chad and towns."""
    found = []
    for query in queries:
        name = query.partition(": ")[2].rstrip("?")
        first = [i for i, p in enumerate(PASSAGES) if name and p["text"].endswith(f"capital of {name}.")] or [0]
        found.append((first + list(range(6, 46)))[:depth])
    return found


def test_a_fan_is_followed_along_its_links():
    judge = reader()
    (outcome,) = retrieve_verified([QUESTION], search, judge, Settings(keep=3, pool=30, window=10, rounds=4))
    assert outcome.verified and outcome.rounds == 2 and set(outcome.chosen) == {0, 1, 2}
    assert [step["verified"] for step in outcome.trace] == [False, True]
    assert outcome.trace[1]["queries"] == [part_of(QUESTION, "Niger"), part_of(QUESTION, "South Sudan")]
    (reading,) = judge.read([(0, outcome.chosen)])
    assert reading.links == (0,) and reading.complete
    assert reading.answered == {part_of(QUESTION, "Niger"): [1], part_of(QUESTION, "South Sudan"): [2]}
    (one,) = retrieve_verified([QUESTION], search, reader(), Settings(keep=3, pool=30, window=10, rounds=1))
    assert not one.verified and one.rounds == 1 and 1 not in one.chosen


class Recorder:
    """Picks the window's last passages, never verifies, always asks for more."""

    def __init__(self):
        self.asks, self.verified = [], []

    def select(self, asks, keep):
        self.asks += asks
        return [[*ask.window[-2:], 999, *ask.chosen] for ask in asks]

    def verify(self, asks):
        self.verified.append([ask.question for ask in asks])
        return [ask.question == 1 for ask in asks]

    def missing(self, asks):
        return [[f"more {ask.question}"] if ask.question != 2 else [] for ask in asks]


def test_rounds_are_capped_and_no_passage_is_shown_twice_in_one():
    judge, depths = Recorder(), []

    def find(queries, depth):
        depths.append(len(queries))
        return [list(range(25)) for _ in queries]

    outcomes = retrieve_verified(["a", "b", "c"], find, judge, Settings(keep=5, pool=20, window=8, rounds=3))
    assert judge.verified == [[0, 1, 2], [0], [0]] and depths == [3, 1, 1]
    assert [o.rounds for o in outcomes] == [3, 1, 1] and [o.verified for o in outcomes] == [False, True, False]
    for asks in ([a for a in judge.asks if a.question == 1],):
        shown = [place for ask in asks for place in ask.window]
        assert len(shown) == len(set(shown)) == 20 and [len(a.window) for a in asks] == [8, 8, 4]
        assert all(not set(a.window) & set(a.chosen) for a in asks)
    assert all(999 not in o.chosen and len(o.chosen) <= 5 and len(set(o.chosen)) == len(o.chosen) for o in outcomes)
    assert outcomes[1].chosen == [18, 19, 14, 15, 6], "later windows compete with what was chosen before"


class Silent(Recorder):
    """Names nothing that it was shown."""

    def select(self, asks, keep):
        return [[999] for _ in asks]


def test_a_reply_that_names_nothing_shown_keeps_the_budget_and_what_was_chosen():
    (outcome,) = retrieve_verified(["a"], lambda q, n: [list(range(n))] * len(q), Silent(), Settings(3, 8, 4, 2))
    assert outcome.chosen == [0, 1, 2] and outcome.trace[0]["chosen"] == [0, 1, 2]


def test_sets_avoid_redundancy_by_hand():
    gains = np.array([[0.9, 0.8, 0.1], [0.0, 0.1, 0.6]])
    assert choose_covering(gains, 2) == [0, 2], "not the two best for one part"
    assert choose_covering(gains, 9) == [0, 2, 1]


@given(st.lists(st.lists(st.floats(0, 1), min_size=5, max_size=5), min_size=1, max_size=3), st.integers(1, 5))
def test_greedy_cover_is_near_the_best_set(rows, keep):
    from itertools import combinations

    gains = np.array(rows)
    chosen = choose_covering(gains, keep)
    assert len(set(chosen)) == len(chosen) == keep
    best = max(gains[:, list(some)].max(1).sum() for some in combinations(range(5), keep))
    assert gains[:, chosen].max(1).sum() >= (1 - 1 / np.e) * best - 0.01


@pytest.mark.parametrize("beta", [1.0, 0.5])
@given(st.lists(st.tuples(st.integers(1, 99), st.booleans()), min_size=1, max_size=25, unique_by=lambda pair: pair[0]))
def test_threshold_of_the_best_f(beta, pairs):
    chance, label = np.array([p / 100 for p, _ in pairs], np.float32), np.array([b for _, b in pairs])

    def f(cut):
        said = chance > cut
        if not (said & label).any():
            return 0.0
        precision, recall = label[said].mean(), said[label].mean()
        return (1 + beta**2) * precision * recall / (beta**2 * precision + recall)

    if label.any():
        best = max(f(cut) for cut in np.arange(-0.005, 1, 0.01))
        assert f(best_f_threshold(chance, label, beta=beta)) == pytest.approx(best)


def test_titles_in_a_text():
    links = TitleLinks(["the Niger", "South Sudan", "Sudan", "Port-au-Prince", ""])
    assert links.named_in("South Sudan borders Niger; Sudan, Niger and Port-au-Prince") == [
        "South Sudan", "Niger", "Sudan", "Port-au-Prince",
    ]  # fmt: skip


def test_what_was_found_stays_when_only_the_rest_is_asked_for():
    judge = reader()
    rest = Ask(0, (part_of(QUESTION, "South Sudan"),), (0, 1), (6, 2, 7, 8))
    assert set(judge.select([rest], 3)[0]) == {0, 1, 2}


def test_nothing_is_asked_for_twice():
    judge = reader()
    ask = Ask(0, (QUESTION,), (0,))
    assert judge.verify([ask]) == [False]
    more = judge.missing([ask])[0]
    assert judge.missing([Ask(0, tuple(more), (0,))]) == [[]]
    assert judge.scored == 3


FAN = Gold((("Niamey",), ("Juba", "Djuba")), (frozenset({1, 7}), frozenset({2})), (frozenset({0}),))


def test_citations_by_hand():
    good = [Statement("Niamey is the capital of Niger.", (1, 0)), Statement("Djuba it is", (2, 0))]
    fan = known_support(FAN)
    assert answer_recall(good, FAN) == citation_recall(good, fan) == citation_precision(good, fan) == 1.0
    no_link = [Statement("Niamey", (1,))]
    assert answer_recall(no_link, FAN) == 0.5
    assert citation_recall(no_link, fan) == citation_precision(no_link, fan) == 0.0
    extra = [Statement("Niamey", (7, 0, 30))]
    assert citation_recall(extra, fan) == 1.0 and citation_precision(extra, fan) == pytest.approx(2 / 3)
    twice = [Statement("Niamey", (1, 7, 0))]
    assert citation_precision(twice, fan) == pytest.approx(1 / 3), "with the link, either holder would do"
    assert citation_recall([Statement("Juba", (1, 0))], fan) == 0.0 and citation_recall([], fan) == 0.0
    unlinked = known_support(Gold((("a",),), (frozenset({1, 2}),)))
    both = [Statement("a", (1, 2, 3))]
    assert citation_precision(both, unlinked) == pytest.approx(2 / 3), "each of 1 and 2 supports it alone"
    assert is_sufficient([0, 7, 2, 9], FAN) and not is_sufficient([0, 1, 7], FAN) and not is_sufficient([1, 2], FAN)


@given(st.lists(st.sampled_from(range(6)), unique=True, max_size=4), st.integers(0, 63))
def test_the_measures_ask_for_no_other_judgement(cites, by):
    statements = [Statement("x", tuple(cites))]
    known = {pair: bool(by >> pair[1][0] & 1) for pair in judgements_of(statements)}

    def supported(text, cited):
        return bool(cited) and known[text, tuple(cited)]

    expected = float(bool(cites) and by >> cites[0] & 1)
    assert citation_recall(statements, supported) == expected
    assert citation_precision(statements, supported) <= expected


def test_shuffled_citations_support_nothing():
    golds = {i: Gold(((f"w{i}",),), (frozenset({i}),)) for i in range(5)}
    answers = {i: [Statement(f"w{i}", (i,)), Statement("x", ())] for i in range(5)}
    control = shuffled(answers)
    assert [citation_recall(answers[i], known_support(golds[i])) for i in golds] == [0.5] * 5
    assert [citation_recall(control[i], known_support(golds[i])) for i in golds] == [0.0] * 5
    assert all([s.text for s in control[i]] == [s.text for s in answers[i]] for i in golds)
