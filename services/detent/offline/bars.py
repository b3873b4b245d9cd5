"""Read bars from a data file, and refuse a file that is not what it seems to be.

Files carry the open time of a bar, the wire its close: the interval is added here, once.
"""

import collections
import csv
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from detent.contracts.checks import check_symbol, check_ts_ms
from detent.contracts.decimals import format_decimal
from detent.contracts.errors import DataInvalid, InvalidField
from detent.contracts.market import INTERVAL_MS_MAX, Bar

PRICES = ("open", "high", "low", "close")
NUMBERS = (*PRICES, "volume")
COLUMNS = ("ts_ms", "symbol", *NUMBERS)
BARS_MAX = 5_000_000
BATCH_ROWS = 50_000


class RawBar(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one row of a file before its interval is known.

    Attributes:
        row: Number of the data row, from 1, without a header.
        open_ts_ms: Open time, Unix milliseconds UTC.
        symbol: Instrument.
        numbers: Open, high, low, close, volume.
    """

    row: int
    open_ts_ms: int
    symbol: str
    numbers: tuple[Decimal, ...]


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Reports bars that are not there.

    Attributes:
        symbol: Instrument.
        after_ts_ms: Close time of the last bar before the gap.
        before_ts_ms: Close time of the first bar after it.
        missing_bars: How many would lie between.
    """

    symbol: str
    after_ts_ms: int
    before_ts_ms: int
    missing_bars: int


class BarTable(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the bars of a file.

    Attributes:
        bars: Bars by symbol, oldest first.
        interval_ms: Length of every bar.
        gaps: Where bars are missing, by symbol and time; weekends as a rule.
        data_hash: SHA-256 of the bars, 64 hex; the same for the same bars in any format.
    """

    bars: Mapping[str, tuple[Bar, ...]]
    interval_ms: int
    gaps: tuple[Gap, ...]
    data_hash: str

    @property
    def bar_count(self) -> int:
        """Count the bars of all symbols."""
        return sum(len(bars) for bars in self.bars.values())

    def first(self, symbol: str, count: int) -> "BarTable":
        """Give the table that would have been read before the rest was known."""
        bars = {symbol: self.bars[symbol][:count]}
        last_ts_ms = bars[symbol][-1].ts_ms
        return BarTable(
            bars=bars,
            interval_ms=self.interval_ms,
            gaps=tuple(
                gap for gap in self.gaps if gap.symbol == symbol and gap.before_ts_ms <= last_ts_ms
            ),
            data_hash=_data_hash(bars),
        )


def load_bars(path: Path) -> BarTable:
    """Read a `.parquet` or `.csv` file with the columns of `COLUMNS`; others are ignored.

    Raises:
        DataInvalid: The file cannot be read, or a row is not what it should be; the error
            names the row, counted from 1 without a header, and the column.
    """
    rows = enumerate(raw_cells(path), start=1)
    return table_of(path.name, (raw_bar(path.name, row, cells) for row, cells in rows))


def raw_cells(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a `.parquet` or `.csv` file as they are, by column.

    Raises:
        DataInvalid: The file cannot be read, or lacks a column.
    """
    readers = {".parquet": _parquet_cells, ".csv": _csv_cells}
    if path.suffix.lower() not in readers:
        raise invalid(path.name, path.suffix or "(no suffix)", " or ".join(readers))
    try:
        yield from readers[path.suffix.lower()](path)
    except (OSError, pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
        raise invalid(path.name, error, f"a {path.suffix} file that can be read") from error


def table_of(file: str, rows: Iterable[RawBar]) -> BarTable:
    """Check rows against one another and turn open times into close times.

    Args:
        file: Name of the file, for errors.
        rows: Rows in the order of the file; those of one symbol oldest first.

    Raises:
        DataInvalid: Rows are repeated, unsorted, too few to tell the interval, off its
            grid, or contradict themselves.
    """
    by_symbol: dict[str, list[RawBar]] = {}
    for raw in rows:
        before = by_symbol.setdefault(raw.symbol, [])
        if before and raw.open_ts_ms <= before[-1].open_ts_ms:
            repeated = raw.open_ts_ms == before[-1].open_ts_ms
            what = "repeated" if repeated else "earlier than the row before"
            expected = f"{raw.symbol} after {before[-1].open_ts_ms}"
            raise invalid(file, f"{raw.open_ts_ms} ({what})", expected, row=raw.row, column="ts_ms")
        if raw.row > BARS_MAX:
            raise invalid(file, f"more than {BARS_MAX} rows", f"at most {BARS_MAX}")
        before.append(raw)
    interval_ms = _interval_ms(file, by_symbol)
    bars: dict[str, tuple[Bar, ...]] = {}
    gaps: list[Gap] = []
    for symbol, raws in sorted(by_symbol.items()):
        _check_grid(file, raws, interval_ms)
        bars[symbol] = tuple(_bar(file, raw, interval_ms) for raw in raws)
        gaps.extend(_gaps(bars[symbol], interval_ms))
    return BarTable(
        bars=bars, interval_ms=interval_ms, gaps=tuple(gaps), data_hash=_data_hash(bars)
    )


def raw_bar(file: str, row: int, cells: Mapping[str, Any]) -> RawBar:
    """Read one row.

    Args:
        file: Name of the file, for errors.
        row: Number of the data row, from 1.
        cells: Values by column; numbers as text, `int` or `float`.

    Raises:
        DataInvalid: A cell is empty or of another type, or a time is not in milliseconds.
    """
    for column in COLUMNS:
        if cells.get(column) in (None, ""):
            raise invalid(file, "(empty)", "a value", row=row, column=column)
    try:
        open_ts_ms = _integer(cells["ts_ms"])
        check_ts_ms("ts_ms", open_ts_ms)
        check_symbol("symbol", cells["symbol"])
        numbers = tuple(_decimal(column, cells[column]) for column in NUMBERS)
    except InvalidField as error:
        raise _at(file, row, error) from error
    return RawBar(row=row, open_ts_ms=open_ts_ms, symbol=cells["symbol"], numbers=numbers)


def invalid(
    file: str, found: object, expected: str, *, row: int | None = None, column: str | None = None
) -> DataInvalid:
    """Give the error for a data file, naming row and column where they are known."""
    where = file if row is None else f"{file}, row {row}"
    where = where if column is None else f"{where}, column {column}"
    message = f"{where}: found {found}, expected {expected}"
    facts = {"file": file, "row": row, "column": column, "found": found, "expected": expected}
    return DataInvalid(message, **{key: fact for key, fact in facts.items() if fact is not None})


def check_columns(file: str, found: Iterable[str]) -> None:
    """Refuse a file that lacks a column."""
    missing = [column for column in COLUMNS if column not in set(found)]
    if missing:
        raise invalid(
            file, f"no column {', '.join(missing)}", ", ".join(COLUMNS), column=missing[0]
        )


def _parquet_cells(path: Path) -> Iterator[Mapping[str, Any]]:
    with pq.ParquetFile(path) as source:
        check_columns(path.name, source.schema_arrow.names)
        for batch in source.iter_batches(batch_size=BATCH_ROWS, columns=list(COLUMNS)):
            yield from batch.to_pylist()


def _csv_cells(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as source:
        reader = csv.DictReader(source)
        check_columns(path.name, reader.fieldnames or ())
        yield from reader


def _integer(value: object) -> int:
    if type(value) is int:
        return value
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        return int(value)
    raise InvalidField("ts_ms", value, "an integer, Unix milliseconds UTC")


def _decimal(column: str, value: object) -> Decimal:
    # A float is read by its shortest text, so that 1.05236 is that and not its binary
    # neighbour; the same bars then have the same hash from CSV and from parquet.
    text = value if isinstance(value, str) else repr(value)
    try:
        number = Decimal(text.replace("_", "?"))
    except InvalidOperation as error:
        raise InvalidField(column, value, "a number") from error
    if not number.is_finite():
        raise InvalidField(column, value, "a finite number")
    return number


def _interval_ms(file: str, by_symbol: Mapping[str, list[RawBar]]) -> int:
    """Take the most frequent distance between neighbours; the shorter one on a tie."""
    distances = collections.Counter(
        later.open_ts_ms - earlier.open_ts_ms
        for raws in by_symbol.values()
        for earlier, later in itertools.pairwise(raws)
    )
    if not distances:
        count = sum(len(raws) for raws in by_symbol.values())
        raise invalid(file, f"{count} rows", "at least two bars of one symbol")
    interval_ms = min(distances, key=lambda distance: (-distances[distance], distance))
    if interval_ms > INTERVAL_MS_MAX:
        raise invalid(file, f"bars of {interval_ms} ms", f"at most {INTERVAL_MS_MAX} ms")
    return interval_ms


def _check_grid(file: str, raws: list[RawBar], interval_ms: int) -> None:
    for earlier, later in itertools.pairwise(raws):
        distance = later.open_ts_ms - earlier.open_ts_ms
        if distance % interval_ms != 0:
            found = f"{distance} ms after the row before"
            expected = f"a multiple of {interval_ms} ms"
            raise invalid(file, found, expected, row=later.row, column="ts_ms")


def _bar(file: str, raw: RawBar, interval_ms: int) -> Bar:
    numbers: dict[str, Any] = dict(zip(NUMBERS, raw.numbers, strict=True))
    try:
        return Bar(
            symbol=raw.symbol,
            ts_ms=raw.open_ts_ms + interval_ms,
            interval_ms=interval_ms,
            **numbers,
        )
    except InvalidField as error:
        raise _at(file, raw.row, error) from error


def _at(file: str, row: int, error: InvalidField) -> DataInvalid:
    return invalid(file, error.found, error.expected, row=row, column=error.field)


def _gaps(bars: tuple[Bar, ...], interval_ms: int) -> Iterator[Gap]:
    for earlier, later in itertools.pairwise(bars):
        missing_bars = (later.ts_ms - earlier.ts_ms) // interval_ms - 1
        if missing_bars:
            yield Gap(
                symbol=earlier.symbol,
                after_ts_ms=earlier.ts_ms,
                before_ts_ms=later.ts_ms,
                missing_bars=missing_bars,
            )


def _data_hash(bars: Mapping[str, tuple[Bar, ...]]) -> str:
    digest = hashlib.sha256()
    for symbol in sorted(bars):
        for bar in bars[symbol]:
            numbers = ",".join(format_decimal(getattr(bar, name)) for name in NUMBERS)
            digest.update(f"{symbol},{bar.ts_ms},{bar.interval_ms},{numbers}\n".encode("ascii"))
    return digest.hexdigest()
