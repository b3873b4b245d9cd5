"""Read order books from files, and refuse what is no book by the name of the rule it breaks.

Two forms: the JSON lines of seed 003 (`type` l2_snapshot, version 0), and parquet with one row
per level. Both yield book by book, so a file may be of any length.
"""

import functools
import json
from collections.abc import Iterator
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from detent.contracts.decimals import parse_decimal
from detent.contracts.errors import DataInvalid, InvalidField
from detent.contracts.market import LEVELS_MAX, Book, BookLevel, BookRule
from detent.core.features.market_state import SYMBOLS_MAX
from detent.offline.bars import invalid

RECORD_TYPE = "l2_snapshot"
RECORD_VERSION = 0
# A thousand levels a side of the longest decimals fit.
LINE_BYTES_MAX = 1_048_576
COLUMNS = ("ts_ms", "symbol", "side", "level", "price", "qty")
BATCH_ROWS = 50_000
_PAIR = 2
_FIELDS: dict[str, type] = {
    "type": str,
    "v": int,
    "ts_ms": int,
    "symbol": str,
    "venue": str,
    "depth": int,
    "bids": list,
    "asks": list,
}


class RecordRule(StrEnum):
    """Names each rule of a file beyond those of `BookRule`; the value is the breach's code.

    Source: FORMULAS 1.2, REQUIREMENTS R324.
    """

    JSON_INVALID = "JSON_INVALID"
    LINE_TOO_LONG = "LINE_TOO_LONG"
    TYPE_WRONG = "TYPE_WRONG"
    VERSION_WRONG = "VERSION_WRONG"
    FIELD_MISSING = "FIELD_MISSING"
    FIELD_UNKNOWN = "FIELD_UNKNOWN"
    FIELD_TYPE_WRONG = "FIELD_TYPE_WRONG"
    FIELD_OUT_OF_RANGE = "FIELD_OUT_OF_RANGE"
    NUMBER_NOT_TEXT = "NUMBER_NOT_TEXT"
    META_NOT_OBJECT = "META_NOT_OBJECT"
    SIDE_UNKNOWN = "SIDE_UNKNOWN"
    LEVEL_NOT_NEXT = "LEVEL_NOT_NEXT"
    BOOK_OUT_OF_ORDER = "BOOK_OUT_OF_ORDER"


def load_book_lines(path: Path) -> Iterator[Book]:
    """Yield the books of a file of JSON lines, one record a line.

    Raises:
        DataInvalid: The file cannot be read, or a line is no record; the error names the line,
            the field, and in its metadata the rule.
    """
    try:
        with path.open("rb") as source:
            lines = iter(functools.partial(source.readline, LINE_BYTES_MAX + 1), b"")
            for row, line in enumerate(lines, start=1):
                try:
                    yield parse_book_record(line)
                except InvalidField as error:
                    raise _refusal(path.name, row, error) from error
    except OSError as error:
        raise invalid(path.name, error, "a file that can be read") from error


def parse_book_record(line: bytes) -> Book:
    """Read one record of seed 003's form.

    Args:
        line: One JSON object; `meta` may hold anything and is left out.

    Raises:
        InvalidField: The line is no record; `rule` says which rule it breaks.

    Source: FORMULAS 1.2.
    """
    if len(line) > LINE_BYTES_MAX:
        found, expected = f"more than {LINE_BYTES_MAX} bytes", f"at most {LINE_BYTES_MAX} bytes"
        raise InvalidField("line", found, expected, rule=RecordRule.LINE_TOO_LONG)
    fields = _json_object(line)
    _check_fields(fields)
    book = {
        "symbol": fields["symbol"],
        "ts_ms": fields["ts_ms"],
        "venue": fields["venue"],
        "depth": fields["depth"],
        "bids": _levels("bids", fields["bids"]),
        "asks": _levels("asks", fields["asks"]),
    }
    return _book(**book)


def load_book_rows(path: Path, *, venue: str) -> Iterator[Book]:
    """Yield the books of a parquet file with the columns of `COLUMNS`; others are ignored.

    The rows of one book follow one another, each side best first and counted from 1; the books
    of one symbol are in order of time. Binary floats are read by their shortest text.

    Args:
        path: The file.
        venue: Exchange that the file is from, in upper case; it has no column for it.

    Raises:
        DataInvalid: The file cannot be read, or a row is not what it should be; the error names
            the row, counted from 1, the column, and in its metadata the rule.
    """
    try:
        with pq.ParquetFile(path) as source:
            missing = [name for name in COLUMNS if name not in source.schema_arrow.names]
            if missing:
                error = InvalidField(
                    missing[0], "no such column", "a column", rule=RecordRule.FIELD_MISSING
                )
                raise _refusal(path.name, None, error)
            yield from _Rows(path.name, venue).books(source)
    except (OSError, pa.ArrowException) as error:
        raise invalid(path.name, error, "a parquet file that can be read") from error


class _Rows:
    """Collects the rows of one book after another."""

    def __init__(self, file: str, venue: str) -> None:
        self._file = file
        self._venue = venue
        self._row = 0
        self._key: tuple[int, str] | None = None
        self._sides: dict[str, list[BookLevel]] = {"bid": [], "ask": []}
        self._last_ts_ms: dict[str, int] = {}

    def books(self, source: pq.ParquetFile) -> Iterator[Book]:
        """Yield each book when its last row has been read."""
        for batch in source.iter_batches(batch_size=BATCH_ROWS, columns=list(COLUMNS)):
            columns = [batch.column(name).to_pylist() for name in COLUMNS]
            for cells in zip(*columns, strict=True):
                finished = self._take(cells)
                if finished is not None:
                    yield finished
        if self._key is not None:
            yield self._finish(self._row)

    def _take(self, cells: tuple[Any, ...]) -> Book | None:
        """Take a row; give the book before it when the row begins another."""
        self._row += 1
        ts_ms, symbol, side, *level = cells
        finished = None
        if (ts_ms, symbol) != self._key and self._key is not None:
            finished = self._finish(self._row - 1)
        try:
            if (ts_ms, symbol) != self._key:
                self._begin(ts_ms, symbol)
            self._add(side, *level)
        except InvalidField as error:
            raise _refusal(self._file, self._row, error) from error
        return finished

    def _begin(self, ts_ms: Any, symbol: Any) -> None:
        _check_type("ts_ms", ts_ms, int)
        _check_type("symbol", symbol, str)
        last_ts_ms = self._last_ts_ms.get(symbol, 0)
        if ts_ms <= last_ts_ms:
            expected = f"after {last_ts_ms}, the book before"
            raise InvalidField("ts_ms", ts_ms, expected, rule=RecordRule.BOOK_OUT_OF_ORDER)
        if symbol not in self._last_ts_ms and len(self._last_ts_ms) >= SYMBOLS_MAX:
            expected = f"at most {SYMBOLS_MAX} symbols"
            raise InvalidField("symbol", symbol, expected, rule=RecordRule.FIELD_OUT_OF_RANGE)
        self._key = ts_ms, symbol
        self._last_ts_ms[symbol] = ts_ms
        self._sides = {"bid": [], "ask": []}

    def _add(self, side: Any, level: Any, price: Any, qty: Any) -> None:
        levels = self._sides.get(side)
        if levels is None:
            raise InvalidField("side", side, "bid or ask", rule=RecordRule.SIDE_UNKNOWN)
        due = len(levels) + 1
        if level != due or due > LEVELS_MAX:
            expected = f"{due}, the next" if due <= LEVELS_MAX else f"at most {LEVELS_MAX} levels"
            raise InvalidField("level", level, expected, rule=RecordRule.LEVEL_NOT_NEXT)
        levels.append(BookLevel(price=_number("price", price), qty=_number("qty", qty)))

    def _finish(self, row: int) -> Book:
        assert self._key is not None, "a book is finished after it has begun"
        ts_ms, symbol = self._key
        bids, asks = tuple(self._sides["bid"]), tuple(self._sides["ask"])
        try:
            return _book(
                symbol=symbol,
                ts_ms=ts_ms,
                venue=self._venue,
                depth=len(bids),
                bids=bids,
                asks=asks,
            )
        except InvalidField as error:
            raise _refusal(self._file, row, error) from error


def _json_object(line: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a key that stands there twice")
        return dict(pairs)

    try:
        fields = json.loads(line, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise InvalidField("line", error, "JSON", rule=RecordRule.JSON_INVALID) from error
    if not isinstance(fields, dict):
        found = type(fields).__name__
        raise InvalidField("line", found, "a JSON object", rule=RecordRule.JSON_INVALID)
    return fields


def _check_fields(fields: dict[str, Any]) -> None:
    """Refuse a record that is not of the one type and version, or not of its fields."""
    for name, kind in _FIELDS.items():
        if name not in fields:
            raise InvalidField(name, "(missing)", "the field", rule=RecordRule.FIELD_MISSING)
        _check_type(name, fields[name], kind)
    if fields["type"] != RECORD_TYPE:
        raise InvalidField("type", fields["type"], RECORD_TYPE, rule=RecordRule.TYPE_WRONG)
    if fields["v"] != RECORD_VERSION:
        expected = str(RECORD_VERSION)
        raise InvalidField("v", fields["v"], expected, rule=RecordRule.VERSION_WRONG)
    meta = fields.get("meta", {})
    if not isinstance(meta, dict):
        found = type(meta).__name__
        raise InvalidField("meta", found, "an object", rule=RecordRule.META_NOT_OBJECT)
    unknown = sorted(set(fields) - {*_FIELDS, "meta"})
    if unknown:
        expected = "a field of the record; what else there is goes into meta"
        raise InvalidField(unknown[0], "(unknown)", expected, rule=RecordRule.FIELD_UNKNOWN)


def _check_type(field: str, value: Any, kind: type) -> None:
    if type(value) is not kind:
        found = f"{value} ({type(value).__name__})"
        raise InvalidField(field, found, kind.__name__, rule=RecordRule.FIELD_TYPE_WRONG)


def _levels(field: str, pairs: list[Any]) -> tuple[BookLevel, ...]:
    levels = []
    for index, pair in enumerate(pairs):
        path = f"{field}[{index}]"
        if not isinstance(pair, list) or len(pair) != _PAIR:
            rule = RecordRule.FIELD_TYPE_WRONG
            raise InvalidField(path, pair, "a list of price and quantity", rule=rule)
        for text in pair:
            if not isinstance(text, str):
                rule = RecordRule.NUMBER_NOT_TEXT
                raise InvalidField(path, text, "a decimal written as a string", rule=rule)
        try:
            price, qty = _number("price", pair[0]), _number("qty", pair[1])
            levels.append(BookLevel(price=price, qty=qty))
        except InvalidField as error:
            raise error.under(path) from error
    return tuple(levels)


def _number(field: str, value: Any) -> Decimal:
    if isinstance(value, float):
        # By its shortest text, so that 61837.63 is that and not its binary neighbour.
        return Decimal(repr(value))
    if not isinstance(value, str):
        expected = "a number or its text"
        raise InvalidField(field, value, expected, rule=RecordRule.FIELD_TYPE_WRONG)
    try:
        return parse_decimal(field, value)
    except InvalidField as error:
        expected = error.expected
        raise InvalidField(field, value, expected, rule=BookRule.DECIMAL_INVALID) from error


def _book(**fields: Any) -> Book:
    """Build a book; what has no rule of its own is a field out of its range."""
    try:
        return Book(**fields)
    except InvalidField as error:
        rule = error.rule or RecordRule.FIELD_OUT_OF_RANGE
        raise InvalidField(error.field, error.found, error.expected, rule=rule) from error


def _refusal(file: str, row: int | None, error: InvalidField) -> DataInvalid:
    told = invalid(file, error.found, error.expected, row=row, column=error.field)
    return DataInvalid(told.message, **told.metadata, rule=error.rule)
