"""Proves the rows of a model input: windows, normalisation, and features made of others."""

import math
import struct
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from msgspec import structs
from tests.unit.core.features.market import (
    MINUTE_MS,
    READY_MADE,
    SYMBOL,
    bar,
    book,
    close_ms,
    quote,
    wave,
)

from detent.contracts.calls.feature import ModelInput, SnapshotView
from detent.contracts.market import Bar, Quote
from detent.contracts.reasons import Reason
from detent.core.features.engine import BookConfig
from detent.core.features.feature_set import FeatureSet, direction_bars_v1
from detent.core.features.feature_spec import (
    FeatureSpec,
    FeatureTransform,
    Normalisation,
    derived,
    feature,
)
from detent.core.features.history import SymbolHistory
from detent.core.features.model_input import build_model_input
from detent.core.features.offline_rows import iter_model_inputs

RETURN = feature(FeatureTransform.RETURN_PCT, 1)
NATR = feature(FeatureTransform.NATR_PCT)
SPREAD = feature(FeatureTransform.SPREAD_PCT)
IMBALANCE = feature(FeatureTransform.IMBALANCE_L1)
BEFORE_WINDOWS = (
    "dc69853ec1a1b5bf70f500c1d4359fbf70141fc03a7c6e40762383406693b8bfe17a7440f6283b42cdcc4c3d"
)


def set_of(*features: FeatureSpec, **changes: Any) -> FeatureSet:
    return FeatureSet(name="some", features=features, engine=READY_MADE, **changes)


def outcomes(feature_set: FeatureSet, events: Sequence[Bar | Quote]) -> list[ModelInput | Reason]:
    """Read the input at the close of every bar, as it becomes known."""
    history, found = SymbolHistory(SYMBOL, feature_set.engine), []
    for event in events:
        if isinstance(event, Quote):
            history.add_quote(event)
        else:
            history.add_bar(event)
            found.append(
                build_model_input(
                    feature_set, history, as_of_ts_ms=event.ts_ms, view=SnapshotView.INPUT
                )
            )
    return found


def rows_of(outcome: ModelInput | Reason) -> list[float]:
    assert isinstance(outcome, ModelInput), outcome
    return list(struct.unpack(f"<{len(outcome.values) // 4}f", outcome.values))


def quoted(count: int) -> list[Bar | Quote]:
    """Give bars, each with a quote of its own shortly before its close."""
    events: list[Bar | Quote] = []
    for index, one in enumerate(wave(count)):
        spread, size = Decimal(index % 5 + 1) / 10, str(1 + index % 3)
        mid = one.close
        events.append(
            quote(one.ts_ms - 5, str(mid - spread), str(mid + spread), bid_qty=size, ask_qty="2")
        )
        events.append(one)
    return events


@pytest.mark.proves("R161")
def test_several_rows_are_the_single_rows_oldest_first() -> None:
    single = set_of(RETURN, NATR, SPREAD, feature(FeatureTransform.VOLUME_ZSCORE, 5))
    window = structs.replace(single, window_rows=8)
    events = quoted(60)

    one_by_one, together = outcomes(single, events), outcomes(window, events)

    assert window.warmup_bars_min == single.warmup_bars_min + 7 == 22
    for index, outcome in enumerate(together):
        if index + 1 < window.warmup_bars_min:
            assert outcome is Reason.FEATURES_WARMING_UP
        else:
            expected = [rows_of(row) for row in one_by_one[index - 7 : index + 1]]
            assert rows_of(outcome) == [value for row in expected for value in row]


@pytest.mark.proves("R161")
def test_sixty_four_rows_of_twelve_features_fit_the_artifact() -> None:
    twelve = (*direction_bars_v1(MINUTE_MS).features, NATR)
    window = set_of(*dict.fromkeys(twelve), SPREAD, window_rows=64)

    assert len(window.features) == 12
    assert len(window.input_names) == 768
    assert window.input_names[:2] == ("return_pct_1@63", "return_pct_3@63")
    assert window.input_names[-1] == "spread_pct@0"
    assert len(set(window.input_names)) == 768
    assert len(rows_of(outcomes(window, quoted(88))[-1])) == 768


@pytest.mark.proves("R161")
def test_one_row_is_what_it_was_before_there_were_several() -> None:
    """The bytes that direction artifacts were trained on, from the commit before windows."""
    feature_set = direction_bars_v1(MINUTE_MS)

    newest = list(iter_model_inputs(feature_set, wave(60)))[-1]

    assert feature_set.input_names == feature_set.feature_names
    assert isinstance(newest, ModelInput)
    assert newest.values.hex() == BEFORE_WINDOWS


@pytest.mark.proves("R155")
def test_normalisation_is_the_last_step() -> None:
    how = Normalisation(offset=Decimal("-0.5"), scale=Decimal("0.25"))
    plain = set_of(RETURN, derived(FeatureTransform.LAG, RETURN.name, window_bars=1))
    scaled = set_of(
        structs.replace(RETURN, normalisation=how),
        structs.replace(plain.features[1], normalisation=how),
    )
    bars = wave(10)

    before, after = rows_of(outcomes(plain, bars)[-1]), rows_of(outcomes(scaled, bars)[-1])

    # A lag of a normalised feature reads the value as it is, so nothing is scaled twice.
    assert after == pytest.approx([(value + 0.5) / 0.25 for value in before], rel=1e-6)


@pytest.mark.proves("R156")
@pytest.mark.parametrize("source", ["close", "volume", "natr_pct", "return_pct_1"])
def test_rolling_features_agree_with_numpy_over_single_rows(source: str) -> None:
    bars = [structs.replace(one, volume=Decimal(n * n % 17)) for n, one in enumerate(wave(60))]
    columns = [feature(FeatureTransform.CLOSE), feature(FeatureTransform.VOLUME), NATR, RETURN]
    plain = set_of(*columns)
    place = plain.feature_names.index(source)
    rolling = set_of(
        *columns,
        *(
            derived(transform, source)
            for transform in (
                FeatureTransform.ROLLING_MEAN,
                FeatureTransform.ROLLING_STD,
                FeatureTransform.ROLLING_TREND,
            )
        ),
    )

    singles, found = outcomes(plain, bars), outcomes(rolling, bars)

    for index in range(23, 60):
        past = [rows_of(row)[place] for row in singles[index - 9 : index + 1]]
        slope = np.polyfit(np.arange(10), past, 1)[0]
        expected = [np.mean(past), np.std(past), slope]
        assert rows_of(found[index])[-3:] == pytest.approx(expected, rel=1e-5, abs=1e-4)


@pytest.mark.proves("R156")
def test_fewer_than_ten_points_are_a_warm_up_and_never_zero() -> None:
    rolling = set_of(derived(FeatureTransform.ROLLING_MEAN, "close"))

    found = outcomes(rolling, wave(10))

    assert found[:9] == [Reason.FEATURES_WARMING_UP] * 9
    assert rows_of(found[9])[0] > 0


@pytest.mark.proves("R156")
def test_a_point_that_is_absent_makes_the_rolling_value_absent() -> None:
    """Ten bars are there, but one of them closed before the first quote."""
    rolling = set_of(SPREAD, derived(FeatureTransform.ROLLING_MEAN, "spread_pct"))
    events = [event for event in quoted(12) if isinstance(event, Bar) or event.ts_ms > close_ms(0)]

    found = outcomes(rolling, events)

    assert found[9] is Reason.FEATURES_MISSING
    assert isinstance(found[10], ModelInput)


@pytest.mark.proves("R157")
def test_rate_of_change_after_zero_is_missing() -> None:
    changing = set_of(derived(FeatureTransform.RATE_OF_CHANGE, "volume", window_bars=1))
    bars = [
        structs.replace(bar(index, "100"), volume=Decimal(volume))
        for index, volume in enumerate((4, 5, 0, 7))
    ]

    first, second, third, fourth = outcomes(changing, bars)

    assert first is Reason.FEATURES_WARMING_UP
    assert (rows_of(second), rows_of(third)) == ([0.25], [-1.0])
    assert fourth is Reason.FEATURES_MISSING


@pytest.mark.proves("R158")
def test_interactions_are_products_of_their_parts() -> None:
    features = (SPREAD, NATR, IMBALANCE, feature(FeatureTransform.VOLUME))
    pairs = (("spread_pct", "natr_pct"), ("imbalance_l1", "volume"))
    crossed = set_of(*features, *(derived(FeatureTransform.PRODUCT, *pair) for pair in pairs))

    found = outcomes(crossed, quoted(40))

    assert crossed.feature_names[4:] == ("spread_pct_x_natr_pct", "imbalance_l1_x_volume")
    for outcome in found[14:]:
        spread, natr, imbalance, volume, one, other = rows_of(outcome)
        assert one == pytest.approx(spread * natr, rel=1e-6)
        assert other == pytest.approx(imbalance * volume, rel=1e-6)


@pytest.mark.proves("R158")
def test_an_interaction_has_the_stored_values() -> None:
    """Spread 0.1 % by volume 4, and imbalance (3 - 1) / 4 by close 100."""
    crossed = set_of(
        SPREAD,
        IMBALANCE,
        derived(FeatureTransform.PRODUCT, "spread_pct", "volume"),
        derived(FeatureTransform.PRODUCT, "imbalance_l1", "close"),
    )
    events = [
        quote(close_ms(0) - 1, "99.95", "100.05", bid_qty="3", ask_qty="1"),
        structs.replace(bar(0, "100"), volume=Decimal(4)),
    ]

    assert rows_of(outcomes(crossed, events)[0]) == pytest.approx([0.1, 0.5, 0.4, 50.0])


def test_features_of_features_nest() -> None:
    """The slope of a lagged return: 10 points, each 2 bars behind, each of 2 closes."""
    lagged = derived(FeatureTransform.LAG, "return_pct_1", window_bars=2)
    nested = set_of(RETURN, lagged, derived(FeatureTransform.ROLLING_TREND, lagged.name))
    returns = [rows_of(row)[0] for row in outcomes(set_of(RETURN), wave(40))[1:]]

    found = outcomes(nested, wave(40))

    assert nested.feature_names[2] == "return_pct_1_lag_2_trend_10"
    assert nested.warmup_bars_min == 13
    assert rows_of(found[-1])[1] == returns[-3]
    slope = np.polyfit(np.arange(10), returns[-12:-2], 1)[0]
    assert rows_of(found[-1])[2] == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize(
    ("transform", "window_bars"),
    [(FeatureTransform.VWAP_DISTANCE_PCT, 2), (FeatureTransform.FUNDING_RATE_BPS, None)],
)
def test_what_the_source_does_not_say_is_missing(
    transform: FeatureTransform, window_bars: int | None
) -> None:
    feature_set = set_of(feature(transform, window_bars))
    told = [
        structs.replace(one, vwap=one.close, funding_rate=Decimal("-0.0003")) for one in wave(5)
    ]

    assert outcomes(feature_set, wave(5))[-1] is Reason.FEATURES_MISSING
    assert math.isfinite(rows_of(outcomes(feature_set, told)[-1])[0])


def test_quote_prices_are_those_of_the_last_quote_before_the_instant() -> None:
    prices = set_of(
        *(
            feature(transform)
            for transform in (
                FeatureTransform.PRICE_MID,
                FeatureTransform.PRICE_BID,
                FeatureTransform.PRICE_ASK,
                FeatureTransform.SPREAD_BPS,
            )
        )
    )
    events = [quote(close_ms(0) - 1, "99.5", "100.5"), quote(close_ms(0), "1", "3"), bar(0, "100")]

    assert rows_of(outcomes(prices, events)[0]) == [100.0, 99.5, 100.5, 100.0]
    assert outcomes(prices, [bar(0, "100")]) == [Reason.FEATURES_MISSING]


def test_sum_beyond_what_a_float_holds_is_missing() -> None:
    squared = derived(FeatureTransform.PRODUCT, "close", "close")
    chain = [squared]
    for _ in range(3):
        chain.append(derived(FeatureTransform.PRODUCT, chain[-1].name, "close"))
    huge = set_of(
        *chain[:-1],
        *(derived(FeatureTransform.ROLLING_MEAN, one.name, window_bars=2) for one in chain[:-1]),
    )

    assert outcomes(huge, [bar(n, "9" * 39) for n in range(3)])[-1] is Reason.FEATURES_MISSING


@pytest.mark.proves("R158")
def test_order_flow_by_depth_is_the_product_of_quote_and_book() -> None:
    crossed = FeatureSet(
        name="crossed",
        features=(
            IMBALANCE,
            feature(FeatureTransform.DEPTH_IMBALANCE),
            derived(FeatureTransform.PRODUCT, "imbalance_l1", "depth_imbalance"),
        ),
        engine=structs.replace(READY_MADE, book=BookConfig()),
    )
    history = SymbolHistory(SYMBOL, crossed.engine)
    for event in (
        quote(close_ms(0) - 9, bid_qty="3", ask_qty="1"),
        book(close_ms(0) - 8),
        bar(0, "100"),
        book(close_ms(0)),
    ):
        history.add(event)

    outcome = build_model_input(crossed, history, as_of_ts_ms=close_ms(0), view=SnapshotView.INPUT)

    imbalance, depth, product = rows_of(outcome)
    assert abs(depth) > 0
    assert product == pytest.approx(imbalance * depth, rel=1e-6)
