"""Joins the requirement rows with the tests that prove them, and writes that down.

`docs/requirements.toml` says what must hold; a test says what it proves with the marker
`@pytest.mark.proves("R12")`. Run as `python -m tests.tidy.traceability`:

    --write     write docs/requirements.md
    --check     fail when docs/requirements.md is not what would be written
    --report    print how many rows are proven and which are not (`make requirements`)
    --json      print the same for a program
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from tests.tidy.tree import ROOT, Source, python_sources

SOURCE_FILE = ROOT / "docs" / "requirements.toml"
DOCUMENT = ROOT / "docs" / "requirements.md"
ROW_COUNT = 360

ELSEWHERE = {"long": "make test-long", "containers": "make test-containers"}
"""Markers of tests that `make test` leaves out, and the command that runs them."""

NEVER = frozenset({"skip", "xfail"})
"""Markers of tests that prove nothing, because nobody would see them fail."""

HEADER = """# Requirements, and the tests that prove them

Generated from [requirements.toml](requirements.toml) and from the `proves` markers of the tests by
`python -m tests.tidy.traceability --write`; a test fails when this file is out of date. A row is
proven when a test that `make test` runs would fail if what the row says stopped being true.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One requirement: its id, the section it is in, a short title, and what must hold."""

    id: str
    section: str
    title: str
    holds: str


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Proof:
    """One test that claims a row.

    Attributes:
        test: The test as `path::name`.
        line: Where the marker stands.
        row: The row's id as the marker spells it.
        command: The command that runs the test, empty for `make test`.

    """

    test: str
    row: str
    line: int
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Rows, section titles, proofs, and what is wrong with the markers."""

    rows: tuple[Row, ...]
    sections: dict[str, str]
    proofs: tuple[Proof, ...]
    errors: tuple[str, ...]

    def proofs_of(self, row: Row) -> list[Proof]:
        """List the tests of a row, those of `make test` first."""
        claims = {p.test: p for p in self.proofs if p.row == row.id}
        return sorted(claims.values(), key=lambda proof: (proof.command, proof.test))

    @property
    def proven(self) -> list[Row]:
        """Rows with at least one test in `make test`."""
        ids = {proof.row for proof in self.proofs if not proof.command}
        return [row for row in self.rows if row.id in ids]

    @property
    def unproven(self) -> list[Row]:
        """Rows that `make test` does not prove."""
        ids = {row.id for row in self.proven}
        return [row for row in self.rows if row.id not in ids]


def load_rows(text: str) -> tuple[tuple[Row, ...], dict[str, str]]:
    """Read the rows and the section titles from the text of the source file."""
    sections = tomllib.loads(text)["sections"]
    rows = tuple(
        Row(id=row_id, section=key, title=title, holds=holds)
        for key, section in sections.items()
        for row_id, (title, holds) in section["rows"].items()
    )
    return rows, {key: section["title"] for key, section in sections.items()}


def collect_proofs(source: Source) -> tuple[list[Proof], list[str]]:
    """Collect the markers of one test file, and what is wrong with them.

    A marker that this cannot read is an error, not nothing: a row must not look unproven, nor a
    misspelt one proven, because of how it was written.
    """
    proofs: list[Proof] = []
    errors: list[str] = []
    counted: set[int] = set()
    for function, marks in _tests(source.tree, inherited=_module_marks(source.tree)):
        claims = [node for mark in marks for node in ast.walk(mark) if _is_claim(node)]
        counted.update(id(claim) for claim in claims)
        names = {_mark_name(mark) for mark in marks}
        if names & NEVER:
            continue
        command = next((run for name, run in ELSEWHERE.items() if name in names), "")
        for claim in claims:
            for row in _row_ids(claim):
                if row is None:
                    errors.append(f"{source.path}:{claim.lineno}: rows must be literal strings")
                    continue
                test = f"{source.path}::{function}"
                proofs.append(Proof(test=test, row=row, line=claim.lineno, command=command))
    errors.extend(
        f"{source.path}:{call.lineno}: a marker that is on no test"
        for call in ast.walk(source.tree)
        if _is_claim(call) and id(call) not in counted
    )
    return proofs, errors


def _module_marks(tree: ast.Module) -> list[ast.expr]:
    marks: list[ast.expr] = []
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="pytestmark")], value=value):
                marks.extend(value.elts if isinstance(value, ast.List) else [value])
            case ast.AnnAssign(target=ast.Name(id="pytestmark"), value=ast.expr() as value):
                marks.extend(value.elts if isinstance(value, ast.List) else [value])
    return marks


def _tests(
    parent: ast.Module | ast.ClassDef, *, inherited: list[ast.expr], prefix: str = ""
) -> Iterator[tuple[str, list[ast.expr]]]:
    for node in parent.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        marks = [*inherited, *node.decorator_list]
        if isinstance(node, ast.ClassDef):
            yield from _tests(node, inherited=marks, prefix=f"{prefix}{node.name}::")
        elif node.name.startswith("test_"):
            yield prefix + node.name, marks


def _mark_name(mark: ast.expr) -> str:
    text = ast.unparse(mark.func if isinstance(mark, ast.Call) else mark)
    return text.rpartition("mark.")[2]


def _is_claim(node: ast.AST) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and _mark_name(node) == "proves"


def _row_ids(call: ast.Call) -> list[str | None]:
    found: list[str | None] = [
        part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else None
        for part in call.args
    ]
    return found + [None] * len(call.keywords) or [None]


def trace(text: str, sources: Iterable[Source]) -> Trace:
    """Join the source text of the rows with the markers of some test files."""
    rows, sections = load_rows(text)
    proofs: list[Proof] = []
    errors: list[str] = []
    for source in sources:
        found, wrong = collect_proofs(source)
        proofs.extend(found)
        errors.extend(wrong)
    known = {row.id for row in rows}
    for proof in proofs:
        if proof.row not in known:
            path = proof.test.partition("::")[0]
            errors.append(f"{path}:{proof.line}: there is no row {proof.row!r}")
    kept = tuple(sorted(proof for proof in proofs if proof.row in known))
    return Trace(rows=rows, sections=sections, proofs=kept, errors=tuple(sorted(set(errors))))


def render(found: Trace) -> str:
    """Write the document: one table per section."""
    parts = [HEADER]
    parts.append(f"**{len(found.proven)} of {len(found.rows)} rows are proven.**\n")
    for key, title in found.sections.items():
        parts.append(f"## {key}. {title}\n")
        parts.append("| row | what must hold | tests that prove it |\n|---|---|---|")
        rows = [row for row in found.rows if row.section == key]
        parts.extend(_table_line(row, found.proofs_of(row)) for row in rows)
        parts.append("")
    return "\n".join(parts)


def _table_line(row: Row, proofs: Sequence[Proof]) -> str:
    tests = "<br>".join(
        f"`{proof.test}`" + (f" ({proof.command})" if proof.command else "") for proof in proofs
    )
    holds = row.holds.replace("|", "\\|")
    return f"| {row.id} | **{row.title}.** {holds} | {tests or 'not yet'} |"


def summarize(found: Trace) -> str:
    """Say for a person how far the proof goes, section by section."""
    proven = {row.id for row in found.proven}
    lines = [f"{len(proven)} of {len(found.rows)} requirement rows are proven by `make test`.", ""]
    for key, title in found.sections.items():
        rows = [row for row in found.rows if row.section == key]
        missing = [row.id for row in rows if row.id not in proven]
        lines.append(f"{key}. {title}: {len(rows) - len(missing)} of {len(rows)}")
        if missing:
            lines.append(f"   not yet: {' '.join(missing)}")
    lines.extend(["", *found.errors] if found.errors else [])
    return "\n".join(lines)


def as_json(found: Trace) -> str:
    """Say the same for a program."""
    report = {
        "rows": len(found.rows),
        "proven": [row.id for row in found.proven],
        "unproven": [row.id for row in found.unproven],
        "tests": {
            row.id: [proof.test for proof in found.proofs_of(row)]
            for row in found.rows
            if found.proofs_of(row)
        },
        "errors": list(found.errors),
    }
    return json.dumps(report, indent=2, sort_keys=True)


def current() -> Trace:
    """Trace the repository as it is on disk."""
    return trace(SOURCE_FILE.read_text(encoding="utf-8"), python_sources("tests"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0 when all is well, 1 when something is not."""
    parser = argparse.ArgumentParser(prog="python -m tests.tidy.traceability")
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--write", action="store_true", help="write docs/requirements.md")
    modes.add_argument("--check", action="store_true", help="fail when it is out of date")
    modes.add_argument("--report", action="store_true", help="print what is proven (the default)")
    parser.add_argument("--json", action="store_true", help="print the report for a program")
    options = parser.parse_args(arguments)

    found = current()
    if options.write:
        DOCUMENT.write_text(render(found), encoding="utf-8")
    stale = not DOCUMENT.exists() or DOCUMENT.read_text(encoding="utf-8") != render(found)
    sys.stdout.write((as_json(found) if options.json else summarize(found)) + "\n")
    if options.check and stale:
        sys.stderr.write("docs/requirements.md is out of date: run with --write\n")
    return 1 if found.errors or (options.check and stale) else 0


if __name__ == "__main__":
    sys.exit(main())
