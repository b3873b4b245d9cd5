"""Proves that replicas that share a real Redis answer alike, and no reading that would not."""

import asyncio
from collections.abc import Iterator, Sequence

import pytest
from msgspec import structs
from tests.redis_server import fresh_prefix, shared_redis
from tests.service.replica import BARS, DIRECTION, QUOTES, SETS, SHORT, Replica, replica
from tests.unit.core.features.market import (
    MINUTE_MS,
    SYMBOL,
    bar,
    close_ms,
    quote,
    wave,
)

from detent.contracts.calls.feature import (
    MarketEvent,
    SnapshotView,
)
from detent.contracts.errors import Overloaded
from detent.contracts.market import Bar, Quote
from detent.contracts.reasons import ErrorReason, Reason
from detent.servers.feature.handler import FeatureHandler


@pytest.fixture(name="url", scope="module")
def _url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with shared_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


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


async def test_what_others_write_just_before_and_behind_ours_loses_nothing(
    url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = wave(60)
    async with replica(url, prefix) as one, replica(url, prefix) as other:
        append = one.store.append

        async def crowded(events: Sequence[MarketEvent]) -> tuple[str, str]:
            await other.ingest(bars[:20])
            found = await append(events)
            await other.ingest(bars[40:])
            return found

        monkeypatch.setattr(one.store, "append", crowded)
        answer = await one.ingest(bars[20:40])
        ours, theirs = await hashes(one, 60), await hashes(other, 60)

    assert (answer.accepted_count, answer.known_count, answer.refused_count) == (20, 0, 0)
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
    late, other, wrong = ErrorReason.DATA_LATE, ErrorReason.DATA_CONFLICT, ErrorReason.INVALID_FIELD
    assert {refusal.reason for refusal in answer.refusals} == {late, other, wrong}


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
