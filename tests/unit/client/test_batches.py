"""Holds the messages of market data to the size that a server takes."""

from decimal import Decimal
from pathlib import Path

import pytest
from msgspec import structs
from tests.feature_host import FeatureHost
from tests.unit.core.features.market import START_MS, WITH_BOOKS, bar, book, close_ms, quote

from detent.contracts.calls.feature import IngestMarketDataRequest, MarketEvent
from detent.contracts.market import LEVELS_MAX, Book, BookLevel
from detent.contracts.wire import to_wire
from detent.core.features.feature_set import FeatureSet
from detent.core.features.feature_spec import FeatureTransform, feature
from detent.rpc.serve import MESSAGE_BYTES_MAX
from detent_client import ClientOptions, DetentClient
from detent_client.batches import BYTES_MAX, EVENTS_MAX, encoded_bytes_max, iter_requests

BOOK_SET = FeatureSet(
    name="book", features=(feature(FeatureTransform.DEPTH_IMBALANCE),), engine=WITH_BOOKS
)
HELD = "a" * 64
LONG = Decimal("9" * 30 + "." + "9" * 9)
# Of as many digits as a decimal may have.
MIDDLE = 5 * 10**39


def deep_book(offset_ms: int, levels: int = LEVELS_MAX) -> Book:
    """Give a book of as many levels as are allowed, in figures as long as are allowed."""
    sides = [
        tuple(
            BookLevel(price=Decimal(MIDDLE + sign * step), qty=LONG)
            for step in range(1, levels + 1)
        )
        for sign in (-1, 1)
    ]
    return structs.replace(book(START_MS + offset_ms), depth=levels, bids=sides[0], asks=sides[1])


LONGEST = dict.fromkeys(("open", "high", "low", "close", "volume", "vwap"), LONG)
EVENTS = {
    "bar": MarketEvent(
        bar=structs.replace(
            bar(0, "100", symbol="S" * 32),
            **LONGEST,
            funding_rate=LONG,
            available_ts_ms=close_ms(9),
        )
    ),
    "quote": MarketEvent(quote=quote(START_MS, symbol="S" * 32)),
    "book": MarketEvent(
        book=structs.replace(
            deep_book(0), symbol="S" * 32, venue="V" * 32, available_ts_ms=close_ms(9)
        )
    ),
}


@pytest.mark.parametrize("name", EVENTS)
def test_size_is_never_larger_than_assumed(name: str) -> None:
    message = to_wire(IngestMarketDataRequest(events=(EVENTS[name],)))

    assert message.ByteSize() <= encoded_bytes_max(EVENTS[name])


def test_messages_are_bounded_in_count_and_in_bytes() -> None:
    shallow = [MarketEvent(quote=quote(START_MS + offset)) for offset in range(2 * EVENTS_MAX + 1)]
    deep = [MarketEvent(book=deep_book(offset)) for offset in range(50)]
    requests = list(iter_requests([*shallow, *deep]))

    assert [event for request in requests for event in request.events] == [*shallow, *deep]
    assert max(len(request.events) for request in requests) == EVENTS_MAX
    sizes = [to_wire(request).ByteSize() for request in requests]
    assert max(sizes) <= BYTES_MAX <= MESSAGE_BYTES_MAX // 4
    assert list(iter_requests([])) == []


async def test_deep_books_reach_the_server_that_would_refuse_them_in_one_message(
    tmp_path: Path,
) -> None:
    """By count alone, they would be one message of more than a server takes."""
    events = [MarketEvent(book=deep_book(offset)) for offset in range(120)]
    together = to_wire(IngestMarketDataRequest(events=tuple(events)))
    assert together.ByteSize() > MESSAGE_BYTES_MAX

    async with FeatureHost({HELD: BOOK_SET}) as host:
        options = ClientOptions(
            journal_file=tmp_path / "journal.jsonl",
            feature_target=host.target,
        )
        async with DetentClient(options) as client:
            answer = await client.ingest(events, deadline_s=60.0)

    assert (answer.accepted_count, answer.refused_count) == (len(events), 0)
