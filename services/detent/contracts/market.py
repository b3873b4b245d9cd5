"""Hold market data: finished bars, top-of-book quotes and order books."""

import itertools
import operator
from collections.abc import Callable
from decimal import Decimal
from enum import StrEnum
from typing import TypeVar

import msgspec

from detent.contracts.checks import check_count, check_int, check_symbol, check_ts_ms
from detent.contracts.decimals import check_decimal, check_signed_decimal, is_usual
from detent.contracts.errors import DataCrossed, InvalidField

INTERVAL_MS_MAX = 366 * 86_400_000
LEVELS_MAX = 1_000
Told = TypeVar("Told", "Quote", "Book")


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one finished bar of one symbol.

    Attributes:
        symbol: Instrument.
        ts_ms: Close time, Unix milliseconds UTC.
        interval_ms: Length of the bar.
        open: First price, above 0.
        high: Highest price.
        low: Lowest price.
        close: Last price, above 0.
        volume: Traded quantity in base units, at least 0.
        vwap: Volume-weighted price of the bar, above 0; None when the source has none.
        funding_rate: Funding rate that holds at the close, as a share of the notional per
            funding period, of either sign; None when the source has none.
        available_ts_ms: When the bar became known, at least `ts_ms`; None when it was known as
            it closed.
    """

    symbol: str
    ts_ms: int
    interval_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    vwap: Decimal | None = None
    funding_rate: Decimal | None = None
    available_ts_ms: int | None = None

    def __post_init__(self) -> None:
        """Refuse a bar whose prices contradict each other."""
        check_symbol("symbol", self.symbol)
        check_ts_ms("ts_ms", self.ts_ms)
        check_int("interval_ms", self.interval_ms, 1, INTERVAL_MS_MAX)
        for name in ("open", "high", "low", "close"):
            check_decimal(name, getattr(self, name), above_zero=True)
        check_decimal("volume", self.volume, above_zero=False)
        if self.vwap is not None:
            check_decimal("vwap", self.vwap, above_zero=True)
        if self.funding_rate is not None:
            check_signed_decimal("funding_rate", self.funding_rate)
        if self.high < max(self.open, self.close, self.low):
            raise InvalidField("high", self.high, "at least open, low and close")
        if self.low > min(self.open, self.close):
            raise InvalidField("low", self.low, "at most open and close")
        _check_available(self.ts_ms, self.available_ts_ms)

    @property
    def known_ts_ms(self) -> int:
        """Give the instant from which the bar was known, Unix milliseconds UTC."""
        return self.ts_ms if self.available_ts_ms is None else self.available_ts_ms


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the best bid and ask of one symbol at one instant.

    Attributes:
        symbol: Instrument.
        ts_ms: Event time, Unix milliseconds UTC.
        bid_price: Best bid, above 0 and below the ask.
        ask_price: Best ask.
        bid_qty: Quantity at the bid, at least 0.
        ask_qty: Quantity at the ask, at least 0.
        available_ts_ms: When the quote became known, at least `ts_ms`; None when it was known
            as it happened.
    """

    symbol: str
    ts_ms: int
    bid_price: Decimal
    ask_price: Decimal
    bid_qty: Decimal
    ask_qty: Decimal
    available_ts_ms: int | None = None

    def __post_init__(self) -> None:
        """Refuse a crossed or locked quote."""
        check_symbol("symbol", self.symbol)
        check_ts_ms("ts_ms", self.ts_ms)
        check_decimal("bid_price", self.bid_price, above_zero=True)
        check_decimal("ask_price", self.ask_price, above_zero=True)
        check_decimal("bid_qty", self.bid_qty, above_zero=False)
        check_decimal("ask_qty", self.ask_qty, above_zero=False)
        if self.bid_price >= self.ask_price:
            raise DataCrossed("bid_price", self.bid_price, f"below the ask {self.ask_price}")
        _check_available(self.ts_ms, self.available_ts_ms)

    @property
    def known_ts_ms(self) -> int:
        """Give the instant from which the quote was known, Unix milliseconds UTC."""
        return self.ts_ms if self.available_ts_ms is None else self.available_ts_ms


class BookRule(StrEnum):
    """Names each rule that an order book has to keep; the value is the code of its breach.

    Source: FORMULAS 1.2, REQUIREMENTS R324. `docs/ERRORS.md` explains each.
    """

    DECIMAL_INVALID = "DECIMAL_INVALID"
    PRICE_NOT_ABOVE_ZERO = "PRICE_NOT_ABOVE_ZERO"
    QTY_NOT_ABOVE_ZERO = "QTY_NOT_ABOVE_ZERO"
    BIDS_NOT_DEPTH = "BIDS_NOT_DEPTH"
    ASKS_NOT_DEPTH = "ASKS_NOT_DEPTH"
    BIDS_NOT_DESCENDING = "BIDS_NOT_DESCENDING"
    ASKS_NOT_ASCENDING = "ASKS_NOT_ASCENDING"
    BOOK_CROSSED = "BOOK_CROSSED"
    BOOK_LOCKED = "BOOK_LOCKED"


class BookLevel(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one price level of an order book.

    Attributes:
        price: Price, above 0.
        qty: Quantity at the price in base units, above 0.
    """

    price: Decimal
    qty: Decimal

    def __post_init__(self) -> None:
        """Refuse a level without a price or without a quantity."""
        if is_usual(self.price) and is_usual(self.qty):
            return
        _check_above_zero("price", self.price, BookRule.PRICE_NOT_ABOVE_ZERO)
        _check_above_zero("qty", self.qty, BookRule.QTY_NOT_ABOVE_ZERO)


class Book(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the order book of one symbol on one venue at one instant.

    An empty book, of depth 0, is a book: it says that there is nothing to trade against.

    Attributes:
        symbol: Instrument.
        ts_ms: Event time, Unix milliseconds UTC.
        venue: Exchange, in upper case.
        depth: Levels of each side, [0, 1000].
        bids: Best first, prices strictly descending.
        asks: Best first, prices strictly ascending, the first above the first bid.
        available_ts_ms: When the book became known, at least `ts_ms`; None when it was known
            as it happened.

    Source: FORMULAS 1.2.
    """

    symbol: str
    ts_ms: int
    venue: str
    depth: int
    bids: tuple[BookLevel, ...]
    asks: tuple[BookLevel, ...]
    available_ts_ms: int | None = None

    def __post_init__(self) -> None:
        """Refuse a book that breaks a rule, by the name of the rule."""
        check_symbol("symbol", self.symbol)
        check_ts_ms("ts_ms", self.ts_ms)
        _check_available(self.ts_ms, self.available_ts_ms)
        check_symbol("venue", self.venue)
        check_int("depth", self.depth, 0, LEVELS_MAX)
        self._check_depth("bids", self.bids, BookRule.BIDS_NOT_DEPTH)
        self._check_depth("asks", self.asks, BookRule.ASKS_NOT_DEPTH)
        _check_order("bids", self.bids, operator.lt, "below", BookRule.BIDS_NOT_DESCENDING)
        _check_order("asks", self.asks, operator.gt, "above", BookRule.ASKS_NOT_ASCENDING)
        if self.depth == 0:
            return
        bid, ask = self.bids[0].price, self.asks[0].price
        if bid >= ask:
            rule = BookRule.BOOK_LOCKED if bid == ask else BookRule.BOOK_CROSSED
            raise DataCrossed("bids[0].price", bid, f"below the best ask {ask}", rule=rule)

    @property
    def known_ts_ms(self) -> int:
        """Give the instant from which the book was known, Unix milliseconds UTC."""
        return self.ts_ms if self.available_ts_ms is None else self.available_ts_ms

    def _check_depth(self, field: str, levels: tuple[BookLevel, ...], rule: BookRule) -> None:
        check_count(field, levels, 0, LEVELS_MAX)
        if len(levels) != self.depth:
            found = f"{len(levels)} levels"
            raise InvalidField(field, found, f"{self.depth}, the depth", rule=rule)


def repeats(item: Told, held: Told) -> bool:
    """Say whether a quote or a book is the one held, whenever it claims to have been known.

    When the one held was first known stays so.
    """
    if item.ts_ms != held.ts_ms:
        return False
    return msgspec.structs.replace(item, available_ts_ms=held.available_ts_ms) == held


def _check_above_zero(field: str, value: Decimal, rule: BookRule) -> None:
    try:
        check_decimal(field, value, above_zero=True)
    except InvalidField as error:
        is_number = isinstance(value, Decimal) and value.is_finite()
        broken = rule if is_number and value <= 0 else BookRule.DECIMAL_INVALID
        raise InvalidField(field, value, error.expected, rule=broken) from error


def _check_order(
    field: str,
    levels: tuple[BookLevel, ...],
    follows: Callable[[Decimal, Decimal], bool],
    where: str,
    rule: BookRule,
) -> None:
    for index, (before, level) in enumerate(itertools.pairwise(levels), start=1):
        if not follows(level.price, before.price):
            expected = f"{where} {before.price}, the level before"
            raise InvalidField(f"{field}[{index}].price", level.price, expected, rule=rule)


def _check_available(ts_ms: int, available_ts_ms: int | None) -> None:
    """Refuse data that were known before they happened."""
    if available_ts_ms is None:
        return
    check_ts_ms("available_ts_ms", available_ts_ms)
    if available_ts_ms < ts_ms:
        raise InvalidField("available_ts_ms", available_ts_ms, f"at least ts_ms {ts_ms}")
