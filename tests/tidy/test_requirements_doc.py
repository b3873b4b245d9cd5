"""docs/requirements.md says what the markers say, and no marker claims what is not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.tidy import traceability
from tests.tidy.traceability import ROW_COUNT, Trace, collect_proofs, trace
from tests.tidy.tree import Source

ROWS = """
[sections.A]
title = "First"
[sections.A.rows]
R1 = ["One", "Holds one | two."]
R2 = ["Two", "Holds two."]
"""

TEXT_LENGTH_MIN = 20
TEXT_LENGTH_MAX = 240


@pytest.fixture(name="found", scope="module")
def _found() -> Trace:
    return traceability.current()


def _trace(*tests: str) -> Trace:
    header = "import pytest\n"
    return trace(ROWS, [Source(f"tests/test_{i}.py", header + t) for i, t in enumerate(tests)])


def test_every_row_is_there(found: Trace) -> None:
    assert [row.id for row in found.rows] == [f"R{number}" for number in range(1, ROW_COUNT + 1)]


def test_every_row_says_what_must_hold(found: Trace) -> None:
    titles = [row.title for row in found.rows]
    lengths = [len(row.holds) for row in found.rows]

    assert all(titles)
    assert len(set(titles)) == ROW_COUNT
    assert min(lengths) >= TEXT_LENGTH_MIN
    assert max(lengths) <= TEXT_LENGTH_MAX
    assert all("\n" not in row.holds and row.holds.endswith(".") for row in found.rows)
    assert len({row.holds for row in found.rows}) == ROW_COUNT


def test_no_marker_is_wrong(found: Trace) -> None:
    assert found.errors == ()


def test_the_document_is_up_to_date(found: Trace) -> None:
    written = traceability.DOCUMENT.read_text(encoding="utf-8")

    assert written == traceability.render(found), "run python -m tests.tidy.traceability --write"


def own_tests(found: Trace, rows: list[str]) -> dict[str, str]:
    """Match rows with tests so that no test stands for two; what has none of its own is out."""
    tests = {row: [p.test for p in found.proofs if p.row == row and not p.command] for row in rows}
    taken: dict[str, str] = {}

    def take(row: str, seen: set[str]) -> bool:
        for test in tests[row]:
            if test not in seen:
                seen.add(test)
                if test not in taken or take(taken[test], seen):
                    taken[test] = row
                    return True
        return False

    for row in rows:
        take(row, set())
    return {row: test for test, row in taken.items()}


@pytest.mark.proves("R151")
def test_each_training_requirement_has_a_test_of_its_own(found: Trace) -> None:
    rows = [f"R{number}" for number in range(143, 155) if number != 151]

    assert set(own_tests(found, rows)) == set(rows)


def test_a_test_that_stands_for_two_rows_is_the_own_test_of_one() -> None:
    both = _trace("@pytest.mark.proves('R1', 'R2')\ndef test_x(): ...")
    two = _trace(
        "@pytest.mark.proves('R1', 'R2')\ndef test_x(): ...",
        "@pytest.mark.proves('R1')\ndef test_y(): ...",
    )

    assert len(own_tests(both, ["R1", "R2"])) == 1
    assert set(own_tests(two, ["R1", "R2"])) == {"R1", "R2"}


def test_a_new_marker_makes_the_document_stale(found: Trace) -> None:
    marked = "import pytest\n@pytest.mark.proves('R1')\ndef test_planted() -> None: ...\n"
    rows = traceability.SOURCE_FILE.read_text(encoding="utf-8")
    planted = trace(rows, [Source("tests/test_planted.py", marked)])

    assert "`tests/test_planted.py::test_planted`" in traceability.render(planted)
    assert traceability.render(planted) != traceability.render(found)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("@pytest.mark.proves('R1')\ndef test_x(): ...", id="function"),
        pytest.param("@pytest.mark.proves('R1')\nasync def test_x(): ...", id="coroutine"),
        pytest.param("pytestmark = pytest.mark.proves('R1')\ndef test_x(): ...", id="module"),
        pytest.param("pytestmark = [pytest.mark.proves('R1')]\ndef test_x(): ...", id="list"),
        pytest.param(
            "@pytest.mark.parametrize('a', [pytest.param(1, marks=pytest.mark.proves('R1'))])\n"
            "def test_x(a): ...",
            id="parameter",
        ),
    ],
)
def test_a_marker_is_collected(text: str) -> None:
    found = _trace(text)

    assert [(proof.row, proof.test) for proof in found.proofs] == [
        ("R1", "tests/test_0.py::test_x")
    ]
    assert [row.id for row in found.proven] == ["R1"]
    assert [row.id for row in found.unproven] == ["R2"]
    assert found.errors == ()


@pytest.mark.parametrize("row", ["R0", "R3", "r1", "R01", " R1"])
def test_an_unknown_row_is_an_error(row: str) -> None:
    found = _trace(f"@pytest.mark.proves('R1', '{row}')\ndef test_x(): ...")

    assert found.errors == (f"tests/test_0.py:2: there is no row {row!r}",)
    assert [row.id for row in found.proven] == ["R1"]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("ROWS = ('R1',)\n@pytest.mark.proves(*ROWS)\ndef test_x(): ...", id="starred"),
        pytest.param("@pytest.mark.proves(rows='R1')\ndef test_x(): ...", id="keyword"),
        pytest.param("@pytest.mark.proves()\ndef test_x(): ...", id="empty"),
        pytest.param("@pytest.mark.proves('R1')\ndef helper(): ...", id="no-test"),
        pytest.param("marks = pytest.mark.proves('R1')\n@marks\ndef test_x(): ...", id="alias"),
    ],
)
def test_an_unreadable_marker_is_an_error(text: str) -> None:
    assert len(_trace(text).errors) == 1
    assert _trace(text).proven == []


@pytest.mark.parametrize("mark", ["skip(reason='')", "skip", "xfail"])
def test_a_test_that_cannot_fail_proves_nothing(mark: str) -> None:
    found = _trace(f"@pytest.mark.{mark}\n@pytest.mark.proves('R1')\ndef test_x(): ...")

    assert found.proofs == ()
    assert found.errors == ()


@pytest.mark.parametrize(("mark", "command"), traceability.ELSEWHERE.items())
def test_a_test_outside_make_test_is_listed_but_proves_nothing_yet(mark: str, command: str) -> None:
    found = _trace(f"@pytest.mark.{mark}\n@pytest.mark.proves('R1')\ndef test_x(): ...")

    assert found.proven == []
    assert f"`tests/test_0.py::test_x` ({command})" in traceability.render(found)


def test_cells_are_escaped_and_joined() -> None:
    marked = "@pytest.mark.proves('R1')\ndef test_x(): ..."
    document = traceability.render(_trace(marked, marked))

    assert (
        "| R1 | **One.** Holds one \\| two. "
        "| `tests/test_0.py::test_x`<br>`tests/test_1.py::test_x` |"
    ) in document
    assert "| R2 | **Two.** Holds two. | not yet |" in document


def test_the_report_counts_both_ways() -> None:
    found = _trace("@pytest.mark.proves('R1')\ndef test_x(): ...")
    report = json.loads(traceability.as_json(found))

    assert "1 of 2 requirement rows" in traceability.summarize(found)
    assert "not yet: R2" in traceability.summarize(found)
    assert report["proven"] == ["R1"]
    assert report["unproven"] == ["R2"]
    assert report["tests"] == {"R1": ["tests/test_0.py::test_x"]}


def test_helper_functions_are_no_tests() -> None:
    proofs, errors = collect_proofs(Source("tests/x.py", "def helper() -> None: ...\n"))

    assert (proofs, errors) == ([], [])


def test_the_command_tells_a_stale_document_from_a_fresh_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Continuous integration looks at the exit status only."""
    monkeypatch.setattr(traceability, "DOCUMENT", tmp_path / "requirements.md")

    assert traceability.main(["--check"]) == 1
    assert traceability.main(["--write"]) == 0
    assert traceability.main(["--check"]) == 0
    assert traceability.main(["--report"]) == 0
    capsys.readouterr()
    assert traceability.main(["--report", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == ROW_COUNT
