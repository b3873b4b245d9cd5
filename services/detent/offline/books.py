"""Read order books from files, and refuse what is no book by the name of the rule it breaks.

The form is the JSON lines of seed 003 (`type` l2_snapshot, version 0); `book_rows` reads the other
one. Both yield book by book, so a file may be of any length.
"""

import functools
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any

from detent.contracts.decimals import parse_decimal
from detent.contracts.errors import DataInvalid, InvalidField
from detent.contracts.market import Book, BookLevel, BookRule
from detent.offline.cells import invalid, invalid_at

RECORD_TYPE = "l2_snapshot"
RECORD_VERSION = 0
# A thousand levels a side of the longest decimals fit.
LINE_BYTES_MAX = 1_048_576
OnFault = Callable[[DataInvalid], None]
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


def load_book_lines(
    path: Path, *, symbol: str | None = None, on_fault: OnFault | None = None
) -> Iterator[Book]:
    """Yield the books of a file of JSON lines, one record a line.

    Args:
        path: The file.
        symbol: Instrument whose books are wanted; None for all.
        on_fault: Told of a line that is no record, which is then left out; None raises instead.

    Raises:
        DataInvalid: The file cannot be read, or a line is no record; the error names the line,
            the field, and in its metadata the rule.
    """
    try:
        with path.open("rb") as source:
            lines = iter(functools.partial(source.readline, LINE_BYTES_MAX + 1), b"")
            for row, line in enumerate(lines, start=1):
                try:
                    book = parse_book_record(line)
                except InvalidField as error:
                    refusal = invalid_at(path.name, row, error)
                    if on_fault is None:
                        raise refusal from error
                    on_fault(refusal)
                    continue
                if symbol in (None, book.symbol):
                    yield book
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
    return book_from(**book)


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
        check_type(name, fields[name], kind)
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


def check_type(field: str, value: Any, kind: type) -> None:
    """Refuse a value of another type, by the name of the rule."""
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
            price, qty = number_of("price", pair[0]), number_of("qty", pair[1])
            levels.append(BookLevel(price=price, qty=qty))
        except InvalidField as error:
            raise error.under(path) from error
    return tuple(levels)


def number_of(field: str, value: Any) -> Decimal:
    """Read a price or a quantity: a number, or its plain text."""
    if isinstance(value, float):
        # By its shortest text, so that 61837.63 is that and not its binary neighbour.
        return Decimal(repr(value))
    if type(value) is int:
        return Decimal(value)
    if not isinstance(value, str):
        expected = "a number or its text"
        raise InvalidField(field, value, expected, rule=RecordRule.FIELD_TYPE_WRONG)
    try:
        return parse_decimal(field, value)
    except InvalidField as error:
        expected = error.expected
        raise InvalidField(field, value, expected, rule=BookRule.DECIMAL_INVALID) from error


def book_from(**fields: Any) -> Book:
    """Build a book; what has no rule of its own is a field out of its range."""
    try:
        return Book(**fields)
    except InvalidField as error:
        rule = error.rule or RecordRule.FIELD_OUT_OF_RANGE
        raise InvalidField(error.field, error.found, error.expected, rule=rule) from error
