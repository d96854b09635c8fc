import shutil
import sys
from pathlib import Path

import pytest

from paperflows.tasks import closure as module
from paperflows.tasks.closure import closure, closure_digest

ROOT = Path(__file__).parent.parent.parent


def names(of):
    return {path.relative_to(ROOT).as_posix() for path in closure(of)}


def test_imports_inside_functions_and_prompt_files_count():
    found = names("paperflows.tasks.annotate")
    assert {"components/annotation/writers.py", "components/llm/endpoint.py", "components/models/tiny_bert.py"} & found
    assert "components/annotation/llm/judge.jinja" in found
    assert not any("contrastive" in name for name in found), "a changed loss must not annotate anew"
    assert "components/contrastive/losses.py" in names("paperflows.tasks.encoders")


def test_what_is_not_imported_is_not_there():
    found = names("paperflows.tasks.data")
    assert "components/data/sources.py" in found
    assert not any("training" in name or "contrastive" in name or "llm" in name for name in found)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of the project's name in another place: a imports b in a function, c is alone."""
    root = tmp_path / "paperflows"
    root.mkdir()
    (root / "__init__.py").write_text("")
    (root / "a.py").write_text('"""Docs."""\n\ndef f():\n    from paperflows import b\n    return b.X\n')
    (root / "b.py").write_text("X = 1\n")
    (root / "c.py").write_text("Y = 1\n")
    (root / "a").mkdir()
    (root / "a" / "prompt.jinja").write_text("hello")
    before = {name: value for name, value in sys.modules.items() if name.split(".")[0] == "paperflows"}
    for name in before:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    clear()
    yield root
    clear()


def clear():
    for function in (module._file, module._imports, module._code_digest, module.closure_digest):
        function.cache_clear()


def digest():
    clear()
    return closure_digest("paperflows.a")


def test_every_change_that_can_matter_changes_the_digest_and_no_other(package):
    first = digest()
    (package / "c.py").write_text("Y = 2\n")
    assert digest() == first, "another module"
    (package / "b.py").write_text("# a comment\nX = 1\n\n\n")
    (package / "a.py").write_text('"""Other docs."""\n\ndef f():\n    from paperflows import b\n\n    return b.X\n')
    assert digest() == first, "comments, docstrings, layout"
    (package / "b.py").write_text("X = 2\n")
    second = digest()
    assert second != first, "an imported constant"
    (package / "a" / "prompt.jinja").write_text("hello!")
    assert digest() not in (first, second), "a prompt file"


def test_digest_does_not_depend_on_the_place(package, tmp_path, monkeypatch):
    first = digest()
    shutil.copytree(package.parent, tmp_path / "elsewhere", ignore=shutil.ignore_patterns("elsewhere"))
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    for name in [n for n in sys.modules if n.split(".")[0] == "paperflows"]:
        monkeypatch.delitem(sys.modules, name)
    assert digest() == first
