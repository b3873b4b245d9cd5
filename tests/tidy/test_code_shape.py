"""Sizes, docstrings, annotations, names and broad excepts stay as CONTRIBUTING.md says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.tidy.repository import text_files
from tests.tidy.shape import (
    check_annotations,
    check_broad_except,
    check_docstrings,
    check_module_docstring,
    check_module_name,
    check_sizes,
    check_unfinished,
)
from tests.tidy.tree import (
    GENERATED,
    PYTHON_ROOTS,
    SOURCE_ROOTS,
    Offence,
    Source,
    python_sources,
    report,
)

BROAD_EXCEPTS = {
    "services/detent/rpc/serve.py": (
        1,
        "the boundary: what is untyped becomes an internal error without its text",
    ),
    "services/detent/rpc/conversation.py": (
        1,
        "the same boundary, where answers go out while items still come",
    ),
    "services/detent/rpc/http2/connection.py": (
        1,
        "a peer is told whatever failed in its call, and others are served on",
    ),
    "services/detent/adapters/sqlite_file.py": (
        1,
        "whoever waits for a commit is told whatever went wrong in it, and the next is tried",
    ),
    "services/detent/adapters/telemetry.py": (
        1,
        "as in every handler of logging: a fact that cannot be written ends no call",
    ),
    "services/detent/adapters/graph_child.py": (
        1,
        "whatever a hostile model makes a library raise is a refusal of that model",
    ),
    "services/detent/servers/policy/streaming.py": (
        1,
        "an item of a stream is a call of its own: a defect in one ends none of the others",
    ),
    "services/detent/servers/policy/model_path.py": (
        1,
        "around the model path: the proxy must outlive defects, not only known failures",
    ),
}
"""Every place that may catch everything: how often, and why."""

CODE_SUFFIXES = (".py", ".proto", ".sh", ".yaml", ".yml", ".toml", ".sql", "Makefile", "Dockerfile")

Check = Callable[[Source], list[Offence]]


def test_code_is_short_enough_to_read() -> None:
    sources = python_sources(*PYTHON_ROOTS)
    offences = [offence for source in sources for offence in check_sizes(source)]

    assert sources
    assert not offences, report(offences)


def test_every_module_says_its_job() -> None:
    sources = python_sources(*PYTHON_ROOTS)
    offences = [offence for source in sources for offence in check_module_docstring(source)]

    assert not offences, report(offences)


def test_everything_public_is_described() -> None:
    sources = python_sources(*SOURCE_ROOTS, "benchmarks")
    offences = [offence for source in sources for offence in check_docstrings(source)]

    assert not offences, report(offences)


def test_every_function_is_typed() -> None:
    sources = python_sources(*PYTHON_ROOTS)
    offences = [offence for source in sources for offence in check_annotations(source)]

    assert not offences, report(offences)


def test_nothing_is_caught_broadly_without_a_reason() -> None:
    offences = [
        offence
        for source in python_sources(*SOURCE_ROOTS)
        for offence in check_broad_except(source, allowed=BROAD_EXCEPTS.get(source.path, (0,))[0])
    ]

    assert not offences, report(offences)


@pytest.mark.parametrize("path", BROAD_EXCEPTS)
def test_every_reason_for_a_broad_except_is_still_needed(path: str) -> None:
    found = [
        o for s in python_sources(*SOURCE_ROOTS) if s.path == path for o in check_broad_except(s)
    ]

    assert len(found) == BROAD_EXCEPTS[path][0]


def test_nothing_is_left_unfinished() -> None:
    offences = [
        offence
        for path, text in text_files()
        if path.endswith(CODE_SUFFIXES) and not path.startswith(GENERATED)
        for offence in check_unfinished(path, text)
    ]

    assert not offences, report(offences)


def test_modules_are_named_for_their_job() -> None:
    offences = [o for s in python_sources(*PYTHON_ROOTS) for o in check_module_name(s.path)]

    assert not offences, report(offences)


@pytest.mark.parametrize(
    ("check", "text"),
    [
        pytest.param(check_sizes, "def f() -> None:\n" + "    x = 1\n" * 70, id="function"),
        pytest.param(check_sizes, "x = 1\n" * 501, id="file"),
        pytest.param(check_sizes, "x = '" + "é" * 96 + "'", id="line"),
        pytest.param(check_module_docstring, "x = 1", id="module"),
        pytest.param(check_docstrings, "def f() -> None: ...", id="public-function"),
        pytest.param(check_docstrings, "class A: ...", id="public-class"),
        pytest.param(check_docstrings, "class A:\n '''A.'''\n def f(self): ...", id="method"),
        pytest.param(check_annotations, "def f(): ...", id="result"),
        pytest.param(check_annotations, "def f(x) -> None: ...", id="parameter"),
        pytest.param(check_annotations, "def f(*x) -> None: ...", id="starred"),
        pytest.param(check_annotations, "class A:\n def f(self, x) -> None: ...", id="of-method"),
        pytest.param(check_annotations, "async def f(*, x) -> None: ...", id="keyword"),
        pytest.param(check_broad_except, "try: x\nexcept: y", id="bare"),
        pytest.param(check_broad_except, "try: x\nexcept Exception: y", id="broad"),
        pytest.param(check_broad_except, "try: x\nexcept (A, BaseException) as e: y", id="tuple"),
        pytest.param(check_broad_except, "with suppress(Exception): x", id="suppress"),
        pytest.param(check_broad_except, "try: x\nexcept Exception as e: raise A from e", id="new"),
        pytest.param(
            check_broad_except,
            "def f() -> None:\n try: x\n except Exception:\n  if y: return\n  raise",
            id="sometimes-raised",
        ),
    ],
)
def test_a_misshapen_file_is_reported(check: Check, text: str) -> None:
    assert check(Source("services/detent/core/x.py", text))


@pytest.mark.parametrize(
    ("check", "text"),
    [
        pytest.param(check_sizes, "def f() -> None:\n" + "    x = 1\n" * 69, id="function"),
        pytest.param(check_sizes, "x = 1\n" * 500, id="file"),
        pytest.param(check_sizes, "x = '" + "é" * 94 + "'", id="line"),
        pytest.param(check_docstrings, "def _f() -> None: ...", id="private"),
        pytest.param(check_docstrings, "@override\ndef f() -> None: ...", id="override"),
        pytest.param(check_annotations, "class A:\n def f(self) -> None: ...", id="self"),
        pytest.param(check_broad_except, "try: x\nexcept (OSError, ValueError): y", id="narrow"),
        pytest.param(check_broad_except, "try: x\nexcept BaseException:\n y\n raise", id="again"),
    ],
)
def test_a_file_at_the_limit_is_accepted(check: Check, text: str) -> None:
    assert check(Source("services/detent/core/x.py", text)) == []


def test_one_broad_except_too_many_is_reported() -> None:
    twice = Source("services/detent/rpc/status.py", "try: x\nexcept: y\n" * 2)

    assert check_broad_except(twice, allowed=2) == []
    assert len(check_broad_except(twice, allowed=1)) == 2


@pytest.mark.parametrize("word", ["TO" + "DO", "FIX" + "ME", "raise NotImplemented" + "Error"])
def test_unfinished_work_is_reported(word: str) -> None:
    assert check_unfinished("services/detent/core/x.py", f"x = 1  # {word}")


@pytest.mark.parametrize("path", ["core/utils.py", "core/common/x.py", "adapters/db_helpers.py"])
def test_an_empty_name_is_reported(path: str) -> None:
    assert check_module_name(f"services/detent/{path}")
