"""What is noted of the data is told once, and only by the run that noted it."""

from paperflows.tasks.remarks import noting, remark


def test_remarks_are_those_of_the_run_around_them():
    remark("nobody hears this")
    with noting() as outer:
        remark("a leak")
        remark("a leak")
        with noting() as inner:
            remark("another run's")
        remark("no test")
    assert outer == ["a leak", "no test"] and inner == ["another run's"]
