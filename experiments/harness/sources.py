"""A hash of what computes, so that the records of older code are not taken for those of today's.

It covers the definitions of the experiment's script that its `compute` leads to, and every file of
`lprjax` and `experiments` that those import, directly or through each other; without comments and
docstrings, so that only what a computer sees counts. What draws, sums up and writes captions is not
among them.
"""

import ast
import functools
import hashlib
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import experiments
import lprjax

ROOTS = {package.__name__: Path(package.__path__[0]) for package in (lprjax, experiments)}
"""Folders of the packages whose changes count."""


@functools.cache
def code_hash(compute: Callable[..., Any]) -> str:
    """SHA-256 of the code that computes a point.

    Args:
        compute: a function of a script, or a `functools.partial` of one.

    Returns:
        64 hexadecimal digits.
    """
    function = inspect.unwrap(getattr(compute, "func", compute))
    script = ast.parse(Path(inspect.getfile(function)).read_text(encoding="utf-8"))
    start = function.__qualname__.partition(".")[0]
    used = _without_texts(ast.Module(_reached(script.body, start), type_ignores=[]))
    text = ast.dump(used) + "".join(_dumped(path) for path in _files(_imported(used)))
    return hashlib.sha256(text.encode()).hexdigest()


def _reached(body: list[ast.stmt], start: str) -> list[ast.stmt]:
    """The statements that define a name, what they use, and so on; and all that are calls."""
    found = {at for at, statement in enumerate(body) if isinstance(statement, ast.Expr)}
    names, todo = set(), [start]
    while todo:
        name = todo.pop()
        names.add(name)
        for at, statement in enumerate(body):
            if at not in found and name in _defined(statement):
                found.add(at)
                nodes = list(ast.walk(statement))
                todo += [n.id for n in nodes if isinstance(n, ast.Name) and n.id not in names]
    return [body[at] for at in sorted(found)]


def _defined(statement: ast.stmt) -> set[str]:
    """Names that a statement of a module gives a meaning to."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
    targets = (n for n in ast.walk(statement) if isinstance(getattr(n, "ctx", None), ast.Store))
    return {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}


def _imported(tree: ast.AST) -> set[str]:
    """Dotted names that are imported, anywhere in it: `from a import b` gives a.b."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _files(names: Iterable[str]) -> list[Path]:
    """The files of these modules and of those that they import, in a fixed order."""
    found: set[Path] = set()
    todo = list(names)
    while todo:
        path = _file(todo.pop())
        if path is not None and path not in found:
            found.add(path)
            todo += _imported(_parsed(path))
    return sorted(found)


def _file(name: str) -> Path | None:
    """The file that a dotted name leads into; None for another package's."""
    root, *parts = name.split(".")
    if root not in ROOTS:
        return None
    path = ROOTS[root]
    for part in parts:
        if (path / f"{part}.py").is_file():
            return path / f"{part}.py"
        if not (path / part).is_dir():
            break
        path = path / part
    return path / "__init__.py"


@functools.cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def _dumped(path: Path) -> str:
    return ast.dump(_without_texts(_parsed(path)))


def _without_texts(tree: ast.Module) -> ast.Module:
    """Without docstrings and other strings that stand alone."""
    for node in ast.walk(tree):
        for part in ("body", "orelse", "finalbody"):
            statements = getattr(node, part, None)
            if isinstance(statements, list):
                setattr(node, part, [s for s in statements if not _is_text(s)])
    return tree


def _is_text(statement: ast.AST) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
