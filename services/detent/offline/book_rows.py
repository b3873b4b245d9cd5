"""Read order books from files with one row per level, such as parquet or CSV.

The rows of one book follow one another, each side best first and counted from 1; the books of
one symbol are in order of time. Binary floats are read by their shortest text.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from detent.contracts.errors import InvalidField
from detent.contracts.market import LEVELS_MAX, Book, BookLevel
from detent.core.features.market_state import SYMBOLS_MAX
from detent.offline.books import OnFault, RecordRule, book_from, check_type, number_of
from detent.offline.cells import Cells, invalid_at, optional_integer, raw_cells

COLUMNS = ("ts_ms", "symbol", "side", "level", "price", "qty")
OPTIONAL = ("venue", "available_ts_ms")


def load_book_rows(
    path: Path,
    *,
    venue: str | None = None,
    symbol: str | None = None,
    on_fault: OnFault | None = None,
) -> Iterator[Book]:
    """Yield the books of a `.parquet` or `.csv` file with the columns of `COLUMNS`.

    Of `OPTIONAL` it may have any; other columns are ignored. A book is known once all of its
    levels are.

    Args:
        path: The file.
        venue: Exchange that the file is from, in upper case, where it has no column for it.
        symbol: Instrument whose books are wanted; None for all.
        on_fault: Told of a book that is none, which is then left out; None raises instead.

    Raises:
        DataInvalid: The file cannot be read, or a row is not what it should be; the error names
            the row, counted from 1, the column, and in its metadata the rule.
    """
    rows = _Rows(path.name, venue, on_fault)
    for row, cells in raw_cells(path, COLUMNS, optional=OPTIONAL, symbol=symbol):
        yield from rows.take(row, cells)
    yield from rows.finish()


class _Rows:
    """Collects the rows of one book after another."""

    def __init__(self, file: str, venue: str | None, on_fault: OnFault | None) -> None:
        self._file = file
        self._venue = venue
        self._on_fault = on_fault
        self._row = 0
        self._key: tuple[Any, Any] | None = None
        self._sides: dict[str, list[BookLevel]] = {}
        self._named: str | None = None
        self._available_ts_ms: int | None = None
        self._is_broken = False
        self._last_ts_ms: dict[str, int] = {}

    def take(self, row: int, cells: Cells) -> Iterator[Book]:
        """Take a row; yield the book before it when the row begins another."""
        key = _whole(cells["ts_ms"]), cells["symbol"]
        if key != self._key:
            yield from self.finish()
            self._key, self._is_broken = key, False
            self._row = row
            self._guarded(lambda: self._begin(*key, cells))
        self._row = row
        if not self._is_broken:
            self._guarded(lambda: self._add(cells))

    def finish(self) -> Iterator[Book]:
        """Yield the book that was begun, if it is one."""
        if self._key is None or self._is_broken:
            return
        ts_ms, symbol = self._key
        bids, asks = tuple(self._sides["bid"]), tuple(self._sides["ask"])
        try:
            book = book_from(
                symbol=symbol,
                ts_ms=ts_ms,
                venue=self._venue if self._named is None else self._named,
                depth=len(bids),
                bids=bids,
                asks=asks,
                available_ts_ms=self._available_ts_ms,
            )
        except InvalidField as error:
            self._fault(error)
            return
        yield book

    def _begin(self, ts_ms: Any, symbol: Any, cells: Cells) -> None:
        check_type("ts_ms", ts_ms, int)
        check_type("symbol", symbol, str)
        last_ts_ms = self._last_ts_ms.get(symbol, 0)
        if ts_ms <= last_ts_ms:
            expected = f"after {last_ts_ms}, the book before"
            raise InvalidField("ts_ms", ts_ms, expected, rule=RecordRule.BOOK_OUT_OF_ORDER)
        if symbol not in self._last_ts_ms and len(self._last_ts_ms) >= SYMBOLS_MAX:
            expected = f"at most {SYMBOLS_MAX} symbols"
            raise InvalidField("symbol", symbol, expected, rule=RecordRule.FIELD_OUT_OF_RANGE)
        self._named = cells.get("venue") or None
        if self._named is None and self._venue is None:
            expected = "a column of that name, or a venue that is said"
            raise InvalidField("venue", "no venue", expected, rule=RecordRule.FIELD_MISSING)
        self._last_ts_ms[symbol] = ts_ms
        self._sides = {"bid": [], "ask": []}
        self._available_ts_ms = None

    def _add(self, cells: Cells) -> None:
        levels = self._sides.get(cells["side"])
        if levels is None:
            raise InvalidField("side", cells["side"], "bid or ask", rule=RecordRule.SIDE_UNKNOWN)
        due = len(levels) + 1
        level = _whole(cells["level"])
        if level != due or due > LEVELS_MAX:
            expected = f"{due}, the next" if due <= LEVELS_MAX else f"at most {LEVELS_MAX} levels"
            raise InvalidField("level", level, expected, rule=RecordRule.LEVEL_NOT_NEXT)
        price, qty = number_of("price", cells["price"]), number_of("qty", cells["qty"])
        levels.append(BookLevel(price=price, qty=qty))
        known_ts_ms = optional_integer(cells, "available_ts_ms")
        if known_ts_ms is not None:
            self._available_ts_ms = max(known_ts_ms, self._available_ts_ms or 0)

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except InvalidField as error:
            self._fault(error)

    def _fault(self, error: InvalidField) -> None:
        self._is_broken = True
        refusal = invalid_at(self._file, self._row, error)
        if self._on_fault is None:
            raise refusal from error
        self._on_fault(refusal)


def _whole(value: Any) -> Any:
    """Read the text of an integer, as CSV has it; whatever else it is is judged elsewhere."""
    is_text = isinstance(value, str) and value.isascii() and value.isdecimal()
    return int(value) if is_text else value
