import subprocess

from paperflows.tasks.versions import is_ignored


def test_what_git_ignores_is_known_before_a_run(tmp_path):
    assert not is_ignored(tmp_path, "runs/run.dvc")  # no repository at all
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    assert not is_ignored(tmp_path, "runs/run.dvc")
    (tmp_path / ".git" / "info").mkdir(exist_ok=True)
    (tmp_path / ".git" / "info" / "exclude").write_text("/runs/\n")
    assert is_ignored(tmp_path, "runs/run.dvc")
