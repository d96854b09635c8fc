"""Rules that the whole source keeps."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    path for layer in ("paperflows", "flows", "tasks", "components", "kernels") for path in (ROOT / layer).rglob("*.py")
)
FORBIDDEN_IMPORTS = {"pickle", "cPickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}
FORBIDDEN_CALLS = {"eval", "exec", "torch.load", "yaml.load", "yaml.unsafe_load", "os.system"}


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_source_keeps_the_rules(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert not {m.split(".")[0] for m in modules} & FORBIDDEN_IMPORTS
        if isinstance(node, ast.ExceptHandler):
            silent = len(node.body) == 1 and isinstance(node.body[0], ast.Pass)
            broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            assert not (silent and broad), f"line {node.lineno}: an error is swallowed"
    for name, call in calls(tree):
        assert name not in FORBIDDEN_CALLS, f"line {call.lineno}: {name}"
        keywords = {k.arg: ast.unparse(k.value) for k in call.keywords}
        assert keywords.get("shell") != "True", f"line {call.lineno}: a shell"
        assert keywords.get("trust_remote_code") != "True" and keywords.get("allow_pickle") != "True"
        assert not (name.startswith("subprocess.") and call.args and isinstance(call.args[0], ast.Constant))


@pytest.mark.parametrize("name", ["kernels", "flows", "tasks", "components"])
def test_layers_are_not_top_level_packages_under_pytest(name):
    assert importlib.util.find_spec(name) is None


def test_nor_in_the_command():
    code = "import importlib.util as u, paperflows.cli; print([n for n in ('kernels', 'flows', 'tasks') if u.find_spec(n)])"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd="/")
    assert done.stdout.strip() == "[]"


def test_generated_files_are_up_to_date():
    from paperflows.sync import synchronise

    assert synchronise(check=True) == []


def test_pins_hold_what_pyproject_asks():
    import tomllib

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {canonicalize_name(n): v for n, _, v in (line.partition("==") for line in lines if "==" in line)}
    extras = [r for name, group in project["optional-dependencies"].items() if name != "gpu" for r in group]
    for text in [*project["dependencies"], *extras]:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name} has no pin in constraints.txt"
        assert requirement.specifier.contains(pins[name]), f"{text} against the pin {pins[name]}"
