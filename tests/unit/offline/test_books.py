"""Book files: read as they are, or refused by the name of the rule that they break."""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.unit.core.features.book_scenarios import SCENARIOS, WALL_BID
from tests.unit.core.features.market import START_MS, book

from detent.contracts.errors import DataInvalid, InvalidField
from detent.contracts.market import LEVELS_MAX, Book, BookRule
from detent.offline.book_rows import COLUMNS, load_book_rows
from detent.offline.books import (
    LINE_BYTES_MAX,
    RecordRule,
    load_book_lines,
    parse_book_record,
)

DATA = Path(__file__).parents[4] / "shared" / "data"
REAL = DATA / "l2_binance_usdm_btcusdt_20240808_top20_100ms.parquet"
Fields = dict[str, Any]


def record(found: Book = WALL_BID, **changes: Any) -> Fields:
    """Give the record of a book."""
    sides = {
        name: [[str(level.price), str(level.qty)] for level in getattr(found, name)]
        for name in ("bids", "asks")
    }
    fields = {
        "type": "l2_snapshot",
        "v": 0,
        "ts_ms": found.ts_ms,
        "symbol": found.symbol,
        "venue": found.venue,
        "depth": found.depth,
        **sides,
    }
    return {**fields, **changes}


def line_of(fields: Fields) -> bytes:
    return json.dumps(fields).encode()


def without(name: str) -> Fields:
    fields = record()
    del fields[name]
    return fields


def small(bids: list[list[Any]], asks: list[list[Any]], depth: int | None = None) -> Fields:
    return record(bids=bids, asks=asks, depth=len(bids) if depth is None else depth)


GOOD, ASK = [["99", "1"]], [["101", "1"]]
# One record per rule that a line can break.
REJECTED: list[tuple[str, bytes]] = [
    (RecordRule.JSON_INVALID, b'{"type":'),
    (RecordRule.JSON_INVALID, b"[]"),
    (RecordRule.JSON_INVALID, b'{"type":"l2_snapshot","type":"l2_snapshot"}'),
    (RecordRule.JSON_INVALID, b"[" * 100_000),
    (RecordRule.JSON_INVALID, b"\n"),
    (RecordRule.LINE_TOO_LONG, b" " * (LINE_BYTES_MAX + 1)),
    (RecordRule.TYPE_WRONG, line_of(record(type="trade"))),
    (RecordRule.VERSION_WRONG, line_of(record(v=1))),
    *((RecordRule.FIELD_MISSING, line_of(without(name))) for name in record()),
    (RecordRule.FIELD_TYPE_WRONG, line_of(record(ts_ms="1723161254300"))),
    (RecordRule.FIELD_TYPE_WRONG, line_of(record(ts_ms=1723161254300.0))),
    (RecordRule.FIELD_TYPE_WRONG, line_of(record(depth=True))),
    (RecordRule.FIELD_TYPE_WRONG, line_of(record(bids={}))),
    (RecordRule.FIELD_TYPE_WRONG, line_of(small([["99"]], ASK))),
    (RecordRule.FIELD_UNKNOWN, line_of(record(sequence=7))),
    (RecordRule.FIELD_OUT_OF_RANGE, line_of(record(ts_ms=1))),
    (RecordRule.FIELD_OUT_OF_RANGE, line_of(record(venue="binance"))),
    (RecordRule.FIELD_OUT_OF_RANGE, line_of(record(depth=LEVELS_MAX + 1))),
    (RecordRule.NUMBER_NOT_TEXT, line_of(small([[99, "1"]], ASK))),
    (RecordRule.NUMBER_NOT_TEXT, line_of(small([["99", 1.5]], ASK))),
    (RecordRule.META_NOT_OBJECT, line_of(record(meta=[]))),
    (BookRule.DECIMAL_INVALID, line_of(small([["99,5", "1"]], ASK))),
    (BookRule.DECIMAL_INVALID, line_of(small([["NaN", "1"]], ASK))),
    (BookRule.DECIMAL_INVALID, line_of(small([["9e1", "1"]], ASK))),
    (BookRule.PRICE_NOT_ABOVE_ZERO, line_of(small([["0", "1"]], ASK))),
    (BookRule.QTY_NOT_ABOVE_ZERO, line_of(small([["99", "0"]], ASK))),
    (BookRule.QTY_NOT_ABOVE_ZERO, line_of(small([["99", "-1"]], ASK))),
    (BookRule.BIDS_NOT_DEPTH, line_of(small(GOOD, ASK, 2))),
    (BookRule.ASKS_NOT_DEPTH, line_of(small(GOOD, [*ASK, ["102", "1"]]))),
    (BookRule.BIDS_NOT_DESCENDING, line_of(small(GOOD * 2, [*ASK, ["102", "1"]]))),
    (BookRule.ASKS_NOT_ASCENDING, line_of(small([*GOOD, ["98", "1"]], ASK * 2))),
    (BookRule.BOOK_CROSSED, line_of(small([["101.5", "1"]], ASK))),
    (BookRule.BOOK_LOCKED, line_of(small([["101", "1"]], ASK))),
]
OF_ROWS = {RecordRule.SIDE_UNKNOWN, RecordRule.LEVEL_NOT_NEXT, RecordRule.BOOK_OUT_OF_ORDER}


@pytest.mark.proves("R324")
@pytest.mark.parametrize(("rule", "line"), REJECTED)
def test_record_that_breaks_a_rule_is_refused_by_its_name(rule: str, line: bytes) -> None:
    with pytest.raises(InvalidField) as caught:
        parse_book_record(line)

    assert caught.value.rule == rule


@pytest.mark.proves("R324")
def test_every_rule_of_a_record_has_a_reject_test() -> None:
    assert {rule for rule, _ in REJECTED} == {*BookRule, *RecordRule} - OF_ROWS


@pytest.mark.proves("R324")
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_record_is_read_as_it_is(scenario: str) -> None:
    found = SCENARIOS[scenario]

    assert parse_book_record(line_of(record(found))) == found
    assert parse_book_record(line_of(record(found, meta={"latency_ms": 1.5}))) == found


def test_empty_book_is_a_record() -> None:
    assert parse_book_record(line_of(small([], []))).depth == 0


def test_lines_are_read_one_by_one_and_a_bad_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "books.jsonl"
    lines = [line_of(record(found)) for found in SCENARIOS.values()]
    path.write_bytes(b"\n".join(lines) + b"\n")
    assert list(load_book_lines(path)) == list(SCENARIOS.values())

    path.write_bytes(lines[0] + b"\n" + line_of(small([["101", "1"]], ASK)) + b"\n")
    books = load_book_lines(path)
    assert next(books) == SCENARIOS["normal"]
    with pytest.raises(DataInvalid, match=r"books.jsonl, row 2, column bids\[0\].price") as caught:
        next(books)
    assert caught.value.metadata["rule"] == "BOOK_LOCKED"


def test_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for books in (
        load_book_lines(tmp_path / "none.jsonl"),
        load_book_rows(tmp_path / "none.parquet", venue="BINANCE"),
    ):
        with pytest.raises(DataInvalid, match="none"):
            next(books)


Row = dict[str, Any]


def rows_of(*books: Book) -> list[Row]:
    return [
        {
            "ts_ms": one.ts_ms,
            "symbol": one.symbol,
            "side": side,
            "level": number,
            "price": float(level.price),
            "qty": float(level.qty),
        }
        for one in books
        for side, levels in (("bid", one.bids), ("ask", one.asks))
        for number, level in enumerate(levels, start=1)
    ]


def parquet(path: Path, rows: list[Row]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def three_books() -> list[Book]:
    return [book(START_MS + index, [("99.3", "0.1"), ("98.7", "2")]) for index in range(3)]


def test_rows_become_books(tmp_path: Path) -> None:
    """Floats are read by their shortest text: 99.3 is 99.3."""
    path = parquet(tmp_path / "l2.parquet", rows_of(*three_books()))

    assert list(load_book_rows(path, venue="BINANCE")) == three_books()


def edited(row: int, **changes: Any) -> Callable[[list[Row]], list[Row]]:
    def change(rows: list[Row]) -> list[Row]:
        rows[row - 1].update(changes)
        return rows

    return change


@pytest.mark.proves("R324")
@pytest.mark.parametrize(
    ("change", "rule", "row", "column"),
    [
        (edited(6, side="mid"), RecordRule.SIDE_UNKNOWN, 6, "side"),
        (edited(6, level=3), RecordRule.LEVEL_NOT_NEXT, 6, "level"),
        (lambda rows: rows + rows[:4], RecordRule.BOOK_OUT_OF_ORDER, 13, "ts_ms"),
        (edited(5, ts_ms=None), RecordRule.FIELD_TYPE_WRONG, 5, "ts_ms"),
        (edited(6, price=None), RecordRule.FIELD_TYPE_WRONG, 6, "price"),
        (edited(6, price=float("nan")), BookRule.DECIMAL_INVALID, 6, "price"),
        (edited(6, qty=0.0), BookRule.QTY_NOT_ABOVE_ZERO, 6, "qty"),
        (edited(6, price=99.3), BookRule.BIDS_NOT_DESCENDING, 8, r"bids\[1\].price"),
        (edited(5, price=101.0), BookRule.BOOK_LOCKED, 8, r"bids\[0\].price"),
        (lambda rows: rows[:-1], BookRule.ASKS_NOT_DEPTH, 11, "asks"),
        (edited(12, symbol="btc"), BookRule.ASKS_NOT_DEPTH, 11, "asks"),
    ],
)
def test_rows_that_make_no_book_are_refused(
    tmp_path: Path,
    change: Callable[[list[Row]], list[Row]],
    rule: str,
    row: int,
    column: str,
) -> None:
    path = parquet(tmp_path / "l2.parquet", change(rows_of(*three_books())))

    with pytest.raises(DataInvalid, match=f"row {row}, column {column}") as caught:
        list(load_book_rows(path, venue="BINANCE"))

    assert caught.value.metadata["rule"] == rule


@pytest.mark.parametrize("column", COLUMNS)
def test_file_without_a_column_is_refused(tmp_path: Path, column: str) -> None:
    rows = [
        {key: value for key, value in row.items() if key != column}
        for row in rows_of(*three_books())
    ]

    with pytest.raises(DataInvalid, match=f"column {column}"):
        next(load_book_rows(parquet(tmp_path / "l2.parquet", rows), venue="BINANCE"))


@pytest.mark.skipif(not REAL.exists(), reason="the shared market data are not at hand")
def test_real_file_is_read_whole() -> None:
    books = list(load_book_rows(REAL, venue="BINANCE"))

    assert len(books) == 137_800 // 40
    assert {one.depth for one in books} == {20}
    assert books[0].bids[0].price == Decimal("61800.2")
    assert books[0].asks[0].qty == Decimal("1.167")
