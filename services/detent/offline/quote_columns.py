"""Read the quotes of a parquet file as columns, without a value for each of them."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from detent.contracts.checks import check_symbol
from detent.contracts.errors import InvalidField
from detent.core.features.decisive_quotes import QuoteColumns
from detent.offline.cells import invalid
from detent.offline.parquet import open_parquet, read_parquet

NUMBERS = ("bid_price", "ask_price", "bid_qty", "ask_qty")
COLUMNS = ("ts_ms", "symbol", *NUMBERS)
QUOTES_MAX = 50_000_000
SYMBOLS_MAX = 10_000


def load_quote_columns(path: Path) -> Iterator[QuoteColumns]:
    """Yield the quotes of each symbol of a file, by the symbols' names.

    Args:
        path: Parquet with the columns of `COLUMNS`; others are ignored. The quotes of one symbol
            are in order of arrival.

    Raises:
        DataInvalid: The file cannot be read, lacks a column or a value, or is too long. What
            a quote itself says is judged by who makes values of the columns.
    """
    table = _table(path)
    symbols = sorted(pc.unique(table["symbol"]).to_pylist())
    if len(symbols) > SYMBOLS_MAX:
        raise invalid(path.name, f"{len(symbols)} symbols", f"at most {SYMBOLS_MAX}")
    for symbol in symbols:
        try:
            check_symbol("symbol", symbol)
        except InvalidField as error:
            raise invalid(path.name, symbol, error.expected, column="symbol") from error
        whole = table if len(symbols) == 1 else table.filter(pc.equal(table["symbol"], symbol))
        yield _columns(symbol, whole)


def quote_columns_of(path: Path, symbol: str) -> QuoteColumns:
    """Give the quotes of one symbol of a file; see `load_quote_columns`.

    Raises:
        DataInvalid: Likewise.
    """
    table = _table(path)
    return _columns(symbol, table.filter(pc.equal(table["symbol"], symbol)))


def _columns(symbol: str, table: pa.Table) -> QuoteColumns:
    return QuoteColumns(
        symbol=symbol,
        ts_ms=table["ts_ms"].to_numpy(),
        **{name: table[name].to_numpy() for name in NUMBERS},
    )


def _table(path: Path) -> pa.Table:
    try:
        with open_parquet(path) as source:
            missing = [name for name in COLUMNS if name not in source.schema_arrow.names]
            if missing:
                found, expected = f"no column {', '.join(missing)}", ", ".join(COLUMNS)
                raise invalid(path.name, found, expected, column=missing[0])
            if source.metadata.num_rows > QUOTES_MAX:
                found = f"{source.metadata.num_rows} quotes"
                raise invalid(path.name, found, f"at most {QUOTES_MAX}")
        table = read_parquet(path, COLUMNS)
        empty = [name for name in COLUMNS if table[name].null_count]
        if empty:
            raise invalid(path.name, "(empty)", "a value", column=empty[0])
        whole = table.set_column(
            table.schema.get_field_index("ts_ms"), "ts_ms", table["ts_ms"].cast(pa.int64())
        )
        for name in NUMBERS:
            index = whole.schema.get_field_index(name)
            whole = whole.set_column(index, name, whole[name].cast(pa.float64()))
    except (OSError, pa.ArrowException) as error:
        raise invalid(path.name, error, "a parquet file that can be read") from error
    return whole
