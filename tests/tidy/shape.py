"""Checks the outward form of the code: sizes, docstrings, annotations, names, broad excepts.

These rules are cheap to keep and dear to restore, which is why they are tests and not habits.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.tidy.tree import Offence, Source

FUNCTION_LINES_MAX = 70
"""A function that is longer does more than one thing."""

FILE_LINES_MAX = 500
"""A file that is longer has more than one job."""

COLUMNS_MAX = 100
"""What two panes side by side still show."""

REFUSED_NAMES = frozenset({"util", "utils", "helper", "helpers", "common", "manager", "managers"})
"""Names that say nothing about a module's job and so attract every job."""

UNFINISHED = re.compile(r"\b(TO[D]O|FIX[M]E|NotImplemented[E]rror)\b")
"""Marks of work that was left for later, spelt so that this file passes its own rule."""

BROAD = frozenset({"Exception", "BaseException"})
"""Classes whose handlers also swallow defects."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def check_sizes(source: Source) -> list[Offence]:
    """Report functions, files and lines that are too long."""
    offences = []
    for number, line in enumerate(source.text.splitlines(), start=1):
        if len(line) > COLUMNS_MAX:
            offences.append(source.offence(number, f"{len(line)} columns, {COLUMNS_MAX} allowed"))
    lines = source.text.count("\n")
    if lines > FILE_LINES_MAX:
        offences.append(source.offence(1, f"{lines} lines, {FILE_LINES_MAX} allowed"))
    for function in functions(source):
        length = (function.end_lineno or function.lineno) - function.lineno + 1
        if length > FUNCTION_LINES_MAX:
            what = f"{function.name} has {length} lines, {FUNCTION_LINES_MAX} allowed"
            offences.append(source.offence(function, what))
    return offences


def functions(source: Source) -> Iterator[Function]:
    """Yield every function and method of a file, nested ones included."""
    for node in ast.walk(source.tree):
        if isinstance(node, Function):
            yield node


def check_module_docstring(source: Source) -> list[Offence]:
    """Report a module that does not say its one job."""
    if ast.get_docstring(source.tree) or not source.text.strip():
        return []
    return [source.offence(1, "no module docstring")]


def check_docstrings(source: Source) -> list[Offence]:
    """Report public classes, functions and methods without a docstring.

    A method that is marked as an override inherits its contract, and so its words.
    """
    return [
        source.offence(node, f"{name} has no docstring")
        for node, name in _public(source.tree, prefix="")
        if not ast.get_docstring(node) and not _is_override(node)
    ]


def _public(
    parent: ast.Module | ast.ClassDef, *, prefix: str
) -> Iterator[tuple[Function | ast.ClassDef, str]]:
    for node in parent.body:
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        yield node, prefix + node.name
        if isinstance(node, ast.ClassDef):
            yield from _public(node, prefix=f"{prefix}{node.name}.")


def _is_override(node: Function | ast.ClassDef) -> bool:
    marks = {"override", "typing.override", "overload", "typing.overload"}
    return any(_is_marked(decorator, marks) for decorator in node.decorator_list)


def _is_marked(decorator: ast.expr, marks: set[str]) -> bool:
    text = ast.unparse(decorator)
    return text in marks or text.endswith(".setter")


def check_annotations(source: Source) -> list[Offence]:
    """Report parameters and results without a type, of private functions too."""
    offences = []
    for function in functions(source):
        if function.returns is None:
            offences.append(source.offence(function, f"{function.name} does not type its result"))
        spec = function.args
        named = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs]
        starred = [argument for argument in (spec.vararg, spec.kwarg) if argument is not None]
        for position, argument in enumerate([*named, *starred]):
            bound = position == 0 and argument.arg in {"self", "cls"}
            if argument.annotation is None and not bound:
                what = f"{function.name} does not type {argument.arg}"
                offences.append(source.offence(function, what))
    return offences


def check_broad_except(source: Source, *, allowed: int = 0) -> list[Offence]:
    """Report handlers that catch everything, once there are more than a stated number of them.

    One that tidies up and always raises the same error again hides nothing, and is left alone.

    Args:
        source: The file.
        allowed: How many such handlers this file has a written reason for.

    """
    offences = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler) and _is_broad(node.type) and not _passes_on(node):
            offences.append(source.offence(node, "catches everything, defects included"))
        elif isinstance(node, ast.Call) and _suppresses_broadly(node):
            offences.append(source.offence(node, "suppresses everything, defects included"))
    return offences if len(offences) > allowed else []


def _passes_on(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    raises = isinstance(last, ast.Raise) and last.exc is None
    ways_out = (ast.Return, ast.Break, ast.Continue)
    return raises and not any(isinstance(node, ways_out) for node in ast.walk(handler))


def _suppresses_broadly(call: ast.Call) -> bool:
    named = ast.unparse(call.func).endswith("suppress")
    return named and any(_is_broad(argument) for argument in call.args)


def _is_broad(caught: ast.expr | None) -> bool:
    if caught is None:
        return True
    if isinstance(caught, ast.Tuple):
        return any(_is_broad(part) for part in caught.elts)
    return ast.unparse(caught).rpartition(".")[2] in BROAD


def check_unfinished(path: str, text: str) -> list[Offence]:
    """Report marks of unfinished work in any text file."""
    return [
        Offence(path=path, line=number, what=f"unfinished: {found.group()}")
        for number, line in enumerate(text.splitlines(), start=1)
        for found in UNFINISHED.finditer(line)
    ]


def check_module_name(path: str) -> list[Offence]:
    """Report folders and modules whose name says nothing."""
    return [
        Offence(path=path, line=1, what=f"{part!r} names no job")
        for part in path.removesuffix(".py").split("/")
        if part.rpartition("_")[2] in REFUSED_NAMES
    ]
