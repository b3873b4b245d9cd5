"""Streams order books through the running feature service and compares with training's reading."""

import bisect
import heapq
import itertools
from collections.abc import AsyncIterator, Iterable, Sequence
from decimal import Decimal
from operator import attrgetter
from pathlib import Path
from typing import Self

import pyarrow.parquet as pq
import pytest
from msgspec import structs
from opentelemetry.context import Context
from tests.unit.core.features.market import START_MS, SYMBOL, bar, book, close_ms, levels, quote

from detent.contracts.calls.feature import (
    FeatureRow,
    GetFeatureSnapshotsRequest,
    GetFeatureSnapshotsResponse,
    IngestMarketDataRequest,
    IngestMarketDataResponse,
    MarketEvent,
    ModelInput,
    SnapshotView,
)
from detent.contracts.market import Bar, Book, Quote
from detent.contracts.reasons import ErrorReason, Reason
from detent.contracts.wire import message_class, to_wire
from detent.core.features.book import build_l2_snapshot
from detent.core.features.engine import BarSource, BookConfig, EngineConfig
from detent.core.features.feature_set import FeatureSet
from detent.core.features.feature_spec import BOOK_TRANSFORMS, FeatureTransform, feature
from detent.core.features.offline_rows import iter_event_inputs
from detent.offline.book_rows import load_book_rows
from detent.rpc.channel import RemoteService, open_channel
from detent.rpc.serve import Server, ServerOptions, Service
from detent.rpc.tracing import no_tracer
from detent.servers.feature.handler import FeatureHandler

DATA = Path(__file__).parents[3] / "shared" / "data"
REAL = "binance_usdm_btcusdt_20240808"
REAL_BOOKS = 2_000
SECOND_MS = 1_000
BINDING = "a" * 64
BOOK_FEATURES = tuple(feature(transform) for transform in sorted(BOOK_TRANSFORMS))
SECONDS = FeatureSet(
    name="seconds",
    features=(
        feature(FeatureTransform.RETURN_PCT, 1),
        feature(FeatureTransform.IMBALANCE_L1),
        *BOOK_FEATURES,
    ),
    engine=EngineConfig(
        bar_interval_ms=SECOND_MS, bar_source=BarSource.FROM_QUOTES, book=BookConfig()
    ),
)
MINUTES = FeatureSet(
    name="minutes",
    features=BOOK_FEATURES,
    engine=EngineConfig(book=BookConfig(l2_qty_ref=Decimal("1.5"))),
)
Item = Bar | Quote | Book


def real_events() -> list[Item]:
    """Give the first books of a real file and the quotes of the same time, in order of time."""
    path = DATA / f"l2_{REAL}_top20_100ms.parquet"
    books = list(itertools.islice(load_book_rows(path, venue="BINANCE"), REAL_BOOKS))
    columns = pq.read_table(DATA / f"l1_{REAL}.parquet").to_pylist()
    quotes = [
        Quote(**{key: _exact(value) for key, value in cells.items()})
        for cells in columns
        if cells["ts_ms"] <= books[-1].ts_ms
    ]
    return list(heapq.merge(quotes, books, key=attrgetter("ts_ms")))


def _exact(value: object) -> object:
    return Decimal(repr(value)) if isinstance(value, float) else value


def made_events() -> list[Item]:
    """Give minutes of bars with three books in each, of sizes that change."""
    events: list[Item] = []
    for index in range(40):
        events.extend(
            book(
                close_ms(index) - 40_000 + step * 15_000,
                [("99", str(1 + (index + step) % 5)), ("98", "0.2")],
                [("101", str(1 + index % 3)), ("103", "2")],
            )
            for step in range(3)
        )
        events.append(quote(close_ms(index) - 1, str(90 + index % 7)))
        events.append(bar(index, str(100 + index % 4)))
    return events


class Running:
    """A feature service that listens, and a channel to it."""

    def __init__(self, feature_set: FeatureSet) -> None:
        handler = FeatureHandler({BINDING: feature_set})
        self._server = Server(
            ServerOptions(listen="127.0.0.1:0", reflection=False, drain_grace_s=1.0),
            [Service(name="FeatureService", handler=handler)],
            no_tracer(),
        )

    async def __aenter__(self) -> Self:
        self._channel = open_channel(await self._server.start())
        self._service = RemoteService(self._channel, "FeatureService", no_tracer())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()
        await self._server.drain()

    async def ingest(self, items: Iterable[Item]) -> IngestMarketDataResponse:
        """Stream items in batches of 500."""
        events = [event_of(item) for item in items]

        async def batches() -> AsyncIterator[IngestMarketDataRequest]:
            for start in range(0, len(events), 500):
                yield IngestMarketDataRequest(events=tuple(events[start : start + 500]))

        return await self._service.stream(
            batches(),
            IngestMarketDataRequest,
            IngestMarketDataResponse,
            timeout_s=60.0,
            trace=Context(),
        )

    async def ask(self, as_of_ts_ms: int) -> FeatureRow:
        """Ask for everything of the symbol as of an instant."""
        query = GetFeatureSnapshotsRequest(
            binding_hash=BINDING,
            as_of_ts_ms=as_of_ts_ms,
            symbols=(self.symbol,),
            view=SnapshotView.FULL,
        )
        answer = await self._service.call(
            query, GetFeatureSnapshotsResponse, timeout_s=5.0, trace=Context()
        )
        return answer.rows[0]

    symbol = SYMBOL


def event_of(item: Item) -> MarketEvent:
    if isinstance(item, Bar):
        return MarketEvent(bar=item)
    return MarketEvent(quote=item) if isinstance(item, Quote) else MarketEvent(book=item)


def offline(feature_set: FeatureSet, events: Sequence[Item]) -> list[ModelInput | Reason]:
    return list(iter_event_inputs(feature_set, events, view=SnapshotView.FULL))


async def compared(feature_set: FeatureSet, events: Sequence[Item]) -> int:
    """Stream everything, then ask row by row; give how many rows had an input."""
    expected = offline(feature_set, events)
    books = [event for event in events if isinstance(event, Book)]
    times = [one.ts_ms for one in books]
    count = 0
    running = Running(feature_set)
    running.symbol = events[0].symbol
    async with running:
        acknowledged = await running.ingest(events)
        assert acknowledged.refused_count == 0
        for row in expected:
            if isinstance(row, Reason):
                continue
            answer = await running.ask(row.ts_ms)
            assert answer.model_input == row
            last = books[bisect.bisect_left(times, row.ts_ms) - 1]
            qty_ref = feature_set.engine.book.l2_qty_ref if feature_set.engine.book else Decimal(0)
            assert row.l2_snapshot == build_l2_snapshot(last, qty_ref=qty_ref)
            assert len(row.snapshot_hashes) == 2
            count += 1
    return count


@pytest.mark.proves("R315")
async def test_books_through_the_service_give_what_training_reads() -> None:
    assert await compared(MINUTES, made_events()) == 40


@pytest.mark.proves("R315", "R11", "R12")
@pytest.mark.skipif(not DATA.exists(), reason="the shared market data are not at hand")
async def test_real_books_through_the_service_give_what_training_reads() -> None:
    """2,000 snapshots of 20 levels and all quotes between them, in bars of a second."""
    events = real_events()
    assert sum(isinstance(event, Book) for event in events) == REAL_BOOKS

    # The books span 200 seconds; the first bar has no return yet.
    assert await compared(SECONDS, events) >= 195


def test_comparison_finds_a_book_that_differs() -> None:
    """The comparison is worth nothing unless one changed quantity changes a hash."""
    events = made_events()
    changed = [
        structs.replace(event, bids=levels(("99", "1.5"), ("98", "0.2")))
        if isinstance(event, Book) and event.ts_ms == close_ms(7) - 10_000
        else event
        for event in events
    ]

    pairs = zip(offline(MINUTES, events), offline(MINUTES, changed), strict=True)
    assert [index for index, (one, other) in enumerate(pairs) if one != other] == [7]


async def test_books_are_judged_one_by_one() -> None:
    books = [
        book(START_MS + 2),
        book(START_MS + 2),
        book(START_MS + 1),
        book(START_MS + 2, [("99", "1")], [("101", "1")]),
        book(START_MS + 3, venue="COINBASE"),
        book(START_MS + 3),
    ]
    async with Running(MINUTES) as running:
        answer = await running.ingest(books)

    assert (answer.accepted_count, answer.known_count, answer.refused_count) == (2, 1, 3)
    assert [refusal.message.partition(":")[0] for refusal in answer.refusals] == [
        "ts_ms",
        "ts_ms",
        "venue",
    ]


async def test_book_feature_without_a_book_is_missing() -> None:
    async with Running(MINUTES) as running:
        await running.ingest([bar(0, "100")])
        assert (await running.ask(close_ms(0))).refusal is Reason.FEATURES_MISSING


@pytest.mark.proves("R324")
async def test_crossed_book_is_refused_by_the_name_of_its_rule() -> None:
    """No client of ours can build one; another's is told which rule it broke."""
    message = to_wire(IngestMarketDataRequest(events=(event_of(book(START_MS)),)))
    message.events[0].book.bids[0].price = "101.5"

    async def crossed() -> AsyncIterator[object]:
        yield message

    async with Running(MINUTES) as running:
        call = running._channel.stream_unary(
            "/detent.api.v1.FeatureService/IngestMarketData",
            request_serializer=message_class("IngestMarketDataRequest").SerializeToString,
            response_deserializer=message_class("IngestMarketDataResponse").FromString,
        )
        answer = await running._service._finish(call(crossed()), IngestMarketDataResponse)

    (refusal,) = answer.refusals
    assert refusal.reason is ErrorReason.DATA_CROSSED
    assert "book.bids[0].price" in refusal.message
