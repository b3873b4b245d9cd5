"""Quote files: read as they are, or refused by row and column."""

from __future__ import annotations

import csv
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.unit.core.features.market import START_MS, delayed, quote

from detent.contracts.errors import DataInvalid
from detent.contracts.market import Quote
from detent.offline.quotes import COLUMNS, load_quotes

DATA = Path(__file__).parents[4] / "shared" / "data"
Row = dict[str, Any]


def rows_of(quotes: list[Quote]) -> list[Row]:
    """Give rows as a parquet file carries them."""
    return [
        {
            "ts_ms": one.ts_ms,
            "symbol": one.symbol,
            **{name: float(getattr(one, name)) for name in COLUMNS[2:]},
            "available_ts_ms": one.available_ts_ms,
        }
        for one in quotes
    ]


def write(path: Path, rows: list[Row]) -> Path:
    """Write a parquet or a CSV file."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    with path.open("w", newline="") as target:
        writer = csv.DictWriter(target, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def some_quotes() -> list[Quote]:
    return [
        quote(START_MS, "99.3", "99.4"),
        delayed(quote(START_MS + 5, "99.2", "99.4", bid_qty="0.001"), 70),
        quote(START_MS + 5, "98.9", "99.1", symbol="ETHUSDT"),
        quote(START_MS + 9, "99.1", "99.4"),
    ]


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_quotes_are_read_as_they_are_whatever_the_form(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"l1{suffix}", rows_of(some_quotes()))

    assert list(load_quotes(path)) == some_quotes()
    assert [one.ts_ms for one in load_quotes(path, symbol="ETHUSDT")] == [START_MS + 5]
    assert list(load_quotes(path, symbol="XRPUSDT")) == []


@pytest.mark.parametrize(
    ("changes", "column"),
    [
        ({"bid_price": 99.4}, "bid_price"),
        ({"bid_price": 0.0}, "bid_price"),
        ({"ask_qty": -1.0}, "ask_qty"),
        ({"ask_qty": None}, "ask_qty"),
        ({"ts_ms": START_MS - 1}, "ts_ms"),
        ({"ts_ms": START_MS // 1_000}, "ts_ms"),
        ({"symbol": "btc"}, "symbol"),
        ({"available_ts_ms": START_MS}, "available_ts_ms"),
    ],
)
def test_row_that_is_no_quote_is_refused(
    tmp_path: Path, changes: dict[str, object], column: str
) -> None:
    rows = rows_of(some_quotes())
    rows[1] |= changes

    with pytest.raises(DataInvalid, match=f"row 2, column {column}"):
        list(load_quotes(write(tmp_path / "l1.parquet", rows)))


def test_file_of_other_columns_is_refused_with_those_found(tmp_path: Path) -> None:
    path = write(tmp_path / "l1.csv", [{"ts_ms": 1, "symbol": "A", "bid": 1}])

    with pytest.raises(DataInvalid, match=r"no column bid_price.*among ts_ms, symbol, bid"):
        list(load_quotes(path))


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared market data are not at hand")
def test_real_file_is_read_whole() -> None:
    quotes = list(load_quotes(DATA / "l1_binance_usdm_btcusdt_20240808.parquet"))

    assert len(quotes) == 31_481
    assert all(one.ask_price - one.bid_price >= Decimal("0.1") for one in quotes)
