"""Proves how a strategist's own features reach the model input, and what is refused."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from tests.service.test_feature_handler import ask, call_for, ingest
from tests.unit.core.features.market import MINUTE_MS, SYMBOL, close_ms, wave

from detent.contracts.caller_feature import CallerFeature
from detent.contracts.calls.feature import (
    CallerFeatures,
    GetFeatureSnapshotsRequest,
    GetFeatureSnapshotsResponse,
    SnapshotView,
)
from detent.contracts.errors import InvalidField
from detent.contracts.reasons import Reason
from detent.contracts.wire import from_wire, to_wire
from detent.core.features.engine import EngineConfig
from detent.core.features.feature_set import FeatureSet, direction_bars_v1
from detent.core.features.feature_spec import (
    FeatureTransform,
    Normalisation,
    caller_feature,
    derived,
    feature,
)
from detent.core.features.offline_rows import iter_model_inputs
from detent.servers.feature.handler import FUTURE_MS_MAX, FeatureHandler

PLAIN, POSITIONED = "a" * 64, "b" * 64
DIRECTION = direction_bars_v1(MINUTE_MS)
WITH_POSITION = FeatureSet(
    name="with_position",
    features=(
        feature(FeatureTransform.RETURN_PCT, 1),
        caller_feature(
            "position_size",
            normalisation=Normalisation(offset=Decimal(0), scale=Decimal(4)),
        ),
        caller_feature("grid_levels_active"),
        derived(FeatureTransform.PRODUCT, "position_size", "return_pct_1"),
    ),
    engine=EngineConfig(bar_interval_ms=MINUTE_MS),
)
POSITION = ("position_size", "-2.5")
GRID = ("grid_levels_active", "7")


def said_of(symbol: str, *said: tuple[str, str]) -> CallerFeatures:
    features = tuple(CallerFeature(name=name, value=Decimal(value)) for name, value in said)
    return CallerFeatures(symbol=symbol, features=features)


def query_of(*said: CallerFeatures, **changes: Any) -> GetFeatureSnapshotsRequest:
    asked = {
        "binding_hash": POSITIONED,
        "as_of_ts_ms": close_ms(9),
        "symbols": (SYMBOL,),
        "view": SnapshotView.INPUT,
    }
    return GetFeatureSnapshotsRequest(**{**asked, **changes}, caller_features=said)


@pytest.fixture(name="handler")
async def _handler() -> FeatureHandler:
    handler = FeatureHandler({PLAIN: DIRECTION, POSITIONED: WITH_POSITION})
    await ingest(handler, wave(30))
    return handler


async def answered(
    handler: FeatureHandler, query: GetFeatureSnapshotsRequest
) -> GetFeatureSnapshotsResponse:
    return await handler.get_feature_snapshots(query, call_for(1))


@pytest.mark.proves("R315")
async def test_service_gives_what_training_would_with_the_same_words(
    handler: FeatureHandler,
) -> None:
    words = {
        one.ts_ms: {"position_size": Decimal(index - 4), "grid_levels_active": Decimal(index)}
        for index, one in enumerate(wave(30))
    }
    offline = iter_model_inputs(WITH_POSITION, wave(30), caller_values=words)

    for one, expected in zip(wave(30), offline, strict=True):
        said = said_of(SYMBOL, *((name, str(said)) for name, said in words[one.ts_ms].items()))
        (row,) = (await answered(handler, query_of(said, as_of_ts_ms=one.ts_ms))).rows
        assert (row.model_input or row.refusal) == expected


@pytest.mark.proves("R34")
async def test_order_in_which_a_caller_lists_its_features_does_not_matter(
    handler: FeatureHandler,
) -> None:
    there = await answered(handler, query_of(said_of(SYMBOL, POSITION, GRID)))
    back = await answered(handler, query_of(said_of(SYMBOL, GRID, POSITION)))

    assert there.rows[0].model_input is not None
    assert there == back


@pytest.mark.parametrize(
    "said", [(), (said_of(SYMBOL, POSITION),), (said_of(SYMBOL, GRID),)], ids=len
)
async def test_caller_feature_that_is_not_said_is_missing_and_never_zero(
    handler: FeatureHandler, said: Sequence[CallerFeatures]
) -> None:
    (row,) = (await answered(handler, query_of(*said))).rows

    assert row.refusal is Reason.FEATURES_MISSING


async def test_words_on_one_symbol_serve_no_other(handler: FeatureHandler) -> None:
    await ingest(handler, wave(30, symbol="ETHUSDT"))
    query = query_of(said_of("ETHUSDT", POSITION, GRID), symbols=(SYMBOL, "ETHUSDT"))

    mine, other = (await answered(handler, query)).rows

    assert mine.refusal is Reason.FEATURES_MISSING
    assert other.model_input is not None


async def test_words_are_hashed_with_the_input(handler: FeatureHandler) -> None:
    one = await answered(handler, query_of(said_of(SYMBOL, POSITION, GRID)))
    other = await answered(handler, query_of(said_of(SYMBOL, ("position_size", "-2.6"), GRID)))

    assert one.rows[0].model_input is not None
    assert other.rows[0].model_input is not None
    assert one.rows[0].model_input.features_hash != other.rows[0].model_input.features_hash


@pytest.mark.proves("R45")
@pytest.mark.parametrize(
    ("binding_hash", "extra"),
    [
        pytest.param(POSITIONED, ("position_notional", "1"), id="undeclared"),
        pytest.param(POSITIONED, ("return_pct_1", "1"), id="one that the bars provide"),
        pytest.param(PLAIN, POSITION, id="a set without any"),
    ],
)
async def test_extra_that_nobody_declared_is_refused(
    handler: FeatureHandler, binding_hash: str, extra: tuple[str, str]
) -> None:
    said = [POSITION, GRID, extra] if binding_hash == POSITIONED else [extra]

    with pytest.raises(InvalidField) as caught:
        await answered(handler, query_of(said_of(SYMBOL, *said), binding_hash=binding_hash))

    assert caught.value.field == f"caller_features[0].features[{len(said) - 1}].name"


@pytest.mark.parametrize(
    ("said", "field"),
    [
        pytest.param([("ETHUSDT", (GRID,))], "caller_features[0].symbol", id="not asked for"),
        pytest.param([(SYMBOL, (GRID,)), (SYMBOL, (POSITION,))], "caller_features", id="twice"),
        pytest.param([(SYMBOL, ())], "features", id="says nothing"),
        pytest.param([(SYMBOL, (GRID, GRID))], "features", id="one thing twice"),
        pytest.param([(SYMBOL, (("", "1"),))], "name", id="no name"),
        pytest.param([(SYMBOL, (("x", "NaN"),))], "value", id="no number"),
        pytest.param([(SYMBOL, (("x", "1E+99"),))], "value", id="too large"),
        pytest.param([("btc", (GRID,))], "symbol", id="no symbol"),
    ],
)
def test_words_that_say_nothing_certain_are_refused(
    said: list[tuple[str, tuple[tuple[str, str], ...]]], field: str
) -> None:
    with pytest.raises(InvalidField) as caught:
        query_of(*(said_of(symbol, *words) for symbol, words in said))

    assert caught.value.field == field


@pytest.mark.parametrize("value", ["1e3", "+1", "0x1", "", "NaN", "1" * 41])
def test_words_on_the_wire_are_plain_decimals(value: str) -> None:
    message = to_wire(query_of(said_of(SYMBOL, GRID)))
    message.caller_features[0].features[0].value = value

    with pytest.raises(InvalidField) as caught:
        from_wire(GetFeatureSnapshotsRequest, message)

    assert caught.value.field == "caller_features[0].features[0].value"


@pytest.mark.proves("R40")
@pytest.mark.parametrize("shift_ms", [0, 86_400_000, 400 * 86_400_000])
async def test_another_wall_clock_gives_the_same_inputs(
    handler: FeatureHandler, shift_ms: int
) -> None:
    """The clock refuses data from the future, and reaches no feature."""
    shifted = FeatureHandler(
        {PLAIN: DIRECTION, POSITIONED: WITH_POSITION},
        now_ms=lambda: close_ms(29) - FUTURE_MS_MAX + shift_ms,
    )
    await ingest(shifted, wave(30))

    query = query_of(said_of(SYMBOL, POSITION, GRID))
    assert await answered(shifted, query) == await answered(handler, query)
    assert await ask(shifted, close_ms(29)) == await ask(handler, close_ms(29))
