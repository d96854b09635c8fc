import os

from paperflows.components.cores import cpu_cores


def test_cores_with_and_without_a_system_that_says_which(monkeypatch):
    assert 1 <= cpu_cores() <= (os.cpu_count() or 1)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert cpu_cores() == (os.cpu_count() or 1)
