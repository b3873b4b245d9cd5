"""Picks the quotes of a series that decide its bars, so that only those become values.

A bar of midpoints is its first, highest, lowest and last quote, and what a row reads of quotes
is the last one before a close. A history that takes these alone holds the same bars and answers
the same as one that takes all. Whatever could be refused, and what it would be refused by, is
picked as well: it meets the same error at the same place.
"""

from collections.abc import Iterator
from decimal import Decimal

import msgspec
import numpy as np
from numpy.typing import NDArray

from detent.contracts.market import Quote
from detent.core.features.bar_columns import Floats, Ints

Bools = NDArray[np.bool_]
# Between these a float has a text that the contract admits.
NUMBER_MIN, NUMBER_MAX = 1e-9, 1e15
TS_MAX = 2**52
PLACES_TRIED = 13
# A decimal of so many units is the shortest text of its float.
UNITS_MAX = 1e15


class QuoteColumns(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the quotes of one symbol in order of arrival, one item each.

    Numbers are binary floats and are read by their shortest text, so that 61837.63 is that and
    not its binary neighbour.

    Attributes:
        symbol: Instrument.
        ts_ms: Event times, Unix milliseconds UTC.
        bid_price: Best bids.
        ask_price: Best asks.
        bid_qty: Quantities at the bids.
        ask_qty: Quantities at the asks.
    """

    symbol: str
    ts_ms: Ints
    bid_price: Floats
    ask_price: Floats
    bid_qty: Floats
    ask_qty: Floats

    def quotes(self, indices: NDArray[np.intp]) -> Iterator[Quote]:
        """Yield some of the quotes.

        Raises:
            InvalidField: A quote is none.
        """
        numbers = (self.bid_price, self.ask_price, self.bid_qty, self.ask_qty)
        columns = [column[indices].tolist() for column in numbers]
        for ts_ms, *texts in zip(
            self.ts_ms[indices].tolist(), *(map(repr, column) for column in columns), strict=True
        ):
            bid_price, ask_price, bid_qty, ask_qty = map(Decimal, texts)
            yield Quote(
                symbol=self.symbol,
                ts_ms=ts_ms,
                bid_price=bid_price,
                ask_price=ask_price,
                bid_qty=bid_qty,
                ask_qty=ask_qty,
            )


def are_plain(columns: QuoteColumns) -> bool:
    """Say whether every one of the quotes is one, and none is older than the one before."""
    return bool(_usual(columns).all())


def iter_decisive_quotes(columns: QuoteColumns, interval_ms: int) -> Iterator[Quote]:
    """Yield the quotes that decide bars of a length, in order of arrival.

    Args:
        columns: All quotes of a symbol.
        interval_ms: Length of the bars.

    Raises:
        InvalidField: A quote is none; those before it were yielded.
    """
    yield from columns.quotes(decisive(columns, interval_ms))


def decisive(columns: QuoteColumns, interval_ms: int) -> NDArray[np.intp]:
    """Give the indices of the quotes that decide bars of a length, ascending.

    Args:
        columns: All quotes of a symbol.
        interval_ms: Length of the bars.
    """
    usual = _usual(columns)
    units = _mid_units(columns, usual)
    if units is None:
        return np.arange(len(columns.ts_ms))
    rows = np.flatnonzero(usual)
    picked = ~usual
    # The one before a quote that is refused tells how late that one is.
    before = np.searchsorted(rows, np.flatnonzero(picked)) - 1
    picked[rows[before[before >= 0]]] = True
    if len(rows):
        ends = columns.ts_ms[rows] // interval_ms
        begins = np.flatnonzero(np.concatenate(([True], ends[1:] != ends[:-1])))
        lasts = np.append(begins[1:], len(rows)) - 1
        sizes = lasts - begins + 1
        picked[rows[begins]] = picked[rows[lasts]] = True
        for extremes in (
            np.maximum.reduceat(units, begins),
            np.minimum.reduceat(units, begins),
        ):
            hits = np.flatnonzero(units == np.repeat(extremes, sizes))
            _, firsts = np.unique(ends[hits], return_index=True)
            picked[rows[hits[firsts]]] = True
    return np.flatnonzero(picked)


def _usual(columns: QuoteColumns) -> Bools:
    """Say which quotes nothing could refuse."""
    with np.errstate(invalid="ignore"):
        usual = np.asarray(columns.bid_price < columns.ask_price)
        for prices in (columns.bid_price, columns.ask_price):
            usual &= (prices >= NUMBER_MIN) & (prices < NUMBER_MAX)
        for sizes in (columns.bid_qty, columns.ask_qty):
            empty = (sizes >= 0.0) & (sizes <= 0.0)
            usual &= empty | ((sizes >= NUMBER_MIN) & (sizes < NUMBER_MAX))
    usual &= (columns.ts_ms > 0) & (columns.ts_ms < TS_MAX)
    times = np.where(usual, columns.ts_ms, 0)
    usual &= columns.ts_ms >= np.maximum.accumulate(times) if len(times) else usual
    return usual


def _mid_units(columns: QuoteColumns, usual: Bools) -> Ints | None:
    """Give twice the usual midpoints in whole units of the last decimal; None if too long."""
    bids, asks = columns.bid_price[usual], columns.ask_price[usual]
    for places in range(PLACES_TRIED):
        scale = 10.0**places
        whole = [np.rint(prices * scale) for prices in (bids, asks)]
        if max(float(units.max(initial=0.0)) for units in whole) >= UNITS_MAX:
            return None
        pairs = zip(whole, (bids, asks), strict=True)
        if all(np.array_equal(units / scale, prices) for units, prices in pairs):
            return np.asarray(whole[0] + whole[1], dtype=np.int64)
    return None
