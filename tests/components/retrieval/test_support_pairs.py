"""Training pairs of the support scorer, by hand."""

from paperflows.components.retrieval.names import TitleLinks
from paperflows.components.retrieval.support import part_of
from paperflows.components.retrieval.support_pairs import UNKNOWN, build_pairs, parts_of

PASSAGES = [
    {"title": "Chad", "text": "Chad borders Niger. Chad borders the Sudan."},
    {"title": "Niamey", "text": "Niamey is the capital of Niger."},
    {"title": "the Sudan", "text": "The Sudan pays with the pound."},
    {"title": "Niger", "text": "Niger is dry."},
    {"title": "Town", "text": "A town."},
    {"title": "Village", "text": "A village."},
]
FAN = {"text": "What about the neighbours of Chad?", "holders": [[1], [2]], "links": [[0]]}
ONE = {"text": "Which town?", "holders": [[4]], "links": []}
NIGER, SUDAN = part_of(FAN["text"], "Niger"), part_of(FAN["text"], "Sudan")
LINKS = TitleLinks(p["title"] for p in PASSAGES)


def pairs_of(forbidden=()):
    nearest = {part: list(range(6)) for part in (FAN["text"], NIGER, SUDAN, ONE["text"])}
    return set(build_pairs([FAN, ONE], PASSAGES, nearest, set(forbidden), LINKS, negatives=9, seed=0))


def test_parts_belong_to_the_passages_about_their_names():
    assert parts_of(FAN, PASSAGES, LINKS) == {NIGER: 1, SUDAN: 2}


def test_labels_by_hand():
    pairs = pairs_of()
    assert {p for p in pairs if p[2:4] != (0, 0)} == {
        (FAN["text"], 0, 1, 0, 1), (FAN["text"], 1, UNKNOWN, UNKNOWN, 1), (FAN["text"], 2, UNKNOWN, UNKNOWN, 1),
        (NIGER, 1, 1, 1, UNKNOWN), (SUDAN, 2, 1, 1, UNKNOWN), (ONE["text"], 4, 1, 1, 1),
    }  # fmt: skip
    wrong = {(part, place) for part, place, *labels in pairs if labels[:2] == [0, 0]}
    assert {p[4] for p in pairs if p[2:4] == (0, 0)} == {0, UNKNOWN}
    assert all(p[4] == (UNKNOWN if p[0] in (NIGER, SUDAN) else 0) for p in pairs if p[2:4] == (0, 0))
    assert {place for part, place in wrong if part == FAN["text"]} == {3, 4, 5}, (
        "answers are not wrong without the link"
    )
    assert {place for part, place in wrong if part == NIGER} == {0, 2, 3, 4, 5}
    assert {place for part, place in wrong if part == ONE["text"]} == {0, 1, 2, 3, 5}


def test_no_pair_holds_a_forbidden_passage():
    assert {place for _, place, *_ in pairs_of({1, 3, 4})} == {0, 2, 5}
