"""Resolves names in a syntax tree to the dotted names that they stand for.

A rule such as "no clock" has to see through `from time import monotonic as now` and
`import datetime as dt`, otherwise it only forbids the obvious spelling.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from tests.tidy.tree import Source

COMPUTED = "(a computed name)"
"""Stands for an imported name that is only known when the program runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One imported dotted name.

    Attributes:
        name: What is imported, absolute: `detent.core.policy.weight`, or `time.monotonic`.
        line: Where, counted from one.
        deferred: Whether it stands inside a function, so that importing the module skips it.
        typing_only: Whether it stands under `if TYPE_CHECKING`, so that it never runs.

    """

    name: str
    line: int
    deferred: bool
    typing_only: bool


def imports(source: Source) -> Iterator[Import]:
    """Yield everything that a file imports, dynamic imports included."""
    yield from _imports(source, source.tree, deferred=False, typing_only=False)


def _imports(
    source: Source, node: ast.AST, *, deferred: bool, typing_only: bool
) -> Iterator[Import]:
    for name in _imported_names(source, node):
        line = getattr(node, "lineno", 1)
        yield Import(name=name, line=line, deferred=deferred, typing_only=typing_only)
    inside = deferred or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    guarded = set(node.body) if isinstance(node, ast.If) and _is_type_checking(node.test) else set()
    for child in ast.iter_child_nodes(node):
        typed = typing_only or child in guarded
        yield from _imports(source, child, deferred=inside, typing_only=typed)


def _imported_names(source: Source, node: ast.AST) -> list[str]:
    match node:
        case ast.Import():
            return [alias.name for alias in node.names]
        case ast.ImportFrom():
            base = _absolute(source, node)
            return [base if alias.name == "*" else f"{base}.{alias.name}" for alias in node.names]
        case ast.Call(args=[ast.Constant(value=str(name)), *_]) if _is_dynamic(node.func):
            return [name]
        case ast.Call() if _is_dynamic(node.func):
            return [COMPUTED]
    return []


def _absolute(source: Source, node: ast.ImportFrom) -> str:
    if node.level == 0:
        return node.module or ""
    base = source.package.split(".")
    kept = base[: len(base) - (node.level - 1)]
    return ".".join([*kept, *([node.module] if node.module else [])])


def _is_dynamic(function: ast.expr) -> bool:
    return ast.unparse(function) in {"importlib.import_module", "import_module", "__import__"}


def _is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def aliases(source: Source) -> dict[str, str]:
    """Map every local name that an import binds to the dotted name behind it."""
    bound: dict[str, str] = {}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                bound[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(source, node)
            for alias in node.names:
                bound[alias.asname or alias.name] = f"{base}.{alias.name}"
    return bound


def references(source: Source) -> Iterator[tuple[ast.expr, str]]:
    """Yield each use of an imported name as (node, dotted name), longest chains only.

    A use is any mention, not only a call: a clock handed on as a default argument is a clock too.
    """
    bound = aliases(source)
    inner: set[int] = set()
    for node in ast.walk(source.tree):
        if id(node) in inner or not isinstance(node, ast.Name | ast.Attribute):
            continue
        chain: list[str] = []
        part: ast.expr = node
        while isinstance(part, ast.Attribute):
            chain.append(part.attr)
            part = part.value
            inner.add(id(part))
        if isinstance(part, ast.Name) and part.id in bound:
            yield node, ".".join([bound[part.id], *reversed(chain)])
