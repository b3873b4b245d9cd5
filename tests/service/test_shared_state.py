"""Proves what replicas that share a real Redis answer, and what they refuse to."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from msgspec import structs
from opentelemetry.context import Context
from tests.redis_server import RedisServer, fresh_prefix, redis_server, shared_redis
from tests.unit.core.features.market import (
    FROM_QUOTES,
    MINUTE_MS,
    SYMBOL,
    bar,
    close_ms,
    quote,
    wave,
)

from detent.adapters.redis_market import RedisMarket
from detent.contracts.calls.feature import (
    FeatureRow,
    GetFeatureSnapshotsRequest,
    IngestMarketDataRequest,
    IngestMarketDataResponse,
    MarketEvent,
    SnapshotView,
)
from detent.contracts.errors import Overloaded, ServiceUnavailable
from detent.contracts.market import Bar, Quote
from detent.contracts.reasons import ErrorReason, Reason
from detent.core.features.engine import EngineConfig
from detent.core.features.feature_set import (
    FeatureSet,
    FeatureTransform,
    direction_bars_v1,
    feature,
)
from detent.core.features.market_state import MarketState
from detent.rpc.call import Call
from detent.servers.feature.handler import FeatureHandler
from detent.servers.feature.shared_state import SILENCE_S_MAX, SharedState, lengths_of

DIRECTION = direction_bars_v1(MINUTE_MS)
MIDS = FeatureSet(
    name="mids", features=(feature(FeatureTransform.RETURN_PCT, 1),), engine=FROM_QUOTES
)
SHORT = FeatureSet(
    name="short",
    features=(feature(FeatureTransform.RETURN_PCT, 1),),
    engine=EngineConfig(bar_interval_ms=MINUTE_MS, max_bars=20),
)
BARS, QUOTES = "a" * 64, "b" * 64
SETS = {BARS: DIRECTION, QUOTES: MIDS}
Items = Sequence[Bar | Quote]
PATIENCE_S = 20.0


def call_for(seconds: float) -> Call:
    return Call(
        deadline_s=time.monotonic() + seconds, clock=time.monotonic, identity="", trace=Context()
    )


class Replica:
    """Is one feature service, as a process would compose it."""

    def __init__(
        self,
        url: str,
        prefix: str,
        sets: dict[str, FeatureSet],
        *,
        quotes_max: int = 5_000,
        symbols_max: int = 100,
        log_entries_max: int = 10_000,
    ) -> None:
        self.store = RedisMarket(
            url,
            prefix=prefix,
            lengths=lengths_of(sets.values(), quotes_max=quotes_max),
            symbols_max=symbols_max,
            log_entries_max=log_entries_max,
        )
        self.shared = SharedState(
            self.store,
            lambda: MarketState(sets.values(), symbols_max=symbols_max),
            clock=time.monotonic,
        )
        self.handler = FeatureHandler(sets, symbols_max=symbols_max, shared=self.shared)

    async def ingest(self, items: Items, *, size: int = 200) -> IngestMarketDataResponse:
        events = [
            MarketEvent(bar=item) if isinstance(item, Bar) else MarketEvent(quote=item)
            for item in items
        ]

        async def batches() -> AsyncIterator[IngestMarketDataRequest]:
            for start in range(0, len(events), size):
                yield IngestMarketDataRequest(events=tuple(events[start : start + size]))

        return await self.handler.ingest_market_data(batches(), call_for(30))

    async def row(
        self, as_of_ts_ms: int, *, symbol: str = SYMBOL, binding: str = BARS, seconds: float = 5
    ) -> FeatureRow:
        query = GetFeatureSnapshotsRequest(
            binding_hash=binding,
            as_of_ts_ms=as_of_ts_ms,
            symbols=(symbol,),
            view=SnapshotView.FULL,
        )
        return (await self.handler.get_feature_snapshots(query, call_for(seconds))).rows[0]

    async def until_current(self, *, is_current: bool = True) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while self.shared.is_current is not is_current:  # noqa: ASYNC110  Time decides it.
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def replica(
    url: str, prefix: str, sets: dict[str, FeatureSet] | None = None, **options: int
) -> AsyncIterator[Replica]:
    """Run a replica and wait until it follows the log."""
    one = Replica(url, prefix, sets or SETS, **options)
    following = asyncio.create_task(one.shared.run())
    try:
        await one.until_current()
        yield one
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await one.shared.close()


@pytest.fixture(name="url", scope="module")
def _url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with shared_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(name="server")
def _server(tmp_path: Path) -> Iterator[RedisServer]:
    """Give a server of the test's own, which it may kill, fill, flush and stop."""
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture(name="prefix")
def _prefix() -> str:
    return fresh_prefix()


def market(count: int) -> list[Bar | Quote]:
    """Give bars with a few quotes before each close."""
    items: list[Bar | Quote] = []
    for index, one in enumerate(wave(count)):
        for part in range(1, 4):
            price = 90 + (index * 7 + part) % 11
            at_ms = close_ms(index) - MINUTE_MS + part * 10_000
            items.append(quote(at_ms, str(price), str(price + 1)))
        items.append(one)
    return items


async def hashes(one: Replica, count: int, binding: str = BARS) -> list[str | Reason | None]:
    """Give what a replica answers as of each close: a hash, or its reason."""
    rows = [await one.row(close_ms(i), binding=binding) for i in range(count)]
    return [row.model_input.features_hash if row.model_input else row.refusal for row in rows]


async def test_replicas_give_the_same_hashes_whoever_took_the_data(url: str, prefix: str) -> None:
    items = market(60)
    alone = FeatureHandler(SETS)
    async with replica(url, prefix) as one, replica(url, prefix) as other:
        for start in range(0, len(items), 30):
            taker = one if start % 60 == 0 else other
            answer = await taker.ingest(items[start : start + 30])
            assert (answer.accepted_count, answer.refused_count) == (30, 0)
        ours, theirs = await hashes(one, 60), await hashes(other, 60)
        mids, their_mids = await hashes(one, 59, QUOTES), await hashes(other, 59, QUOTES)
    for item in items:
        alone._state.take(
            MarketEvent(bar=item) if isinstance(item, Bar) else MarketEvent(quote=item)
        )

    assert ours == theirs
    assert mids == their_mids
    assert len(set(ours)) == 60 - 24 + 1
    lonely = alone._state.model_input(
        DIRECTION, SYMBOL, as_of_ts_ms=close_ms(59), view=SnapshotView.FULL
    )
    assert not isinstance(lonely, Reason)
    assert lonely.features_hash == ours[-1]


async def test_replicas_that_are_fed_the_same_at_once_agree(url: str, prefix: str) -> None:
    """Every item comes twice, in an order that chance decides: once new, once known."""
    bars = wave(80)
    async with replica(url, prefix) as one, replica(url, prefix) as other:
        answers = await asyncio.gather(one.ingest(bars, size=7), other.ingest(bars, size=11))
        ours, theirs = await hashes(one, 80), await hashes(other, 80)

    new = sum(answer.accepted_count for answer in answers)
    known = sum(answer.known_count for answer in answers)
    refused = sum(answer.refused_count for answer in answers)
    assert (new, new + known + refused) == (80, 160)
    assert ours == theirs
    assert not isinstance(ours[-1], Reason)


async def test_a_replica_that_begins_later_gives_the_same_hashes(url: str, prefix: str) -> None:
    async with replica(url, prefix) as one:
        await one.ingest(market(60))
        ours = await hashes(one, 60), await hashes(one, 59, QUOTES)
        async with replica(url, prefix) as later:
            theirs = await hashes(later, 60), await hashes(later, 59, QUOTES)

    assert ours == theirs


async def test_what_redis_dropped_of_the_bars_changes_no_reading(url: str, prefix: str) -> None:
    """Twice what a history holds is kept, so that even the counts in a snapshot agree."""
    sets = {BARS: SHORT}
    async with replica(url, prefix, sets) as one:
        await one.ingest(wave(130))
        ours = await hashes(one, 130)
        async with replica(url, prefix, sets) as later:
            theirs = await hashes(later, 130)

    assert ours == theirs
    assert len(set(ours[-6:])) == 6


@pytest.mark.parametrize("binding", [BARS, QUOTES])
async def test_what_redis_dropped_of_the_quotes_is_warming_up(
    url: str, prefix: str, binding: str
) -> None:
    """A reading that would miss a quote is refused, and one that would not is the same."""
    async with replica(url, prefix, quotes_max=200) as one:
        await one.ingest(market(100))
        ours = await hashes(one, 99, binding)
        async with replica(url, prefix, quotes_max=200) as later:
            theirs = await hashes(later, 99, binding)
            cut_ms = later.shared._cuts[SYMBOL].cut_ts_ms
            later.shared._cuts.clear()
            unguarded = await hashes(later, 99, binding)

    served = [hash_ for hash_ in theirs if hash_ is not Reason.FEATURES_WARMING_UP]
    assert close_ms(30) < cut_ms < close_ms(40)
    assert served == ours[len(ours) - len(served) :]
    assert len(served) == (99 - 34 - 24 if binding == BARS else 0)
    # The control: without the rule, readings differ from what the first replica said.
    assert unguarded != ours


async def test_what_is_known_late_or_wrong_is_judged_and_uses_no_room(
    url: str, prefix: str
) -> None:
    async with replica(url, prefix, {BARS: SHORT}) as one:
        await one.ingest(wave(30))
        again = await one.ingest(wave(30) * 5)
        answer = await one.ingest(
            [
                structs.replace(wave(30)[29], volume=wave(1)[0].volume + 1),
                quote(close_ms(3)),
                bar(31, "100", interval_ms=2 * MINUTE_MS),
                bar(30, "100"),
            ]
        )
        async with replica(url, prefix, {BARS: SHORT}) as later:
            assert await hashes(one, 31) == await hashes(later, 31)

    assert (again.accepted_count, again.refused_count) == (0, 50)
    assert (answer.accepted_count, answer.refused_count) == (1, 3)
    assert {refusal.reason for refusal in answer.refusals} == {ErrorReason.INVALID_FIELD}


async def test_a_replica_that_fell_behind_the_log_reads_everything_again(
    url: str, prefix: str
) -> None:
    """The log is shorter than what was written while the replica did not look."""
    async with replica(url, prefix, log_entries_max=100) as one:
        behind = Replica(url, prefix, SETS)
        await behind.shared._catch_up()
        await one.ingest(wave(5_000), size=5_000)
        missed = await behind.store.after(behind.shared._position or "")
        await behind.shared._catch_up()
        last = await behind.row(close_ms(4_999))
        assert last == await one.row(close_ms(4_999))
        await behind.shared.close()

    assert missed is None
    assert last.model_input is not None


async def test_symbols_are_limited_in_redis_too(url: str, prefix: str) -> None:
    async with replica(url, prefix, {BARS: DIRECTION}, symbols_max=2) as one:
        await one.ingest([bar(0, "9", symbol=name) for name in ("A", "B")])
        answer = await one.ingest([bar(0, "9", symbol="C")])
        with pytest.raises(Overloaded):
            await one.ingest([bar(0, "9", symbol=f"S{number}") for number in range(100)])

    assert [refusal.reason for refusal in answer.refusals] == [ErrorReason.OVERLOADED]


async def test_redis_that_is_gone_refuses_data_and_readings_and_comes_back(
    server: RedisServer, prefix: str
) -> None:
    async with replica(server.url, prefix) as one:
        await one.ingest(wave(40))
        before = await one.row(close_ms(39))
        server.kill()
        with pytest.raises(ServiceUnavailable):
            await one.ingest(wave(41)[40:])
        await one.until_current(is_current=False)
        started_s = time.monotonic()
        rows = [await one.row(close_ms(39)), await one.row(close_ms(40))]
        unknown = await one.row(close_ms(39), symbol="NEVERSEEN")
        took_s = time.monotonic() - started_s

        server.start()
        await one.until_current()
        after = await one.row(close_ms(39))
        answer = await one.ingest(wave(41)[40:])

    assert {row.refusal for row in [*rows, unknown]} == {Reason.FEATURES_UNAVAILABLE}
    assert took_s < 1
    assert before == after
    assert answer.accepted_count == 1


async def test_who_waits_when_redis_goes_is_answered_at_once(
    server: RedisServer, prefix: str
) -> None:
    async with replica(server.url, prefix) as one:
        await one.ingest(wave(40))
        asking = asyncio.create_task(one.row(close_ms(40), seconds=3_600))
        await asyncio.sleep(0.05)
        server.kill()
        async with asyncio.timeout(PATIENCE_S):
            row = await asking

    assert row.refusal is Reason.FEATURES_UNAVAILABLE


async def test_redis_that_stands_still_is_noticed_within_its_silence(
    server: RedisServer, prefix: str
) -> None:
    async with replica(server.url, prefix) as one:
        await one.ingest(wave(40))
        server.do("CLIENT", "PAUSE", 4_000)
        await asyncio.sleep(SILENCE_S_MAX + 0.3)
        refused = await one.row(close_ms(39))
        started_s = time.monotonic()
        with pytest.raises(ServiceUnavailable):
            await one.ingest(wave(41)[40:])
        took_s = time.monotonic() - started_s
        await one.until_current()
        served = await one.row(close_ms(39))

    assert refused.refusal is Reason.FEATURES_UNAVAILABLE
    assert took_s < 5
    assert served.model_input is not None


async def test_data_sent_into_a_silence_are_refused_and_may_be_sent_again(
    server: RedisServer, prefix: str
) -> None:
    """Nobody knows whether what timed out was written; sending it again settles that."""
    async with replica(server.url, prefix) as one:
        await one.ingest(wave(40))
        server.do("CLIENT", "PAUSE", 2_500)
        with pytest.raises(ServiceUnavailable):
            await one.ingest(wave(41)[40:])
        await one.until_current()
        again = await one.ingest(wave(41)[40:])
        async with replica(server.url, prefix) as later:
            assert await one.row(close_ms(40)) == await later.row(close_ms(40))

    assert again.accepted_count + again.known_count == 1


async def test_redis_that_was_flushed_leaves_nothing_to_read(
    server: RedisServer, prefix: str
) -> None:
    async with replica(server.url, prefix) as one, replica(server.url, prefix) as other:
        await one.ingest(wave(40))
        served = await other.row(close_ms(39))
        server.do("FLUSHALL")
        async with asyncio.timeout(PATIENCE_S):
            row = await one.row(close_ms(39), seconds=0.1)
            while row.model_input is not None:
                row = await one.row(close_ms(39), seconds=0.1)
            await other.until_current()
        again = await one.ingest(wave(40))
        new = await other.row(close_ms(39))

    assert row.refusal in {Reason.SYMBOL_UNKNOWN, Reason.FEATURES_UNAVAILABLE}
    assert again.accepted_count == 40
    assert new == served


async def test_redis_that_forgot_the_end_of_the_log_is_noticed(
    server: RedisServer, prefix: str
) -> None:
    """A store that was rolled back and written on looks whole to whoever counts only."""
    log = f"{prefix}:market:1:log"
    async with replica(server.url, prefix) as one:
        behind = Replica(server.url, prefix, SETS)
        await behind.shared._catch_up()
        await one.ingest(wave(40))
        await behind.shared._catch_up()
        position = behind.shared._position or ""
        (newest,) = server.do("XREVRANGE", log, "+", "-", "COUNT", 1)
        assert await behind.store.after(position) == []
        server.do("XDEL", log, newest[0])
        server.do("XADD", log, "9999999999999999-1", "n", "another", "e", newest[1][b"e"])

        assert await behind.store.after(position) is None
        await behind.shared.close()


async def test_log_with_a_hole_is_noticed(server: RedisServer, prefix: str) -> None:
    async with replica(server.url, prefix) as one:
        await one.ingest(wave(40))
        log = f"{prefix}:market:1:log"
        whole = await one.store.after("")
        entries = server.do("XRANGE", log, "-", "+")
        server.do("XDEL", log, entries[20][0])

        assert whole is not None
        assert len(whole) == 40
        assert await one.store.after("") is None


async def test_redis_that_is_full_refuses_data_and_serves_what_it_has(
    server: RedisServer, prefix: str
) -> None:
    async with replica(server.url, prefix) as one:
        await one.ingest(wave(40))
        server.do("CONFIG", "SET", "maxmemory", 1)
        with pytest.raises(Overloaded):
            await one.ingest(wave(41)[40:])
        old = await one.row(close_ms(39))
        new = await one.row(close_ms(40), seconds=0.1)
        server.do("CONFIG", "SET", "maxmemory", 0)
        answer = await one.ingest(wave(41)[40:])
        async with replica(server.url, prefix) as later:
            assert await one.row(close_ms(40)) == await later.row(close_ms(40))

    assert old.model_input is not None
    assert new.refusal is Reason.FEATURES_STALE
    assert answer.accepted_count == 1


async def test_redis_that_may_forget_by_itself_is_not_followed(
    server: RedisServer, prefix: str
) -> None:
    server.do("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    one = Replica(server.url, prefix, SETS)
    with pytest.raises(ServiceUnavailable, match="allkeys-lru"):
        await one.store.check()
    server.do("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    await one.store.check()
    await one.shared.close()


async def test_entry_that_cannot_be_read_stops_the_replica(
    server: RedisServer, prefix: str
) -> None:
    """What one replica understands and another does not would part them in silence."""
    async with replica(server.url, prefix) as one:
        await one.ingest(wave(40))
        log = f"{prefix}:market:1:log"
        (newest,) = server.do("XREVRANGE", log, "+", "-", "COUNT", 1)
        generation, _, number = newest[0].decode().partition("-")
        server.do("XADD", log, f"{generation}-{int(number) + 1}", "n", "other", "e", b"\xff")
        await one.until_current(is_current=False)
        row = await one.row(close_ms(39))

    assert row.refusal is Reason.FEATURES_UNAVAILABLE


async def test_redis_that_restarts_with_what_it_had_goes_on(
    server: RedisServer, prefix: str
) -> None:
    async with replica(server.url, prefix) as one:
        await one.ingest(wave(40))
        before = await one.row(close_ms(39))
        server.kill()
        server.start()
        async with replica(server.url, prefix) as later:
            assert await later.row(close_ms(39)) == before


async def test_redis_that_restarts_empty_leaves_nothing_to_read(
    server: RedisServer, prefix: str
) -> None:
    async with replica(server.url, prefix) as one:
        await one.ingest(wave(40))
        server.kill()
        await one.until_current(is_current=False)
        server.forget()
        server.start()
        await one.until_current()
        row = await one.row(close_ms(39))

    assert row.refusal is Reason.SYMBOL_UNKNOWN
