"""Proves what the feature service answers, with calls made by hand."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable

import pytest
from msgspec import structs
from opentelemetry.context import Context
from pydantic import ValidationError
from tests.unit.core.features.market import (
    FROM_QUOTES,
    MINUTE_MS,
    SYMBOL,
    bar,
    close_ms,
    quote,
    wave,
)

from detent.contracts.calls.feature import (
    DescribeFeatureSetRequest,
    GetFeatureSnapshotsRequest,
    GetFeatureSnapshotsResponse,
    IngestMarketDataRequest,
    IngestMarketDataResponse,
    MarketEvent,
    SnapshotView,
    Watermark,
)
from detent.contracts.errors import BindingMismatch, DeadlineExceeded, InvalidField
from detent.contracts.market import Bar, Quote
from detent.contracts.reasons import ErrorReason, Reason
from detent.core.features.feature_set import FeatureSet, direction_bars_v1, parse_feature_set
from detent.core.features.feature_spec import FeatureTransform, feature
from detent.core.features.offline_rows import iter_model_inputs
from detent.rpc.call import Call
from detent.servers.feature.handler import FUTURE_MS_MAX, FeatureHandler
from detent.servers.feature.settings import FeatureSettings

DIRECTION = direction_bars_v1(MINUTE_MS)
MIDS = FeatureSet(
    name="mids", features=(feature(FeatureTransform.RETURN_PCT, 1),), engine=FROM_QUOTES
)
STABLE, CANDIDATE, OF_MIDS = "a" * 64, "b" * 64, "c" * 64


def call_for(seconds: float) -> Call:
    return Call(
        deadline_s=time.monotonic() + seconds,
        clock=time.monotonic,
        identity="",
        trace=Context(),
    )


@pytest.fixture(name="handler")
def _handler() -> FeatureHandler:
    sets = {STABLE: DIRECTION, CANDIDATE: structs.replace(DIRECTION), OF_MIDS: MIDS}
    return FeatureHandler(sets)


async def batches_of(
    items: Iterable[Bar | Quote], size: int
) -> AsyncIterator[IngestMarketDataRequest]:
    events = [
        MarketEvent(bar=item) if isinstance(item, Bar) else MarketEvent(quote=item)
        for item in items
    ]
    for start in range(0, len(events), size):
        yield IngestMarketDataRequest(events=tuple(events[start : start + size]))


async def ingest(
    handler: FeatureHandler, items: Iterable[Bar | Quote], *, size: int = 50
) -> IngestMarketDataResponse:
    return await handler.ingest_market_data(batches_of(items, size), call_for(5))


async def ask(
    handler: FeatureHandler,
    as_of_ts_ms: int,
    *symbols: str,
    binding_hash: str = STABLE,
    view: SnapshotView = SnapshotView.INPUT,
    seconds: float = 0.1,
) -> GetFeatureSnapshotsResponse:
    query = GetFeatureSnapshotsRequest(
        binding_hash=binding_hash,
        as_of_ts_ms=as_of_ts_ms,
        symbols=symbols or (SYMBOL,),
        view=view,
    )
    return await handler.get_feature_snapshots(query, call_for(seconds))


@pytest.mark.parametrize("size", [1, 7, 5_000])
async def test_service_gives_what_the_library_computes(handler: FeatureHandler, size: int) -> None:
    bars = wave(90)
    await ingest(handler, bars, size=size)

    for one, expected in zip(bars, iter_model_inputs(DIRECTION, bars), strict=True):
        (row,) = (await ask(handler, one.ts_ms)).rows
        assert (row.model_input or row.refusal) == expected


async def test_full_view_adds_the_snapshot(handler: FeatureHandler) -> None:
    await ingest(handler, wave(30))

    full = (await ask(handler, close_ms(29), view=SnapshotView.FULL)).rows[0].model_input
    bare = (await ask(handler, close_ms(29))).rows[0].model_input

    assert full is not None
    assert bare is not None
    assert full.snapshot is not None
    assert bare == structs.replace(full, snapshot=None)


async def test_rows_come_in_the_order_in_which_they_were_asked_for(
    handler: FeatureHandler,
) -> None:
    names = [f"S{number}" for number in range(100)]
    for name in names:
        await ingest(handler, wave(30, symbol=name))
    asked = [*reversed(names), "NEVERSEEN"]

    response = await ask(handler, close_ms(29), *asked)

    assert [row.symbol for row in response.rows] == asked
    assert response.binding_hash == STABLE
    assert response.feature_version == DIRECTION.feature_version
    assert all(row.model_input is not None for row in response.rows[:-1])


async def test_items_are_judged_one_by_one(handler: FeatureHandler) -> None:
    items = [
        bar(0, "100"),
        bar(0, "100.0"),
        bar(2, "101"),
        bar(1, "101"),
        bar(2, "102"),
        bar(3, "1", interval_ms=1),
        bar(3, "102"),
    ]

    response = await ingest(handler, items)

    assert (response.accepted_count, response.known_count, response.refused_count) == (3, 1, 3)
    assert [(one.ts_ms, one.reason) for one in response.refusals] == [
        (close_ms(1), ErrorReason.BAR_OUT_OF_ORDER),
        (close_ms(2), ErrorReason.DATA_CONFLICT),
        (close_ms(3), ErrorReason.INVALID_FIELD),
    ]
    assert "found '102', expected 101" in response.refusals[1].message
    assert response.watermarks == (Watermark(symbol=SYMBOL, ts_ms=close_ms(3)),)


async def test_first_hundred_refusals_are_listed_and_all_are_counted(
    handler: FeatureHandler,
) -> None:
    response = await ingest(handler, [bar(0, "1", interval_ms=1)] * 130)

    assert len(response.refusals) == 100
    assert response.refused_count == 130
    assert response.watermarks == ()


async def test_late_quote_is_refused_and_reported(handler: FeatureHandler) -> None:
    response = await ingest(handler, [quote(close_ms(5)), quote(close_ms(3))])

    assert response.refused_count == 1
    assert response.refusals[0].reason is ErrorReason.DATA_LATE
    assert "the quote is late" in response.refusals[0].message


async def test_symbols_beyond_the_limit_are_refused_as_overload() -> None:
    handler = FeatureHandler({STABLE: DIRECTION}, symbols_max=1)

    response = await ingest(handler, [bar(0, "1"), bar(0, "1", symbol="MORE"), bar(1, "1")])

    assert (response.accepted_count, response.refused_count) == (2, 1)
    assert response.refusals[0].reason is ErrorReason.OVERLOADED
    assert (await ask(handler, close_ms(0), "MORE")).rows[0].refusal is Reason.SYMBOL_UNKNOWN


async def test_live_data_from_the_future_are_refused() -> None:
    """One stray stamp would push the watermark past every bar that follows."""
    now_ms = close_ms(3)
    handler = FeatureHandler({STABLE: DIRECTION}, now_ms=lambda: now_ms)
    ahead = structs.replace(bar(4, "1"), ts_ms=now_ms + FUTURE_MS_MAX + 1)

    response = await ingest(handler, [ahead, bar(3, "1")])

    assert (response.accepted_count, response.refused_count) == (1, 1)
    assert response.refusals[0].reason is ErrorReason.BAR_FROM_FUTURE


@pytest.mark.parametrize(
    "wrong", ["", STABLE.upper(), STABLE[:63], STABLE + "a", "d" * 64, " " + STABLE]
)
async def test_wrong_binding_is_refused_before_anything_else(
    handler: FeatureHandler, wrong: str
) -> None:
    """Neither an unknown symbol nor a deadline that has passed comes first."""
    query = GetFeatureSnapshotsRequest(
        binding_hash=wrong, as_of_ts_ms=close_ms(0), symbols=("X",), view=SnapshotView.INPUT
    )

    with pytest.raises(BindingMismatch):
        await handler.get_feature_snapshots(query, call_for(-1))
    with pytest.raises(BindingMismatch):
        await handler.describe_feature_set(
            DescribeFeatureSetRequest(binding_hash=wrong), call_for(1)
        )


def test_binding_that_is_no_hash_cannot_be_held() -> None:
    with pytest.raises(InvalidField):
        FeatureHandler({STABLE.upper(): DIRECTION})


async def test_answer_waits_for_the_data(handler: FeatureHandler) -> None:
    await ingest(handler, wave(30)[:29])
    asking = asyncio.create_task(ask(handler, close_ms(29), seconds=3_600))
    await asyncio.sleep(0.02)
    waited = not asking.done()

    await ingest(handler, wave(30)[29:])

    assert waited
    async with asyncio.timeout(5):
        assert (await asking).rows[0].model_input is not None


async def test_unrelated_data_do_not_end_the_wait(handler: FeatureHandler) -> None:
    await ingest(handler, [*wave(29), *wave(29, symbol="ETHUSDT")])
    asking = asyncio.create_task(ask(handler, close_ms(29), SYMBOL, "ETHUSDT", seconds=60))
    await ingest(handler, wave(30, symbol="ETHUSDT")[29:])
    await asyncio.sleep(0.02)
    waited = not asking.done()

    await ingest(handler, wave(30)[29:])

    assert waited
    async with asyncio.timeout(5):
        await asking
    assert all(row.model_input is not None for row in (await asking).rows)


async def test_data_that_do_not_come_are_stale_within_the_deadline(
    handler: FeatureHandler,
) -> None:
    await ingest(handler, [*wave(30), *wave(31, symbol="ETHUSDT"), *wave(5, symbol="NEW")])
    call = call_for(0.2)
    query = GetFeatureSnapshotsRequest(
        binding_hash=STABLE,
        as_of_ts_ms=close_ms(30),
        symbols=(SYMBOL, "ETHUSDT", "NEW", "NEVERSEEN"),
        view=SnapshotView.INPUT,
    )

    rows = (await handler.get_feature_snapshots(query, call)).rows

    assert call.remaining_s() > 0
    assert rows[0].refusal is Reason.FEATURES_STALE
    assert rows[1].model_input is not None
    assert rows[2].refusal is Reason.FEATURES_WARMING_UP
    assert rows[3].refusal is Reason.SYMBOL_UNKNOWN


async def test_symbol_that_was_never_seen_is_answered_at_once(handler: FeatureHandler) -> None:
    async with asyncio.timeout(1):
        response = await ask(handler, close_ms(0), "NEVERSEEN", seconds=3_600)

    assert response.rows[0].refusal is Reason.SYMBOL_UNKNOWN


async def test_deadline_that_has_passed_is_a_typed_error(handler: FeatureHandler) -> None:
    await ingest(handler, wave(30))

    with pytest.raises(DeadlineExceeded):
        await ask(handler, close_ms(30), seconds=-1)


async def test_caller_that_leaves_leaves_nothing_behind(handler: FeatureHandler) -> None:
    await ingest(handler, wave(29))
    asking = asyncio.create_task(ask(handler, close_ms(29), seconds=60))
    await asyncio.sleep(0.02)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking

    await ingest(handler, wave(30)[29:])

    assert (await ask(handler, close_ms(29))).rows[0].model_input is not None


async def test_bindings_with_one_feature_set_get_the_same_inputs(handler: FeatureHandler) -> None:
    await ingest(handler, wave(30))

    stable = await ask(handler, close_ms(29))
    candidate = await ask(handler, close_ms(29), binding_hash=CANDIDATE)

    assert candidate.binding_hash == CANDIDATE
    assert candidate.rows[0].model_input is stable.rows[0].model_input


async def test_quotes_alone_serve_a_set_that_builds_bars(handler: FeatureHandler) -> None:
    await ingest(handler, [quote(close_ms(index), str(90 + index)) for index in range(4)])

    response = await ask(handler, close_ms(3), binding_hash=OF_MIDS, view=SnapshotView.FULL)

    row = response.rows[0].model_input
    assert row is not None
    assert row.snapshot is not None
    assert (row.snapshot.warmup_bars, row.snapshot.spread_bps) == (3, 932)


async def test_feature_set_is_described_as_it_is_hashed(handler: FeatureHandler) -> None:
    response = await handler.describe_feature_set(
        DescribeFeatureSetRequest(binding_hash=STABLE), call_for(1)
    )

    assert response.feature_version == DIRECTION.feature_version
    assert response.feature_names == DIRECTION.feature_names
    assert response.warmup_bars_min == 25
    assert parse_feature_set(response.feature_set_json.encode()) == DIRECTION


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETENT_FEATURE_ARTIFACTS_DIR", "artifacts")
    monkeypatch.setenv("DETENT_FEATURE_LISTEN", "127.0.0.1:1")
    monkeypatch.setenv("DETENT_FEATURE_REFLECTION", "false")
    monkeypatch.setenv("DETENT_FEATURE_OTLP_ENDPOINT", "")

    settings = FeatureSettings()

    assert (settings.listen, settings.artifacts_dir.name) == ("127.0.0.1:1", "artifacts")
    assert (settings.reflection, settings.otlp_endpoint) == (False, None)
    assert settings.drain_grace_s == pytest.approx(5)


def test_settings_without_artifacts_or_out_of_range_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DETENT_FEATURE_ARTIFACTS_DIR", raising=False)
    with pytest.raises(ValidationError, match="artifacts_dir"):
        FeatureSettings()
    monkeypatch.setenv("DETENT_FEATURE_ARTIFACTS_DIR", "artifacts")
    monkeypatch.setenv("DETENT_FEATURE_SYMBOLS_MAX", "0")
    with pytest.raises(ValidationError, match="symbols_max"):
        FeatureSettings()
