"""Proves that a book which breaks a rule is refused by the name of that rule."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from msgspec import structs
from tests.unit.core.features.market import START_MS, book, levels

from detent.contracts.calls.feature import IngestMarketDataRequest, MarketEvent
from detent.contracts.errors import InvalidField
from detent.contracts.market import LEVELS_MAX, Book, BookLevel, BookRule
from detent.contracts.wire import from_wire, to_wire

GOOD = book(START_MS)
Change = Callable[[Book], Book]


def replaced(**changes: Any) -> Change:
    return lambda good: structs.replace(good, **changes)


# One breach per rule; the last column is what the error names.
BREACHES = [
    (BookRule.BIDS_NOT_DEPTH, replaced(bids=levels(("99", "1"))), "bids"),
    (BookRule.ASKS_NOT_DEPTH, replaced(asks=levels(("101", "1"))), "asks"),
    (
        BookRule.BIDS_NOT_DESCENDING,
        replaced(bids=levels(("99", "1"), ("99", "1"))),
        "bids[1].price",
    ),
    (
        BookRule.ASKS_NOT_ASCENDING,
        replaced(asks=levels(("102", "1"), ("101", "1"))),
        "asks[1].price",
    ),
    (
        BookRule.BOOK_CROSSED,
        replaced(bids=levels(("101.5", "1"), ("98", "1"))),
        "bids[0].price",
    ),
    (BookRule.BOOK_LOCKED, replaced(bids=levels(("101", "1"), ("98", "1"))), "bids[0].price"),
    (BookRule.QTY_NOT_ABOVE_ZERO, lambda _: one_level("99", "0"), "qty"),
    (BookRule.QTY_NOT_ABOVE_ZERO, lambda _: one_level("99", "-1"), "qty"),
    (BookRule.PRICE_NOT_ABOVE_ZERO, lambda _: one_level("0", "1"), "price"),
    (BookRule.DECIMAL_INVALID, lambda _: one_level("NaN", "1"), "price"),
    (BookRule.DECIMAL_INVALID, lambda _: one_level("1", "1E+50"), "qty"),
    (None, replaced(venue="binance"), "venue"),
    (None, replaced(symbol=""), "symbol"),
    (None, replaced(ts_ms=1), "ts_ms"),
    (None, replaced(depth=-1), "depth"),
    (None, replaced(depth=LEVELS_MAX + 1), "depth"),
]


def one_level(price: str, qty: str) -> Book:
    level = BookLevel(price=Decimal(price), qty=Decimal(qty))
    return structs.replace(GOOD, depth=1, bids=(level,))


@pytest.mark.proves("R324")
@pytest.mark.parametrize(("rule", "breach", "field"), BREACHES)
def test_book_that_breaks_a_rule_is_refused_by_its_name(
    rule: BookRule | None, breach: Change, field: str
) -> None:
    with pytest.raises(InvalidField) as caught:
        breach(GOOD)

    assert (caught.value.rule, caught.value.field) == (rule, field)
    assert caught.value.metadata.get("rule") == rule


@pytest.mark.proves("R324")
def test_every_rule_has_a_breach() -> None:
    assert {rule for rule, _, _ in BREACHES if rule is not None} == set(BookRule)


@pytest.mark.proves("R324")
def test_rule_survives_the_path_of_the_wire() -> None:
    message = to_wire(IngestMarketDataRequest(events=(MarketEvent(book=GOOD),)))
    message.events[0].book.asks[1].qty = "0"

    (refused,) = from_wire(IngestMarketDataRequest, message).events

    assert isinstance(refused, InvalidField)
    assert refused.field == "book.asks[1].qty"
    assert refused.metadata["rule"] == "QTY_NOT_ABOVE_ZERO"


def test_book_of_the_most_levels_is_taken() -> None:
    count = LEVELS_MAX
    deep = book(
        START_MS,
        [(str(2_000 - index), "1") for index in range(count)],
        [(str(2_001 + index), "1") for index in range(count)],
    )

    assert deep.depth == LEVELS_MAX
    with pytest.raises(InvalidField, match="depth"):
        book(
            START_MS,
            [(str(2_000 - index), "1") for index in range(count + 1)],
            [(str(2_001 + index), "1") for index in range(count + 1)],
        )


def test_event_is_one_thing() -> None:
    with pytest.raises(InvalidField, match="exactly one of bar, quote, book"):
        MarketEvent()
