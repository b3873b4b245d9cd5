"""Quote and book files: every defect is found where it was planted, and nothing elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.core.features.market import START_MS, book, quote
from tests.unit.offline.test_books import line_of, record
from tests.unit.offline.test_books import rows_of as book_rows_of
from tests.unit.offline.test_quotes import rows_of, write
from typer.testing import CliRunner

from detent.offline.commands import silent
from detent.offline.event_check import FINDINGS, EventReport, check_events
from detent.offline.event_files import FileKind, kind_of
from detent.offline.findings import DEFECTS, Finding
from detent_cli.main import app

DATA = Path(__file__).parents[4] / "shared" / "data"
REAL = sorted(path for kind in ("l1_*", "l2_*") for path in DATA.glob(f"{kind}.parquet"))
Row = dict[str, Any]
Plant = Callable[[list[Row]], list[Row]]
COUNT, LEVELS = 20, 4


def check(path: Path) -> EventReport:
    return check_events(path, kind_of(path), progress=silent)


def found(report: EventReport) -> dict[Finding, int]:
    return {one.finding: one.count for one in report.findings if one.count}


def quote_rows() -> list[Row]:
    return rows_of([quote(START_MS + index * 1_000, str(70 + index)) for index in range(COUNT)])


def book_rows() -> list[Row]:
    return book_rows_of(*(book(START_MS + index * 1_000) for index in range(COUNT)))


def edited(row: int, **changes: object) -> Plant:
    return lambda rows: [*rows[:row], rows[row] | changes, *rows[row + 1 :]]


def moved(place: int, size: int) -> Plant:
    """Put an item behind the one after it."""
    start = place * size
    return lambda rows: [
        *rows[:start],
        *rows[start + size : start + 2 * size],
        *rows[start : start + size],
        *rows[start + 2 * size :],
    ]


def later(place: int, size: int) -> Plant:
    """Let all items from one on happen ten minutes later."""
    return lambda rows: [
        row | {"ts_ms": row["ts_ms"] + 600_000 * (index >= place * size)}
        for index, row in enumerate(rows)
    ]


QUOTE_PLANTS = [
    (edited(7, ask_qty=-1.0), Finding.UNREADABLE),
    (edited(7, ask_price=None), Finding.UNREADABLE),
    (edited(7, ts_ms=START_MS // 1_000), Finding.UNREADABLE),
    (edited(7, bid_price=101.0), Finding.CROSSED),
    (lambda rows: [*rows[:8], rows[7], *rows[8:]], Finding.DUPLICATE),
    (moved(7, 1), Finding.UNSORTED),
    (later(7, 1), Finding.GAP),
]
BOOK_PLANTS = [
    (edited(7 * LEVELS + 1, price=None), Finding.UNREADABLE),
    (edited(7 * LEVELS, price=101.0), Finding.CROSSED),
    (edited(7 * LEVELS + 1, level=7), Finding.BOOK_INVALID),
    (edited(7 * LEVELS + 1, side="mid"), Finding.BOOK_INVALID),
    (edited(7 * LEVELS + 1, price=99.5), Finding.BOOK_INVALID),
    (moved(7, LEVELS), Finding.UNSORTED),
    (later(7, LEVELS), Finding.GAP),
]


@pytest.mark.proves("R170")
@pytest.mark.parametrize(("plant", "finding"), QUOTE_PLANTS)
def test_each_defect_of_quotes_is_found(tmp_path: Path, plant: Plant, finding: Finding) -> None:
    report = check(write(tmp_path / "l1.parquet", plant(quote_rows())))

    assert found(report) == {finding: 1}
    assert report.usable is (finding not in DEFECTS)


@pytest.mark.proves("R170")
@pytest.mark.parametrize(("plant", "finding"), BOOK_PLANTS)
def test_each_defect_of_books_is_found(tmp_path: Path, plant: Plant, finding: Finding) -> None:
    report = check(write(tmp_path / "l2.parquet", plant(book_rows())))

    assert found(report) == {finding: 1}
    assert report.usable is (finding not in DEFECTS)


def test_repeated_books_are_found_in_rows_and_in_lines(tmp_path: Path) -> None:
    """A book of the instant of the one before is no more than that one again."""
    one, two = book(START_MS), book(START_MS + 1)
    rows = book_rows_of(one, two)
    other = book_rows_of(book(START_MS, symbol="ETHUSDT"))
    lines = tmp_path / "books.jsonl"
    lines.write_bytes(b"\n".join(line_of(record(each)) for each in (one, one, two)) + b"\n")

    again = check(write(tmp_path / "l2.parquet", [*rows[:4], *other, *rows[:4], *rows[4:]]))
    assert found(again) == {Finding.DUPLICATE: 1}
    assert found(check(lines)) == {Finding.DUPLICATE: 1}


def test_every_finding_has_a_planted_one() -> None:
    quotes = {finding for _, finding in QUOTE_PLANTS}
    books = {finding for _, finding in BOOK_PLANTS} | {Finding.DUPLICATE}

    assert quotes == set(FINDINGS[FileKind.QUOTES])
    assert books == set(FINDINGS[FileKind.BOOKS])


def test_sound_files_have_no_findings(tmp_path: Path) -> None:
    """Two different quotes of one instant are what markets do."""
    rows = quote_rows()
    rows.insert(8, rows[7] | {"bid_price": 1.0})
    reports = [
        check(write(tmp_path / "l1.csv", rows)),
        check(write(tmp_path / "l2.csv", book_rows())),
    ]

    assert [found(report) for report in reports] == [{}, {}]
    assert [report.items for report in reports] == [COUNT + 1, COUNT]
    assert all(report.coverage[0].median_ms == 1_000 for report in reports)


def test_command_checks_quotes_and_books(tmp_path: Path) -> None:
    good = write(tmp_path / "l1.csv", quote_rows())
    bad = write(tmp_path / "l2.csv", BOOK_PLANTS[1][0](book_rows()))

    said = CliRunner().invoke(app, ["data", "check", str(good), "--json"])
    assert (said.exit_code, json.loads(said.stdout)["usable"]) == (0, True)
    shown = CliRunner().invoke(app, ["data", "check", str(bad)])
    assert (shown.exit_code, "not usable, defects: 1" in shown.output) == (1, True)
    promoted = CliRunner().invoke(app, ["data", "check", str(good), "--for-promotion"])
    assert promoted.exit_code == 1


@pytest.mark.skipif(not REAL, reason="the shared quotes and books are not beside this checkout")
def test_smallest_real_file_is_sound() -> None:
    report = check(DATA / "l1_coinbase_1m_2017_2018.parquet")

    assert report.usable
    assert report.items == 12_938
    # Separate days, as the readme of the files says.
    assert found(report)[Finding.GAP] >= 3
