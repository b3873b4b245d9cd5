"""Proves that what is wrong with one item of a stream costs that item and no other."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tests.feature_host import FeatureHost, message_of
from tests.service.test_feature_handler import call_for
from tests.unit.core.features.market import (
    FROM_QUOTES,
    MINUTE_MS,
    START_MS,
    SYMBOL,
    bar,
    close_ms,
    quote,
    wave,
)

from detent.contracts.calls.feature import (
    GetFeatureSnapshotsRequest,
    IngestMarketDataRequest,
    IngestMarketDataResponse,
    MarketEvent,
    SnapshotView,
    Watermark,
)
from detent.contracts.errors import InvalidField
from detent.contracts.reasons import ErrorReason
from detent.contracts.units import ROWS_MAX
from detent.contracts.wire import from_wire, message_class
from detent.core.features.feature_set import FeatureSet, direction_bars_v1
from detent.core.features.feature_spec import FeatureTransform, feature
from detent.servers.feature.handler import ITEMS_PER_TURN, FeatureHandler

BARS, MIDS = "a" * 64, "b" * 64
OF_BARS = direction_bars_v1(MINUTE_MS)
OF_MIDS = FeatureSet(
    name="mids", features=(feature(FeatureTransform.RETURN_PCT, 1),), engine=FROM_QUOTES
)
Spoil = Callable[[Any], None]


@pytest.fixture(name="host")
async def _host() -> AsyncIterator[FeatureHost]:
    async with FeatureHost({BARS: OF_BARS, MIDS: OF_MIDS}) as host:
        yield host


def spoiled_field(name: str, value: Any) -> Spoil:
    """Give what puts a value into a field of an item, whichever kind it is."""

    def spoil(event: Any) -> None:
        setattr(getattr(event, event.WhichOneof("event")), name, value)

    return spoil


def emptied(event: Any) -> None:
    """Leave an event that carries nothing."""
    event.Clear()


def counts(answer: IngestMarketDataResponse) -> dict[ErrorReason, int]:
    """Give the refusals by reason."""
    return {one.reason: one.count for one in answer.refusal_counts}


MALFORMED: list[tuple[str, Spoil, str]] = [
    ("NaN price", spoiled_field("close", "NaN"), "bar.close"),
    ("infinite price", spoiled_field("high", "Infinity"), "bar.high"),
    ("negative price", spoiled_field("low", "-1"), "bar.low"),
    ("exponent", spoiled_field("open", "1e3"), "bar.open"),
    ("no price", spoiled_field("close", ""), "bar.close"),
    ("low above high", spoiled_field("high", "0.01"), "bar.high"),
    ("negative volume", spoiled_field("volume", "-1"), "bar.volume"),
    ("time in seconds", spoiled_field("ts_ms", START_MS // 1000), "bar.ts_ms"),
    ("time in microseconds", spoiled_field("ts_ms", START_MS * 1000), "bar.ts_ms"),
    ("lower case", spoiled_field("symbol", "btcusdt"), "bar.symbol"),
    ("no symbol", spoiled_field("symbol", ""), "bar.symbol"),
    ("endless symbol", spoiled_field("symbol", "A" * 100_000), "bar.symbol"),
    ("nothing", emptied, "event"),
]


@pytest.mark.proves("R17", "R18")
@pytest.mark.parametrize(("spoil", "field"), [row[1:] for row in MALFORMED])
async def test_a_malformed_item_is_refused_alone(
    host: FeatureHost, spoil: Spoil, field: str
) -> None:
    """The stream goes on: what stands before and behind it, in this message and the next."""
    first, second = message_of(wave(30)[:20]), message_of(wave(30)[20:])
    spoil(second.events[4])
    found = second.events[4].bar

    answer = await host.ingest(first, second)

    assert (answer.accepted_count, answer.refused_count) == (29, 1)
    assert counts(answer) == {ErrorReason.INVALID_FIELD: 1}
    (refusal,) = answer.refusals
    assert (refusal.index, refusal.reason) == (24, ErrorReason.INVALID_FIELD)
    assert refusal.message.startswith(f"{field}: found ")
    assert len(refusal.symbol) <= 120
    assert found.symbol.startswith(refusal.symbol.rstrip("…"))
    assert refusal.ts_ms == found.ts_ms
    assert answer.watermarks == (Watermark(symbol=SYMBOL, ts_ms=close_ms(29)),)


async def test_a_sound_stream_has_no_refusals(host: FeatureHost) -> None:
    """The control of every test here: it is the spoiling that is refused."""
    answer = await host.ingest(message_of(wave(30)[:20]), message_of(wave(30)[20:]))

    assert (answer.accepted_count, answer.known_count, answer.refused_count) == (30, 0, 0)
    assert (answer.refusals, answer.refusal_counts) == ((), ())


async def test_a_message_of_malformed_items_only_is_counted_and_ends_nothing(
    host: FeatureHost,
) -> None:
    spoiled = message_of(wave(300))
    for event in spoiled.events:
        event.bar.close = "NaN"

    answer = await host.ingest(spoiled, message_of(wave(30)))

    assert (answer.accepted_count, answer.refused_count) == (30, 300)
    assert counts(answer) == {ErrorReason.INVALID_FIELD: 300}
    assert [one.index for one in answer.refusals] == list(range(100))


@pytest.mark.proves("R325")
async def test_late_crossed_repeated_and_unordered_items_each_have_their_reason(
    host: FeatureHost,
) -> None:
    """What repeats exactly is known, and no refusal: a feed may send everything twice."""
    message = message_of(
        [
            bar(0, "100"),
            bar(2, "101"),
            bar(2, "101"),
            bar(1, "100"),
            bar(2, "999"),
            quote(close_ms(2) + 5),
            quote(close_ms(2) + 5),
            quote(close_ms(2) + 4),
            quote(close_ms(2) + 3),
            quote(close_ms(2) + 6),
            quote(close_ms(2) + 7),
            bar(3, "1", interval_ms=1),
            bar(3, "102"),
        ]
    )
    message.events[9].quote.bid_price = "101"
    message.events[10].quote.bid_price = "105"

    answer = await host.ingest(message)

    assert (answer.accepted_count, answer.known_count, answer.refused_count) == (4, 2, 7)
    assert counts(answer) == {
        ErrorReason.INVALID_FIELD: 1,
        ErrorReason.BAR_OUT_OF_ORDER: 1,
        ErrorReason.DATA_LATE: 2,
        ErrorReason.DATA_CROSSED: 2,
        ErrorReason.DATA_CONFLICT: 1,
    }
    assert [(one.index, one.reason) for one in answer.refusals] == [
        (3, ErrorReason.BAR_OUT_OF_ORDER),
        (4, ErrorReason.DATA_CONFLICT),
        (7, ErrorReason.DATA_LATE),
        (8, ErrorReason.DATA_LATE),
        (9, ErrorReason.DATA_CROSSED),
        (10, ErrorReason.DATA_CROSSED),
        (11, ErrorReason.INVALID_FIELD),
    ]
    assert answer.refusals[4].message == "quote.bid_price: found '101', expected below the ask 101"
    assert answer.refusals[4].symbol == SYMBOL


async def test_refused_items_change_nothing_that_is_served(host: FeatureHost) -> None:
    """A stream with every kind of bad item serves what the clean stream serves."""
    bars = wave(60)
    spoiled = message_of([one for item in bars for one in (item, item)])
    for index in range(1, 120, 6):
        spoiled.events[index].bar.close = "NaN"
        spoiled.events[index + 2].bar.volume = "7"
        spoiled.events[index + 4].bar.symbol = "btcusdt"

    answer = await host.ingest(spoiled)
    async with FeatureHost({BARS: OF_BARS}) as clean:
        await clean.ingest(message_of(bars))
        expected = [await clean.ask(asking(one.ts_ms)) for one in bars]

    assert (answer.accepted_count, answer.refused_count) == (60, 60)
    assert [await host.ask(asking(one.ts_ms)) for one in bars] == expected


def asking(as_of_ts_ms: int) -> GetFeatureSnapshotsRequest:
    """Ask for the one symbol."""
    return GetFeatureSnapshotsRequest(
        binding_hash=BARS, as_of_ts_ms=as_of_ts_ms, symbols=(SYMBOL,), view=SnapshotView.INPUT
    )


async def test_a_message_with_too_many_items_ends_the_stream(host: FeatureHost) -> None:
    """How much one message carries is a limit of the call, not a defect of an item."""
    message = message_class("IngestMarketDataRequest")()
    event = message_of([bar(0, "1")]).events[0]
    message.events.extend([event] * (ROWS_MAX + 1))  # type: ignore[attr-defined]

    with pytest.raises(InvalidField) as refused:
        await host.ingest(message)

    assert refused.value.field == "events"


def test_a_malformed_item_holds_no_stack() -> None:
    """What is kept for the acknowledgement must not keep frames and messages alive."""
    message = message_of([bar(0, "1"), quote(close_ms(0))])
    message.events[1].quote.ask_price = "NaN"

    taken, error = from_wire(IngestMarketDataRequest, message).events

    assert taken == MarketEvent(bar=bar(0, "1"))
    assert isinstance(error, InvalidField)
    assert error.__traceback__ is None
    assert error.metadata["symbol"] == SYMBOL


async def test_a_stream_is_read_no_faster_than_it_is_taken() -> None:
    """Back-pressure: others get their turn, and the next message waits for this one."""
    handler = FeatureHandler({BARS: OF_BARS})
    bars, turns, seen = wave(ITEMS_PER_TURN * 6), 0, []

    async def batches() -> AsyncIterator[IngestMarketDataRequest]:
        for start in range(0, len(bars), ITEMS_PER_TURN * 2):
            seen.append(turns)
            chunk = bars[start : start + ITEMS_PER_TURN * 2]
            yield IngestMarketDataRequest(events=tuple(MarketEvent(bar=one) for one in chunk))

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    waiting = asyncio.create_task(others())
    await handler.ingest_market_data(batches(), call_for(5))
    waiting.cancel()

    assert len(seen) == 3
    assert all(after - before >= 2 for before, after in itertools.pairwise(seen))
