"""Divides market data into messages that a server takes, however deep the books are."""

from collections.abc import Iterable, Iterator

from detent.contracts.calls.feature import IngestMarketDataRequest, MarketEvent
from detent.contracts.decimals import DECIMAL_CHARS_MAX

EVENTS_MAX = 1_000
# A quarter of what a server of ours takes; what encodes larger is refused with its whole stream.
BYTES_MAX = 4 * 1024 * 1024
# A bar has seven decimals and a quote four, each with a tag and a length; symbol, venue and
# times have room as well.
EVENT_BYTES_MAX = 512
# Price and quantity, each with a tag and a length, and those of the level.
LEVEL_BYTES_MAX = 2 * (DECIMAL_CHARS_MAX + 2) + 4


def iter_requests(events: Iterable[MarketEvent]) -> Iterator[IngestMarketDataRequest]:
    """Yield messages of at most `EVENTS_MAX` events and `BYTES_MAX` bytes, in the same order."""
    batch: list[MarketEvent] = []
    batch_bytes = 0
    for event in events:
        event_bytes = encoded_bytes_max(event)
        if len(batch) == EVENTS_MAX or (batch and batch_bytes + event_bytes > BYTES_MAX):
            yield IngestMarketDataRequest(events=tuple(batch))
            batch, batch_bytes = [], 0
        batch.append(event)
        batch_bytes += event_bytes
    if batch:
        yield IngestMarketDataRequest(events=tuple(batch))


def encoded_bytes_max(event: MarketEvent) -> int:
    """Bound the bytes that an event encodes to, without encoding it."""
    levels = 0 if event.book is None else 2 * event.book.depth
    return EVENT_BYTES_MAX + levels * LEVEL_BYTES_MAX
