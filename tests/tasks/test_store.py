import json
import resource
from pathlib import Path

import pytest

from paperflows.components.errors import InputError, ServiceError
from paperflows.tasks.store import artifacts_in, intact, new_artifact, open_artifact


def make(text="x"):
    with new_artifact() as (folder, artifact):
        (folder / "a.txt").write_text(text, encoding="utf-8")
    return artifact


def test_equal_content_is_one_artifact(in_project):
    one, two, other = make(), make(), make("y")
    assert one == two and one["sha256"] != other["sha256"]
    assert open_artifact(one).joinpath("a.txt").read_text() == "x"


def test_nothing_stays_of_a_failure(in_project):
    with pytest.raises(KeyboardInterrupt), new_artifact() as (folder, _):
        (folder / "a.txt").write_text("x")
        raise KeyboardInterrupt
    assert not list((in_project / ".state").rglob("a.txt"))


def test_damage_is_seen_and_repaired_by_writing_again(in_project):
    artifact = make()
    open_artifact(artifact).joinpath("a.txt").write_text("damaged")
    assert not intact(artifact)
    with pytest.raises(InputError, match="gone or damaged"):
        open_artifact(artifact)
    assert make() == artifact and intact(artifact)


def test_full_disk_is_named_and_leaves_nothing(in_project):
    """A file size limit of the process gives the error of a full disk without one."""
    make("before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(ServiceError, match=r"cannot write below .*\.state"), new_artifact() as (folder, _):
            (folder / "big").write_bytes(b"0" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    assert not list((in_project / ".state" / "build").iterdir())


def test_artifacts_are_found_in_results():
    a = {"path": "/x", "sha256": "1", "rows": 3}
    assert artifacts_in({"k": [a, {"m": a}], "n": 1}) == [{"path": "/x", "sha256": "1"}] * 2


def test_stored_files_are_plain(in_project):
    artifact = make(json.dumps({"a": 1}))
    assert [p.name for p in Path(artifact["path"]).iterdir()] == ["a.txt"]
