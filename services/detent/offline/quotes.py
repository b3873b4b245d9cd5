"""Read quotes, the best bid and ask, from a file, and refuse what is no quote.

A file may be of any length: the quotes come one by one, those of one symbol in order of time.
"""

from collections.abc import Iterator
from pathlib import Path

from detent.contracts.errors import InvalidField
from detent.contracts.market import Quote
from detent.core.features.market_state import SYMBOLS_MAX
from detent.offline.cells import (
    Cells,
    check_filled,
    decimal_cell,
    integer_cell,
    invalid,
    invalid_at,
    optional_integer,
    raw_cells,
)

NUMBERS = ("bid_price", "bid_qty", "ask_price", "ask_qty")
COLUMNS = ("ts_ms", "symbol", *NUMBERS)
OPTIONAL = ("available_ts_ms",)


def load_quotes(path: Path, *, symbol: str | None = None) -> Iterator[Quote]:
    """Yield the quotes of a `.parquet` or `.csv` file with the columns of `COLUMNS`.

    Of `OPTIONAL` it may have any; other columns are ignored.

    Args:
        path: The file.
        symbol: Instrument whose quotes are wanted; None for all.

    Raises:
        DataInvalid: The file cannot be read, or a row is no quote or older than the one before
            of its symbol; the error names the row, counted from 1 without a header.
    """
    newest_ts_ms: dict[str, int] = {}
    for row, cells in raw_cells(path, COLUMNS, optional=OPTIONAL, symbol=symbol):
        check_filled(path.name, row, cells, COLUMNS)
        try:
            quote = quote_of(cells)
        except InvalidField as error:
            raise invalid_at(path.name, row, error) from error
        last_ts_ms = newest_ts_ms.get(quote.symbol, 0)
        if quote.ts_ms < last_ts_ms:
            expected = f"at least {last_ts_ms}, the quote before"
            raise invalid(path.name, quote.ts_ms, expected, row=row, column="ts_ms")
        newest_ts_ms[quote.symbol] = quote.ts_ms
        if len(newest_ts_ms) > SYMBOLS_MAX:
            expected = f"at most {SYMBOLS_MAX} symbols"
            raise invalid(path.name, quote.symbol, expected, row=row, column="symbol")
        yield quote


def quote_of(cells: Cells) -> Quote:
    """Give the quote of a row; numbers as text, `int` or `float`.

    Raises:
        InvalidField: A cell is of another type, or the quote contradicts itself.
    """
    return Quote(
        symbol=cells["symbol"],
        ts_ms=integer_cell("ts_ms", cells["ts_ms"]),
        bid_price=decimal_cell("bid_price", cells["bid_price"]),
        ask_price=decimal_cell("ask_price", cells["ask_price"]),
        bid_qty=decimal_cell("bid_qty", cells["bid_qty"]),
        ask_qty=decimal_cell("ask_qty", cells["ask_qty"]),
        available_ts_ms=optional_integer(cells, "available_ts_ms"),
    )
