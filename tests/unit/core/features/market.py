"""Builds bars and quotes that a test reads at a glance."""

from collections.abc import Sequence
from decimal import Decimal
from typing import TypeVar

from msgspec import structs

from detent.contracts.market import Bar, Book, BookLevel, Quote
from detent.core.features.engine import BarSource, BookConfig, EngineConfig

Item = TypeVar("Item", Bar, Quote, Book)
MINUTE_MS = 60_000
# A whole hour, so that bars of a minute and of an hour both start here.
START_MS = 1_700_002_800_000
SYMBOL = "BTCUSDT"
READY_MADE = EngineConfig(bar_interval_ms=MINUTE_MS)
FROM_QUOTES = EngineConfig(bar_interval_ms=MINUTE_MS, bar_source=BarSource.FROM_QUOTES)
WITH_BOOKS = EngineConfig(bar_interval_ms=MINUTE_MS, book=BookConfig())
QUOTES_AND_BOOKS = EngineConfig(
    bar_interval_ms=MINUTE_MS, bar_source=BarSource.FROM_QUOTES, book=BookConfig()
)


def close_ms(index: int) -> int:
    """Give the close time of the bar with this index."""
    return START_MS + (index + 1) * MINUTE_MS


def bar(
    index: int,
    close: str,
    *,
    high: str | None = None,
    low: str | None = None,
    symbol: str = SYMBOL,
    interval_ms: int = MINUTE_MS,
) -> Bar:
    """Give a bar that opens at its close, with a high and a low where they are given."""
    return Bar(
        symbol=symbol,
        ts_ms=close_ms(index),
        interval_ms=interval_ms,
        open=Decimal(close),
        high=Decimal(high or close),
        low=Decimal(low or close),
        close=Decimal(close),
        volume=Decimal(1),
    )


def bars_of(closes: Sequence[str], *, symbol: str = SYMBOL) -> list[Bar]:
    """Give one bar per close."""
    return [bar(index, close, symbol=symbol) for index, close in enumerate(closes)]


def wave(count: int, *, symbol: str = SYMBOL) -> list[Bar]:
    """Give bars that rise and fall without repeating soon."""
    closes = [str(Decimal(10_000 + 37 * (n * n % 29) - 11 * (n % 7)) / 100) for n in range(count)]
    return [
        bar(
            index,
            close,
            high=str(Decimal(close) + Decimal("0.35")),
            low=str(Decimal(close) - Decimal("0.25")),
            symbol=symbol,
        )
        for index, close in enumerate(closes)
    ]


def ranges(true_ranges: Sequence[int]) -> list[Bar]:
    """Give bars that close at 100 and have the given true ranges."""
    return [
        bar(index, "100", high=str(100 + size // 2), low=str(100 - (size - size // 2)))
        for index, size in enumerate(true_ranges)
    ]


def quote(
    ts_ms: int,
    bid: str = "99",
    ask: str = "101",
    *,
    bid_qty: str = "3",
    ask_qty: str = "1",
    symbol: str = SYMBOL,
) -> Quote:
    """Give a quote."""
    return Quote(
        symbol=symbol,
        ts_ms=ts_ms,
        bid_price=Decimal(bid),
        ask_price=Decimal(ask),
        bid_qty=Decimal(bid_qty),
        ask_qty=Decimal(ask_qty),
    )


def levels(*pairs: tuple[str, str]) -> tuple[BookLevel, ...]:
    """Give levels of (price, quantity)."""
    return tuple(BookLevel(price=Decimal(price), qty=Decimal(qty)) for price, qty in pairs)


def book(
    ts_ms: int,
    bids: Sequence[tuple[str, str]] = (("99", "3"), ("98", "2")),
    asks: Sequence[tuple[str, str]] = (("101", "1"), ("102", "2")),
    *,
    symbol: str = SYMBOL,
    venue: str = "BINANCE",
) -> Book:
    """Give a book of one symbol."""
    return Book(
        symbol=symbol,
        ts_ms=ts_ms,
        venue=venue,
        depth=len(bids),
        bids=levels(*bids),
        asks=levels(*asks),
    )


def delayed(item: Item, delay_ms: int | None) -> Item:
    """Give a bar, quote or book that became known so much later; None leaves it as it was."""
    if delay_ms is None:
        return item
    return structs.replace(item, available_ts_ms=item.known_ts_ms + delay_ms)
