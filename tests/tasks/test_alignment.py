"""What becomes of a request that a service refused."""

from paperflows.tasks.alignment import _unanswered


def test_an_answer_that_never_came_is_no_harmless_answer():
    answered = {"id": "1", "answer": "no", "error": "", "score": 3, "doubt": 0.1}
    refused = {"id": "2", "answer": "", "error": "400: content policy", "score": 3, "doubt": 0.0}
    assert _unanswered([answered, refused]) == [answered, {**refused, "score": 1, "doubt": 1.0}]
