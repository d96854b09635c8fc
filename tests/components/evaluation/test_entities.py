import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paperflows.components.evaluation.entities import entity_counts, from_spans, spans, word_counts
from paperflows.components.evaluation.statistics import f1

TAGS = st.sampled_from(["O", "B-A", "I-A", "B-B", "I-B"])
SENTENCES = st.lists(
    st.integers(1, 8).flatmap(
        lambda n: st.tuples(st.lists(TAGS, min_size=n, max_size=n), st.lists(TAGS, min_size=n, max_size=n))
    ),
    min_size=1,
    max_size=6,
)


@given(pairs=SENTENCES)
@settings(max_examples=150, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_f1_is_seqevals(pairs):
    from seqeval.metrics import f1_score

    gold, said = [list(p[0]) for p in pairs], [list(p[1]) for p in pairs]
    assert f1(np.zeros(len(gold)), entity_counts(gold, said)) == pytest.approx(f1_score(gold, said, zero_division=0))


def test_spans_by_hand():
    assert spans(["B-A", "I-A", "I-B", "O", "I-A", "B-A"]) == {(0, 1, "A"), (2, 2, "B"), (4, 4, "A"), (5, 5, "A")}
    assert entity_counts([["B-A", "I-A", "O"]], [["B-A", "O", "B-B"]]).tolist() == [[0, 2, 1]]


def test_tags_from_spans_keep_the_first_of_two_that_overlap():
    entities = [
        {"start": 1, "end": 3, "type": "X"},
        {"start": 2, "end": 4, "type": "Y"},
        {"start": 4, "end": 5, "type": "Y"},
    ]
    assert from_spans(5, entities) == ["O", "B-X", "I-X", "O", "B-Y"]


def test_f1_over_word_counts_is_accuracy():
    counts = word_counts([["N", "V"], ["N"]], [["N", "N"], ["N"]])
    assert f1(np.zeros(2), counts) == pytest.approx(2 / 3)
