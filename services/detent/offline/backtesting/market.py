"""Lay bars out for a back-test: one row per instant, one column per symbol."""

from collections.abc import Mapping
from decimal import Decimal

import msgspec
import numpy as np
from numpy.typing import NDArray

from detent.offline.bars import FUNDING_MS, BarTable

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

# What stands where a symbol has had no price yet: nothing can be held of it, so no sum sees it.
UNPRICED = 1.0


class Market(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds the bars of some symbols; arrays of shape (t, s) unless said otherwise.

    Attributes:
        symbols: The symbols, in the order of the columns.
        interval_ms: Length of a bar.
        ts_ms: Shape (t,), int64: every instant at which any bar closes, rising.
        open: float64, first price of the bar.
        close: float64, last price; where a symbol has no bar, its last one before.
        present: bool, whether the symbol has a bar.
        funding: float64, what a position pays at the close as a share of its notional; None
            where the bars carry no funding.
        data_hash: Hash of the bars, 64 hex.
    """

    symbols: tuple[str, ...]
    interval_ms: int
    ts_ms: Ints
    open: Floats
    close: Floats
    present: Flags
    funding: Floats | None
    data_hash: str


def market_of(table: BarTable) -> Market:
    """Lay out the bars of a table, its symbols by name."""
    symbols = tuple(sorted(table.bars))
    ts_ms = np.unique(np.concatenate([_times(table, symbol) for symbol in symbols]))
    shape = len(ts_ms), len(symbols)
    opened, closed = np.full(shape, UNPRICED), np.full(shape, np.nan)
    rate, present = np.zeros(shape), np.zeros(shape, dtype=np.bool_)
    for column, symbol in enumerate(symbols):
        bars = table.bars[symbol]
        rows = np.searchsorted(ts_ms, _times(table, symbol))
        present[rows, column] = True
        opened[rows, column] = [float(bar.open) for bar in bars]
        closed[rows, column] = [float(bar.close) for bar in bars]
        rate[rows, column] = [float(bar.funding_rate or 0) for bar in bars]
    paid = rate * settlements(ts_ms, table.interval_ms)[:, np.newaxis]
    for column, symbol in enumerate(symbols):
        if symbol in table.settled:
            paid[:, column] = settled_shares(ts_ms, table.settled[symbol])
    return Market(
        symbols=symbols,
        interval_ms=table.interval_ms,
        ts_ms=ts_ms,
        open=opened,
        close=_carried(closed),
        present=present,
        funding=paid if np.any(paid) else None,
        data_hash=table.data_hash,
    )


def settled_shares(ts_ms: Ints, rates: Mapping[int, Decimal]) -> Floats:
    """Give what was settled at each instant, shape (t,); 0 where nothing was.

    What is settled as a bar opens is paid on what was held at the close before it: the rate is
    published with the later bar, and the account owed it already.

    Args:
        ts_ms: Shape (t,): closes of bars, rising.
        rates: Shares of notional by when they were settled; paid at that close, or the next.
    """
    shares = np.zeros(len(ts_ms))
    rows = np.searchsorted(ts_ms, np.array(list(rates), dtype=np.int64))
    for row, rate in zip(rows.tolist(), rates.values(), strict=True):
        if row < len(ts_ms):
            shares[row] += float(rate)
    return shares


def settlements(ts_ms: Ints, interval_ms: int) -> Ints:
    """Count the instants of funding, every eight hours UTC, within each bar, its close included."""
    return np.asarray(ts_ms // FUNDING_MS - (ts_ms - interval_ms) // FUNDING_MS)


def closes_of(market: Market, column: int) -> tuple[Ints, Floats]:
    """Give the rows in which a symbol has a bar, and its closes there."""
    rows = np.flatnonzero(market.present[:, column])
    return rows, market.close[rows, column]


def _times(table: BarTable, symbol: str) -> Ints:
    return np.array([bar.ts_ms for bar in table.bars[symbol]], dtype=np.int64)


def _carried(prices: Floats) -> Floats:
    """Carry each price on over what has none; before the first there is `UNPRICED`."""
    rows = np.arange(len(prices))[:, np.newaxis]
    latest = np.maximum.accumulate(np.where(np.isnan(prices), -1, rows), axis=0)
    carried = np.take_along_axis(prices, np.maximum(latest, 0), axis=0)
    return np.where(latest < 0, UNPRICED, carried)
