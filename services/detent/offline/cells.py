"""Read the cells of a data file, row by row, and name where one is not what it should be."""

import csv
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from detent.contracts.errors import DataInvalid, InvalidField
from detent.offline.parquet import open_parquet, read_batches

SYMBOL = "symbol"
# The largest float32.
FLOAT32_MAX = (2.0 - 2.0**-23) * 2.0**127
Cells = Mapping[str, Any]


def raw_cells(
    path: Path,
    columns: Sequence[str],
    *,
    optional: Sequence[str] = (),
    symbol: str | None = None,
) -> Iterator[tuple[int, Cells]]:
    """Yield the rows of a `.parquet` or `.csv` file as they are, by column.

    Args:
        path: The file.
        columns: What it must have.
        optional: What it may have; other columns are ignored.
        symbol: Instrument whose rows are wanted; None for all.

    Returns:
        The number of each row, from 1 without a header, and its cells.

    Raises:
        DataInvalid: The file cannot be read, or lacks a column.
    """
    readers = {".parquet": _parquet_cells, ".csv": _csv_cells}
    if path.suffix.lower() not in readers:
        raise invalid(path.name, path.suffix or "(no suffix)", " or ".join(readers))
    check_columns(path.name, columns_of(path), columns)
    with_reported = readers[path.suffix.lower()](path, (*columns, *optional), symbol)
    try:
        yield from with_reported
    except (OSError, pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(path, error) from error


def columns_of(path: Path) -> tuple[str, ...]:
    """List the columns of a `.parquet` or `.csv` file.

    Raises:
        DataInvalid: The file cannot be read.
    """
    try:
        if path.suffix.lower() == ".parquet":
            with open_parquet(path) as source:
                return tuple(source.schema_arrow.names)
        with path.open(encoding="utf-8-sig", newline="") as text:
            return tuple(csv.DictReader(text).fieldnames or ())
    except (OSError, pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(path, error) from error


def file_sha256(path: Path) -> str:
    """Hash a `.parquet` or `.csv` file as it is, so that whoever used it can name it; 64 hex.

    Raises:
        DataInvalid: The file cannot be read.
    """
    try:
        with path.open("rb") as source:
            return hashlib.file_digest(source, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def check_columns(file: str, found: Iterable[str], expected: Sequence[str]) -> None:
    """Refuse a file that lacks a column."""
    found = tuple(found)
    missing = [column for column in expected if column not in found]
    if missing:
        what = f"no column {', '.join(missing)} among {', '.join(found) or '(none)'}"
        raise invalid(file, what, ", ".join(expected), column=missing[0])


def invalid(
    file: str, found: object, expected: str, *, row: int | None = None, column: str | None = None
) -> DataInvalid:
    """Give the error for a data file, naming row and column where they are known."""
    where = file if row is None else f"{file}, row {row}"
    where = where if column is None else f"{where}, column {column}"
    message = f"{where}: found {found}, expected {expected}"
    place = {key: at for key, at in (("row", row), ("column", column)) if at is not None}
    return DataInvalid(message, file=file, **place, found=found, expected=expected)


def invalid_at(file: str, row: int | None, error: InvalidField) -> DataInvalid:
    """Give the error for a field of a row; its rule comes along where it has one."""
    told = invalid(file, error.found, error.expected, row=row, column=error.field)
    named = {} if error.rule is None else {"rule": error.rule}
    return DataInvalid(told.message, **told.metadata, **named)


def check_filled(file: str, row: int, cells: Cells, columns: Iterable[str]) -> None:
    """Refuse a row that lacks a value."""
    for column in columns:
        if cells.get(column) in (None, ""):
            raise invalid(file, "(empty)", "a value", row=row, column=column)


def integer_cell(column: str, value: object) -> int:
    """Read an integer; the text of one is one."""
    if type(value) is int:
        return value
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        return int(value)
    unit = ", Unix milliseconds UTC" if column.endswith("ts_ms") else ""
    raise InvalidField(column, value, f"an integer{unit}")


def decimal_cell(column: str, value: object) -> Decimal:
    """Read a number.

    A float is read by its shortest text, so that 1.05236 is that and not its binary neighbour;
    the same rows are then the same from CSV and from parquet.
    """
    text = value if isinstance(value, str) else repr(value)
    try:
        number = Decimal(text.replace("_", "?"))
    except InvalidOperation as error:
        raise InvalidField(column, value, "a number") from error
    if not number.is_finite():
        raise InvalidField(column, value, "a finite number")
    return number


def input_cell(column: str, value: object) -> float:
    """Read a number that a model is given, and so a float32 that is finite."""
    number = float(decimal_cell(column, value))
    if abs(number) > FLOAT32_MAX:
        raise InvalidField(column, value, f"a number within {FLOAT32_MAX:.4g} of 0")
    return number


def optional_integer(cells: Cells, column: str) -> int | None:
    """Read an integer that need not be there.

    Where cells are empty, data frames keep integers as floats; a whole one is read as such.
    """
    value = cells.get(column)
    if value in (None, ""):
        return None
    is_whole = isinstance(value, float) and value.is_integer()
    return integer_cell(column, int(value) if is_whole else value)


def optional_decimal(cells: Cells, column: str) -> Decimal | None:
    """Read a number that need not be there."""
    value = cells.get(column)
    return None if value in (None, "") else decimal_cell(column, value)


def _parquet_cells(
    path: Path, columns: Sequence[str], symbol: str | None
) -> Iterator[tuple[int, Cells]]:
    row = 0
    with open_parquet(path) as source:
        wanted = [name for name in columns if name in source.schema_arrow.names]
        for batch in read_batches(source, wanted):
            if symbol is None:
                yield from enumerate(batch.to_pylist(), start=row + 1)
            else:
                mine = pc.indices_nonzero(pc.equal(batch.column(SYMBOL), symbol))
                rows = zip(mine.to_pylist(), batch.take(mine).to_pylist(), strict=True)
                yield from ((row + index + 1, cells) for index, cells in rows)
            row += batch.num_rows


def _csv_cells(
    path: Path, columns: Sequence[str], symbol: str | None
) -> Iterator[tuple[int, Cells]]:
    del columns  # A reader of text reads them all.
    with path.open(encoding="utf-8-sig", newline="") as source:
        for row, cells in enumerate(csv.DictReader(source), start=1):
            if symbol is None or cells[SYMBOL] == symbol:
                yield row, cells


def _unreadable(path: Path, error: Exception) -> DataInvalid:
    return invalid(path.name, error, f"a {path.suffix} file that can be read")
