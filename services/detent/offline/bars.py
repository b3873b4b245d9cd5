"""Read bars from a data file, and refuse a file that is not what it seems to be.

Files carry the open time of a bar, the wire its close: the interval is added here, once.
"""

import collections
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from detent.contracts.checks import check_symbol, check_ts_ms
from detent.contracts.decimals import format_decimal
from detent.contracts.errors import InvalidField
from detent.contracts.market import INTERVAL_MS_MAX, Bar
from detent.offline.cells import (
    Cells,
    check_filled,
    decimal_cell,
    integer_cell,
    invalid,
    invalid_at,
    optional_decimal,
    optional_integer,
    raw_cells,
)

PRICES = ("open", "high", "low", "close")
NUMBERS = (*PRICES, "volume")
COLUMNS = ("ts_ms", "symbol", *NUMBERS)
# `funding_rate` is the rate that holds at the close of each bar; `funding` stands only on the
# bar in which it was settled, as exchanges publish it.
VWAP, FUNDING_RATE, SETTLED, AVAILABLE = "vwap", "funding_rate", "funding", "available_ts_ms"
OPTIONAL = (VWAP, FUNDING_RATE, SETTLED, AVAILABLE)
BARS_MAX = 5_000_000
# What is settled holds until the next settlement, and no longer if that is missing.
FUNDING_MS = 8 * 3_600_000


class RawBar(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one row of a file before its interval is known.

    Attributes:
        row: Number of the data row, from 1, without a header.
        open_ts_ms: Open time, Unix milliseconds UTC.
        symbol: Instrument.
        numbers: Open, high, low, close, volume.
        vwap: Volume-weighted price, where the file has it.
        funding_rate: Funding rate that holds at the close, where the file has it.
        settled: Funding rate that was settled within the bar, where the file has it.
        available_ts_ms: When the bar became known, where the file says.
    """

    row: int
    open_ts_ms: int
    symbol: str
    numbers: tuple[Decimal, ...]
    vwap: Decimal | None = None
    funding_rate: Decimal | None = None
    settled: Decimal | None = None
    available_ts_ms: int | None = None


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
        settled: By symbol, the funding rates that were settled, by when: the open time of the
            bar that says so. Only symbols whose bars say it.
    """

    bars: Mapping[str, tuple[Bar, ...]]
    interval_ms: int
    gaps: tuple[Gap, ...]
    data_hash: str
    settled: Mapping[str, Mapping[int, Decimal]] = {}

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
            settled={
                name: {ts_ms: rate for ts_ms, rate in rates.items() if ts_ms < last_ts_ms}
                for name, rates in self.settled.items()
                if name == symbol
            },
        )


def load_bars(path: Path) -> BarTable:
    """Read a `.parquet` or `.csv` file with the columns of `COLUMNS`, and of `OPTIONAL` if any.

    Other columns are ignored. What was settled as `funding` holds for eight hours.

    Raises:
        DataInvalid: The file cannot be read, or a row is not what it should be; the error
            names the row, counted from 1 without a header, and the column.
    """
    rows = raw_cells(path, COLUMNS, optional=OPTIONAL)
    return table_of(path.name, (raw_bar(path.name, row, cells) for row, cells in rows))


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
        bars[symbol] = tuple(_bars(file, raws, interval_ms))
        gaps.extend(_gaps(bars[symbol], interval_ms))
    settled = {
        symbol: {raw.open_ts_ms: raw.settled for raw in raws if raw.settled is not None}
        for symbol, raws in by_symbol.items()
    }
    return BarTable(
        bars=bars,
        interval_ms=interval_ms,
        gaps=tuple(gaps),
        data_hash=_data_hash(bars),
        settled={symbol: rates for symbol, rates in settled.items() if rates},
    )


def raw_bar(file: str, row: int, cells: Cells) -> RawBar:
    """Read one row.

    Args:
        file: Name of the file, for errors.
        row: Number of the data row, from 1.
        cells: Values by column; numbers as text, `int` or `float`.

    Raises:
        DataInvalid: A cell is empty or of another type, or a time is not in milliseconds.
    """
    check_filled(file, row, cells, COLUMNS)
    try:
        open_ts_ms = integer_cell("ts_ms", cells["ts_ms"])
        check_ts_ms("ts_ms", open_ts_ms)
        check_symbol("symbol", cells["symbol"])
        return RawBar(
            row=row,
            open_ts_ms=open_ts_ms,
            symbol=cells["symbol"],
            numbers=tuple(decimal_cell(column, cells[column]) for column in NUMBERS),
            vwap=optional_decimal(cells, VWAP),
            funding_rate=optional_decimal(cells, FUNDING_RATE),
            settled=optional_decimal(cells, SETTLED),
            available_ts_ms=optional_integer(cells, AVAILABLE),
        )
    except InvalidField as error:
        raise invalid_at(file, row, error) from error


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


def _bars(file: str, raws: Iterable[RawBar], interval_ms: int) -> Iterator[Bar]:
    settled, settled_ts_ms = None, 0
    for raw in raws:
        if raw.settled is not None:
            settled, settled_ts_ms = raw.settled, raw.open_ts_ms
        held = settled if raw.open_ts_ms < settled_ts_ms + FUNDING_MS else None
        try:
            yield bar_of(raw, interval_ms, funding_rate=held)
        except InvalidField as error:
            raise invalid_at(file, raw.row, error) from error


def bar_of(raw: RawBar, interval_ms: int, *, funding_rate: Decimal | None = None) -> Bar:
    """Give the bar of a row.

    Args:
        raw: The row.
        interval_ms: Length of the bar.
        funding_rate: What holds at its close where the row does not say.

    Raises:
        InvalidField: The row contradicts itself.
    """
    numbers: dict[str, Any] = dict(zip(NUMBERS, raw.numbers, strict=True))
    return Bar(
        symbol=raw.symbol,
        ts_ms=raw.open_ts_ms + interval_ms,
        interval_ms=interval_ms,
        **numbers,
        vwap=raw.vwap,
        funding_rate=funding_rate if raw.funding_rate is None else raw.funding_rate,
        available_ts_ms=raw.available_ts_ms,
    )


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
            line = f"{symbol},{bar.ts_ms},{bar.interval_ms},{numbers}{_said_besides(bar)}\n"
            digest.update(line.encode("ascii"))
    return digest.hexdigest()


def _said_besides(bar: Bar) -> str:
    """Give what not every bar has; nothing for one that has nothing, so that its hash stays."""
    decimals = {VWAP: bar.vwap, FUNDING_RATE: bar.funding_rate}
    texts = {name: format_decimal(one) for name, one in decimals.items() if one is not None}
    if bar.available_ts_ms is not None:
        texts[AVAILABLE] = str(bar.available_ts_ms)
    return "".join(f",{name}={text}" for name, text in texts.items())
