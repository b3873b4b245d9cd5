"""Finds the repository's files and says what an offence is.

Every checker of this folder is a plain function from a source to offences, so that a test can hand
it the real tree and, right beside that, a planted offence which it must not let through.
"""

from __future__ import annotations

import ast
import fnmatch
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The repository's root folder."""

SOURCE_ROOTS = ("services", "clients")
"""Folders that are put on the import path: what lies below them is the product."""

PYTHON_ROOTS = (*SOURCE_ROOTS, "tests", "benchmarks", "deploy", "docs")
"""Every folder that may hold hand-written Python."""

GENERATED = "services/detent/api/"
"""Written by `make protos`; no rule about style applies to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offence:
    """One broken rule at one place, printed as a compiler would print it."""

    path: str
    line: int
    what: str

    def __str__(self) -> str:
        """Format as `path:line: what`, which editors turn into a link."""
        return f"{self.path}:{self.line}: {self.what}"


@dataclass(frozen=True)
class Source:
    """One Python file: its path below the root with forward slashes, and its text.

    Tests build sources from literals, which is why nothing here touches the disk.
    """

    path: str
    text: str

    @functools.cached_property
    def tree(self) -> ast.Module:
        """The parsed module."""
        return ast.parse(self.text, filename=self.path)

    @property
    def module(self) -> str:
        """The dotted name under which product code imports this file."""
        parts = Path(self.path).with_suffix("").parts
        parts = parts[1:] if parts[0] in SOURCE_ROOTS else parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def package(self) -> str:
        """The dotted name against which this file's relative imports resolve."""
        if self.path.endswith("/__init__.py"):
            return self.module
        return self.module.rpartition(".")[0]

    def offence(self, node: ast.AST | int, what: str) -> Offence:
        """Name a broken rule at a node, or at a line number counted from one."""
        line = node if isinstance(node, int) else getattr(node, "lineno", 1)
        return Offence(path=self.path, line=line, what=what)


@functools.cache
def _ignore_patterns() -> tuple[str, ...]:
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    return tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))


def is_ignored(path: str, *, patterns: tuple[str, ...] | None = None) -> bool:
    """Say whether git would leave a path alone.

    Understands the plain forms that our own ignore file uses: `/name/` at the top, `name/` at any
    depth, and shell patterns. Git itself is not asked, since an unpacked archive has none.

    Args:
        path: Path below the root, with forward slashes.
        patterns: Lines of an ignore file; those of the repository unless given.

    """
    parts = path.split("/")
    if parts[0] == ".git":
        return True
    for pattern in _ignore_patterns() if patterns is None else patterns:
        name = pattern.strip("/")
        if pattern.startswith("/"):
            if fnmatch.fnmatch(path, name) or path.startswith(f"{name}/"):
                return True
        elif any(fnmatch.fnmatch(part, name) for part in parts):
            return True
    return False


@functools.cache
def repository_files() -> tuple[str, ...]:
    """List every file that belongs to the repository, committed or about to be, sorted."""
    return tuple(sorted(_walk(ROOT)))


def _walk(folder: Path) -> Iterator[str]:
    for entry in folder.iterdir():
        path = entry.relative_to(ROOT).as_posix()
        if is_ignored(path):
            continue
        if entry.is_dir() and not entry.is_symlink():
            yield from _walk(entry)
        elif entry.is_file():
            yield path


def read_text(path: str) -> str:
    """Read a file of the repository; what is not UTF-8 comes back empty, as it is not text."""
    try:
        return (ROOT / path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


@functools.cache
def python_sources(*roots: str) -> tuple[Source, ...]:
    """Read the hand-written Python files below some folders; a missing folder has none."""
    wanted = tuple(f"{root}/" for root in roots)
    return tuple(
        Source(path, read_text(path))
        for path in repository_files()
        if path.endswith(".py") and path.startswith(wanted) and not path.startswith(GENERATED)
    )


def report(offences: list[Offence]) -> str:
    """Join offences into the message of a failing assertion, one per line."""
    return "\n" + "\n".join(str(offence) for offence in offences)
