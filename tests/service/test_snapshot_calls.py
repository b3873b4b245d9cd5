"""Proves over the wire what one call for model inputs may ask: how many, how old, known when."""

from collections.abc import AsyncIterator

import pytest
from tests.feature_host import FeatureHost, message_of
from tests.unit.core.features.market import (
    MINUTE_MS,
    SYMBOL,
    close_ms,
    delayed,
    quote,
    wave,
)

from detent.contracts.calls.feature import (
    FeatureRow,
    GetFeatureSnapshotsRequest,
    ModelInput,
    SnapshotView,
)
from detent.contracts.errors import InvalidField
from detent.contracts.market import INTERVAL_MS_MAX, Bar
from detent.contracts.reasons import ErrorReason, Reason
from detent.contracts.units import ROWS_MAX
from detent.core.features.feature_set import direction_bars_v1
from detent.servers.feature.handler import FUTURE_MS_MAX, FeatureHandler

HELD = "a" * 64
MINUTES = direction_bars_v1(MINUTE_MS)


@pytest.fixture(name="host")
async def _host() -> AsyncIterator[FeatureHost]:
    async with FeatureHost({HELD: MINUTES}) as host:
        yield host


async def ask(
    host: FeatureHost, as_of_ts_ms: int, *symbols: str, max_age_ms: int | None = None
) -> tuple[FeatureRow, ...]:
    query = GetFeatureSnapshotsRequest(
        binding_hash=HELD,
        as_of_ts_ms=as_of_ts_ms,
        symbols=symbols or (SYMBOL,),
        view=SnapshotView.INPUT,
        max_age_ms=max_age_ms,
    )
    return (await host.ask(query)).rows


async def outcome(
    host: FeatureHost, as_of_ts_ms: int, *, max_age_ms: int | None = None
) -> ModelInput | Reason | None:
    (row,) = await ask(host, as_of_ts_ms, max_age_ms=max_age_ms)
    return row.model_input or row.refusal


async def test_one_call_takes_five_thousand_symbols_and_no_more(host: FeatureHost) -> None:
    names = [f"S{number}" for number in range(ROWS_MAX + 1)]
    for name in names[1::500]:
        await host.ingest(message_of(wave(30, symbol=name)))

    rows = await ask(host, close_ms(29), *names[:ROWS_MAX])

    assert [row.symbol for row in rows] == names[:ROWS_MAX]
    assert [row.symbol for row in rows if row.model_input is not None] == names[1:ROWS_MAX:500]
    assert {row.refusal for row in rows} == {None, Reason.SYMBOL_UNKNOWN}
    for wrong in (names, [SYMBOL, SYMBOL]):
        with pytest.raises(InvalidField, match="symbols"):
            await ask(host, close_ms(29), *wrong)


def test_a_call_for_no_symbol_is_refused() -> None:
    with pytest.raises(InvalidField, match="symbols"):
        GetFeatureSnapshotsRequest(
            binding_hash=HELD, as_of_ts_ms=close_ms(0), symbols=(), view=SnapshotView.INPUT
        )


@pytest.mark.parametrize("max_age_ms", [-1, INTERVAL_MS_MAX + 1])
def test_an_age_out_of_range_is_refused(max_age_ms: int) -> None:
    with pytest.raises(InvalidField, match="max_age_ms"):
        GetFeatureSnapshotsRequest(
            binding_hash=HELD,
            as_of_ts_ms=close_ms(0),
            symbols=(SYMBOL,),
            view=SnapshotView.INPUT,
            max_age_ms=max_age_ms,
        )


async def test_a_bar_older_than_asked_for_is_stale(host: FeatureHost) -> None:
    """Between two closes the newest bar is as old as the time since it closed."""
    await host.ingest(message_of(wave(31)))
    between = close_ms(29) + 20_000

    assert isinstance(await outcome(host, between), ModelInput)
    assert isinstance(await outcome(host, between, max_age_ms=20_000), ModelInput)
    assert await outcome(host, between, max_age_ms=19_999) is Reason.FEATURES_STALE
    assert isinstance(await outcome(host, close_ms(30), max_age_ms=0), ModelInput)


async def test_a_quote_older_than_asked_for_is_stale(host: FeatureHost) -> None:
    """The quote is in the snapshot, so its age counts, in the ready answer as well."""
    await host.ingest(message_of([*wave(29), quote(close_ms(28) + 100), wave(30)[29]]))
    age_ms = MINUTE_MS - 100

    assert isinstance(await outcome(host, close_ms(29), max_age_ms=age_ms), ModelInput)
    assert await outcome(host, close_ms(29), max_age_ms=age_ms - 1) is Reason.FEATURES_STALE


async def test_what_is_refused_for_another_reason_keeps_it(host: FeatureHost) -> None:
    await host.ingest(message_of(wave(3)))

    assert await outcome(host, close_ms(2), max_age_ms=0) is Reason.FEATURES_WARMING_UP


async def test_a_bar_is_served_from_when_it_was_known(host: FeatureHost) -> None:
    """At its close it was not known: stale is the honest answer, and it never changes."""
    bars = wave(31)
    bars[29] = delayed(bars[29], 700)
    await host.ingest(message_of(bars[:30]))
    at_close = await outcome(host, close_ms(29))

    known = await outcome(host, close_ms(29) + 700)
    await host.ingest(message_of(bars[30:]))

    assert at_close is Reason.FEATURES_STALE
    assert isinstance(known, ModelInput)
    assert await outcome(host, close_ms(29)) is at_close
    assert await outcome(host, close_ms(29) + 699) is Reason.FEATURES_STALE
    assert await outcome(host, close_ms(29) + 700) == known


async def test_data_known_before_they_happened_are_refused_alone(host: FeatureHost) -> None:
    message = message_of(wave(2))
    message.events[0].bar.available_ts_ms = message.events[0].bar.ts_ms - 1

    answer = await host.ingest(message)

    assert (answer.accepted_count, answer.refused_count) == (1, 1)
    assert answer.refusals[0].message.startswith("bar.available_ts_ms: found")


async def test_data_known_in_the_future_are_refused(host: FeatureHost) -> None:
    """They would push the reach past what the clock allows."""
    bars: list[Bar] = wave(2)
    now_ms = bars[0].ts_ms + 1
    live = FeatureHandler({HELD: MINUTES}, now_ms=lambda: now_ms)
    async with FeatureHost({}, handler=live) as hosted:
        answer = await hosted.ingest(
            message_of([delayed(bars[0], FUTURE_MS_MAX + 2), delayed(bars[0], FUTURE_MS_MAX)])
        )

    assert (answer.accepted_count, answer.refused_count) == (1, 1)
    assert answer.refusals[0].reason is ErrorReason.BAR_FROM_FUTURE
