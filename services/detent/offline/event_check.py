"""Look for everything that is wrong with a file of quotes or order books.

As with bars, the whole file is read and its defects are counted. A time without any data is what
markets and recorders do: it is reported and leaves the file usable.
"""

import collections
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np

from detent.contracts.errors import DataCrossed, DataInvalid, InvalidField
from detent.contracts.market import Book, BookRule, Quote
from detent.core.features.market_state import SYMBOLS_MAX
from detent.offline.book_rows import load_book_rows
from detent.offline.books import RecordRule, load_book_lines
from detent.offline.cells import check_filled, invalid, invalid_at, raw_cells
from detent.offline.event_files import LINES_SUFFIX, FileKind
from detent.offline.findings import Finding, FindingCount, Tally, utc
from detent.offline.quotes import COLUMNS, OPTIONAL, quote_of

ITEMS_MAX = 20_000_000
# Longer than the shortest usual bar, and much longer than the file's own rhythm.
GAP_MS_MIN = 60_000
GAP_MEDIANS = 10
# Stands for an exchange that the file does not name: a check needs none.
ANY_VENUE = "ANY"
READ_FINDINGS = (Finding.UNREADABLE, Finding.DUPLICATE, Finding.UNSORTED, Finding.CROSSED)
FINDINGS = {
    FileKind.QUOTES: (*READ_FINDINGS, Finding.GAP),
    FileKind.BOOKS: (*READ_FINDINGS, Finding.BOOK_INVALID, Finding.GAP),
}
_BY_RULE: dict[str, Finding] = {
    RecordRule.BOOK_OUT_OF_ORDER: Finding.UNSORTED,
    BookRule.BOOK_CROSSED: Finding.CROSSED,
    BookRule.BOOK_LOCKED: Finding.CROSSED,
    RecordRule.LEVEL_NOT_NEXT: Finding.BOOK_INVALID,
    RecordRule.SIDE_UNKNOWN: Finding.BOOK_INVALID,
    BookRule.QTY_NOT_ABOVE_ZERO: Finding.BOOK_INVALID,
    BookRule.PRICE_NOT_ABOVE_ZERO: Finding.BOOK_INVALID,
    BookRule.BIDS_NOT_DEPTH: Finding.BOOK_INVALID,
    BookRule.ASKS_NOT_DEPTH: Finding.BOOK_INVALID,
    BookRule.BIDS_NOT_DESCENDING: Finding.BOOK_INVALID,
    BookRule.ASKS_NOT_ASCENDING: Finding.BOOK_INVALID,
}


class EventCoverage(msgspec.Struct, frozen=True, kw_only=True):
    """Says what the sound quotes or books of one symbol cover.

    Attributes:
        symbol: Instrument.
        items: Number of quotes or books.
        first_ts_ms: Event time of the first, Unix milliseconds UTC.
        last_ts_ms: Event time of the last.
        median_ms: Distance between neighbours that half of them keep within.
        longest_ms: Longest distance between neighbours.
    """

    symbol: str
    items: int
    first_ts_ms: int
    last_ts_ms: int
    median_ms: int
    longest_ms: int


class EventReport(msgspec.Struct, frozen=True, kw_only=True):
    """Says what a file of quotes or books holds and what is wrong with it.

    Attributes:
        file: Name of the file.
        kind: What it holds.
        items: Quotes or books, bad ones included.
        findings: One count per kind that can be found; kinds not found count 0.
        coverage: One entry per symbol, in alphabetical order, over what is sound.
    """

    file: str
    kind: FileKind
    items: int
    findings: tuple[FindingCount, ...]
    coverage: tuple[EventCoverage, ...]

    @property
    def defect_count(self) -> int:
        """Count what makes the file unusable."""
        return sum(one.count for one in self.findings if one.defect)

    @property
    def usable(self) -> bool:
        """Say whether the file can be read for use: no defect, and something in it."""
        return self.defect_count == 0 and bool(self.coverage)


class _Series:
    """Collects when the sound items of one symbol happened, and where they stand."""

    def __init__(self) -> None:
        self.times = array("q")
        self.places = array("q")
        self.newest: Quote | Book | None = None

    def take(self, place: int, item: Quote | Book, tally: Tally) -> None:
        """Take an item that moves time forward; report one that repeats it or goes back.

        Two different quotes of one instant are both sound, two books are not.
        """
        newest = self.newest
        if newest is not None and item.ts_ms < newest.ts_ms:
            what = f"{utc(item.ts_ms)} after {utc(newest.ts_ms)}"
            tally.add(Finding.UNSORTED, item.symbol, place, what)
            return
        is_again = newest is not None and item.ts_ms == newest.ts_ms
        if is_again and (item == newest or isinstance(item, Book)):
            tally.add(Finding.DUPLICATE, item.symbol, place, f"{utc(item.ts_ms)} again")
            return
        self.newest = item
        self.times.append(item.ts_ms)
        self.places.append(place)


def check_events(
    path: Path, kind: FileKind, *, progress: Callable[[str, int, int], None]
) -> EventReport:
    """Read a file of quotes or books to its end and report what it is like.

    Args:
        path: The file.
        kind: What it holds: quotes or books.
        progress: Told of (stage, done, in all).

    Raises:
        DataInvalid: The file cannot be read at all, or lacks a column.
    """
    tally = Tally()
    series: dict[str, _Series] = collections.defaultdict(_Series)
    items = 0
    progress("read", 0, 1)
    sound = _sound_quotes(path, tally) if kind is FileKind.QUOTES else _sound_books(path, tally)
    for place, item in sound:
        items += 1
        if items > ITEMS_MAX:
            raise invalid(path.name, f"more than {ITEMS_MAX} {kind}", f"at most {ITEMS_MAX}")
        series[item.symbol].take(place, item, tally)
        if len(series) > SYMBOLS_MAX:
            raise invalid(path.name, "too many symbols", f"at most {SYMBOLS_MAX}")
    progress("read", 1, 1)
    unsound = sum(tally.counts.values()) - sum(
        tally.counts[one] for one in (Finding.DUPLICATE, Finding.UNSORTED)
    )
    coverage = tuple(
        _coverage_of(symbol, series[symbol], tally)
        for symbol in sorted(series)
        if series[symbol].times
    )
    return EventReport(
        file=path.name,
        kind=kind,
        items=items + unsound,
        findings=tally.listed(FINDINGS[kind]),
        coverage=coverage,
    )


def _sound_quotes(path: Path, tally: Tally) -> Iterator[tuple[int, Quote]]:
    for row, cells in raw_cells(path, COLUMNS, optional=OPTIONAL):
        symbol = str(cells.get("symbol") or "")
        try:
            check_filled(path.name, row, cells, COLUMNS)
            quote = quote_of(cells)
        except DataCrossed as error:
            what = f"bid {error.found}, expected {error.expected}"
            tally.add(Finding.CROSSED, symbol, row, what)
        except InvalidField as error:
            tally.add(Finding.UNREADABLE, symbol, row, _told(invalid_at(path.name, row, error)))
        except DataInvalid as error:
            tally.add(Finding.UNREADABLE, symbol, row, _told(error))
        else:
            yield row, quote


def _sound_books(path: Path, tally: Tally) -> Iterator[tuple[int, Book]]:
    """Yield the books with their number, from 1; what is none is named by its row."""

    def on_fault(fault: DataInvalid) -> None:
        facts = fault.metadata
        finding = _BY_RULE.get(facts.get("rule", ""), Finding.UNREADABLE)
        if facts["expected"].startswith(f"after {facts['found']},"):
            finding = Finding.DUPLICATE
        tally.add(finding, "", int(facts["row"]), _told(fault))

    if path.suffix.lower() == LINES_SUFFIX:
        books = load_book_lines(path, on_fault=on_fault)
    else:
        books = load_book_rows(path, venue=ANY_VENUE, on_fault=on_fault)
    yield from enumerate(books, start=1)


def _told(error: DataInvalid) -> str:
    facts = error.metadata
    return f"{facts['column']}: found {facts['found']}, expected {facts['expected']}"


def _coverage_of(symbol: str, series: _Series, tally: Tally) -> EventCoverage:
    times, places = np.array(series.times), np.array(series.places)
    distances = np.diff(times)
    median_ms = int(np.median(distances)) if len(distances) else 0
    least_ms = max(GAP_MS_MIN, GAP_MEDIANS * median_ms)
    for index in np.flatnonzero(distances > least_ms).tolist():
        what = f"{int(distances[index]) // 1_000} s without any after {utc(int(times[index]))}"
        tally.add(Finding.GAP, symbol, int(places[index + 1]), what)
    return EventCoverage(
        symbol=symbol,
        items=len(times),
        first_ts_ms=int(times[0]),
        last_ts_ms=int(times[-1]),
        median_ms=median_ms,
        longest_ms=int(distances.max()) if len(distances) else 0,
    )
