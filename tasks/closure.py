"""The import closure of a module of this project: every file whose change may change what the module computes."""

import ast
import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "paperflows"


def closure(module: str) -> tuple[Path, ...]:
    """Files of `module` and of everything of this project that it imports, directly or not, sorted by path.

    Imports inside functions count. Files that are not Python (prompts, templates) belong to the package beside them.
    """
    seen: dict[str, Path] = {}
    todo = [module]
    while todo:
        name = todo.pop()
        if name not in seen and (path := _file(name)):
            seen[name] = path
            todo += _imports(path, name, path.stat().st_mtime_ns)
    data = {
        extra
        for path in seen.values()
        if path.name != "__init__.py"
        for folder in [path.parent / path.stem]
        if folder.is_dir() and not (folder / "__init__.py").exists()
        for extra in folder.rglob("*")
        if extra.is_file() and "__pycache__" not in extra.parts
    }
    return tuple(sorted({*seen.values(), *data}))


@cache
def closure_digest(module: str) -> str:
    """Hash of the closure's code, as it was when this process first asked; without comments and docstrings."""
    digest = hashlib.sha256()
    for path in closure(module):
        digest.update(f"{path.name}:{_code_digest(path, path.stat().st_mtime_ns)}\n".encode())
    return digest.hexdigest()[:16]


@cache
def _file(module: str) -> Path | None:
    """Source file of a module of this project; None for anything else (an imported name, another package)."""
    if module != PACKAGE and not module.startswith(f"{PACKAGE}."):
        return None
    parent = module.rpartition(".")[0]
    if parent:
        above = _file(parent)
        if above is None or above.name != "__init__.py":
            return None
    spec = find_spec(module)
    return Path(spec.origin).resolve() if spec and spec.origin else None


@cache
def _imports(path: Path, module: str, _mtime: int) -> tuple[str, ...]:
    names: list[str] = []
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(
                    [*package.split(".")[: len(package.split(".")) - node.level + 1], *filter(None, [base])]
                )
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return tuple(names)


@cache
def _code_digest(path: Path, _mtime: int) -> str:
    if path.suffix != ".py":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                first.value.value = ""
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()
