"""Make market data as bytes of the wire, from a seed, so that the sender costs little.

One message is built as values and written once; the ones after it are the same message with
later times, which costs the sender a fraction of what reading it costs the service.
"""

import random
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from benchmarks.decide.market import Market
from benchmarks.features.serving_sets import HOUR_MS
from detent.contracts.calls.feature import IngestMarketDataRequest, MarketEvent
from detent.contracts.market import Book, BookLevel, Quote
from detent.contracts.wire import to_wire

START_MS = 1_600_000_000_000 // HOUR_MS * HOUR_MS
EVENTS_PER_MESSAGE = 500
LEVELS = 20
CENT = Decimal("0.01")
VENUE = "BENCH"


def symbols_of(count: int) -> tuple[str, ...]:
    """Name some instruments."""
    return tuple(f"S{number:04d}USDT" for number in range(count))


def bar_messages(symbols: tuple[str, ...], *, bar_count: int) -> Iterator[bytes]:
    """Yield hourly bars of all symbols, oldest first."""
    market = Market(symbols, bar_count=bar_count, seed=len(symbols))
    for index in range(bar_count):
        events = market.events(index)
        for start in range(0, len(events), EVENTS_PER_MESSAGE):
            yield _bytes_of(events[start : start + EVENTS_PER_MESSAGE])


def quote_messages(symbols: tuple[str, ...], *, count: int, step_ms: int) -> Iterator[bytes]:
    """Yield quotes of all symbols in turn; each symbol's come `step_ms` apart."""
    draw = random.Random(1)  # noqa: S311 - prices, not secrets
    events = []
    for index in range(EVENTS_PER_MESSAGE):
        bid = Decimal(draw.randrange(9_900_000, 10_000_000)) / 100
        quote = Quote(
            symbol=symbols[index % len(symbols)],
            ts_ms=START_MS + index // len(symbols) * step_ms,
            bid_price=bid,
            ask_price=bid + draw.randrange(1, 9) * CENT,
            bid_qty=Decimal(draw.randrange(1, 90_000)) / 1_000,
            ask_qty=Decimal(draw.randrange(1, 90_000)) / 1_000,
        )
        events.append(MarketEvent(quote=quote))
    yield from _repeated(events, "quote", symbols, count=count, step_ms=step_ms)


def book_messages(symbols: tuple[str, ...], *, count: int, step_ms: int) -> Iterator[bytes]:
    """Yield books of 20 levels of all symbols in turn; each symbol's come `step_ms` apart."""
    draw = random.Random(2)  # noqa: S311 - prices, not secrets
    events = []
    for index in range(EVENTS_PER_MESSAGE):
        middle = Decimal(draw.randrange(9_900_000, 10_000_000)) / 100
        book = Book(
            symbol=symbols[index % len(symbols)],
            ts_ms=START_MS + index // len(symbols) * step_ms,
            venue=VENUE,
            depth=LEVELS,
            bids=_side(draw, middle, -CENT),
            asks=_side(draw, middle, CENT),
        )
        events.append(MarketEvent(book=book))
    yield from _repeated(events, "book", symbols, count=count, step_ms=step_ms)


def _side(draw: random.Random, middle: Decimal, step: Decimal) -> tuple[BookLevel, ...]:
    return tuple(
        BookLevel(price=middle + number * step, qty=Decimal(draw.randrange(1, 90_000)) / 1_000)
        for number in range(1, LEVELS + 1)
    )


def _repeated(
    events: list[MarketEvent], kind: str, symbols: tuple[str, ...], *, count: int, step_ms: int
) -> Iterator[bytes]:
    message = _message_of(tuple(events))
    items = [getattr(event, kind) for event in message.events]
    assert len(items) % len(symbols) == 0, "a message holds all symbols equally often"
    later_ms = len(items) // len(symbols) * step_ms
    for _ in range(-(-count // len(items))):
        yield message.SerializeToString()
        for item in items:
            item.ts_ms += later_ms


def _bytes_of(events: tuple[MarketEvent, ...]) -> bytes:
    return bytes(_message_of(events).SerializeToString())


def _message_of(events: tuple[MarketEvent, ...]) -> Any:
    return to_wire(IngestMarketDataRequest(events=events))
