"""Proves what replicas answer while their Redis is gone, slow, full, flushed or another one."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.redis_server import RedisServer, fresh_prefix, redis_server
from tests.service.replica import PATIENCE_S, SETS, Replica, replica
from tests.unit.core.features.market import (
    close_ms,
    wave,
)

from detent.contracts.errors import Overloaded, ServiceUnavailable
from detent.contracts.reasons import Reason
from detent.servers.feature.shared_state import SILENCE_S_MAX


@pytest.fixture(name="server")
def _server(tmp_path: Path) -> Iterator[RedisServer]:
    """Give a server of the test's own, which it may kill, fill, flush and stop."""
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture(name="prefix")
def _prefix() -> str:
    return fresh_prefix()


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
