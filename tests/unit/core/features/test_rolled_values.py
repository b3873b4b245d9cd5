"""Proves of every transform that rolled rows are the rows that serving gives, to the bit."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs
from tests.unit.core.features.market import MINUTE_MS, bar
from tests.unit.core.features.test_rolling import Row, noise, rolled, served

from detent.contracts.market import Bar
from detent.core.features import rolled_values
from detent.core.features.engine import BookConfig, EngineConfig
from detent.core.features.feature_set import FeatureSet
from detent.core.features.feature_spec import (
    BOOK_TRANSFORMS,
    FeatureSpec,
    FeatureTransform,
    Normalisation,
    caller_feature,
    derived,
    feature,
)
from detent.core.features.rolled_values import BarSeries, Stretch
from detent.core.features.rolling import iter_row_blocks

OF_OTHERS = (
    FeatureTransform.ROLLING_MEAN,
    FeatureTransform.ROLLING_STD,
    FeatureTransform.ROLLING_TREND,
    FeatureTransform.RATE_OF_CHANGE,
    FeatureTransform.LAG,
)
OVER_BARS = (
    FeatureTransform.RETURN_PCT,
    FeatureTransform.DEVIATION_PCT,
    FeatureTransform.CLOSE_ZSCORE,
    FeatureTransform.REALISED_VOL_PCT_PER_BAR,
    FeatureTransform.REALISED_VOL_PCT_PER_YEAR,
    FeatureTransform.VOLUME_ZSCORE,
    FeatureTransform.VWAP_DISTANCE_PCT,
)
WILDER = (FeatureTransform.WILDER_ATR, FeatureTransform.WILDER_NATR_PCT)
OF_ONE_BAR = (
    FeatureTransform.CLOSE,
    FeatureTransform.HIGH,
    FeatureTransform.LOW,
    FeatureTransform.VOLUME,
    FeatureTransform.FUNDING_RATE_BPS,
    FeatureTransform.NATR_PCT,
    FeatureTransform.SUM_ABS_RETURNS_PCT,
    FeatureTransform.NET_RETURN_PCT,
    FeatureTransform.RANGE_SCORE_CAPPED,
)
OF_QUOTES = (
    FeatureTransform.PRICE_MID,
    FeatureTransform.PRICE_BID,
    FeatureTransform.PRICE_ASK,
    FeatureTransform.SPREAD_BPS,
    FeatureTransform.SPREAD_PCT,
    FeatureTransform.IMBALANCE_L1,
)
# One feature of every transform of bars, over windows of several lengths.
EVERY: tuple[FeatureSpec, ...] = (
    *map(feature, OF_ONE_BAR),
    *(feature(transform, window) for transform in OVER_BARS for window in (2, 5, 13)),
    *(feature(transform, window) for transform in WILDER for window in (1, 2)),
    *(
        derived(transform, source, window_bars=window)
        for transform in OF_OTHERS
        for source, window in (("close", 2), ("close_zscore_5", 11), ("natr_pct", 4))
    ),
    derived(FeatureTransform.PRODUCT, "close", "volume"),
    derived(FeatureTransform.ROLLING_MEAN, "close_lag_2", window_bars=3),
    derived(FeatureTransform.ROLLING_STD, "close_x_volume", window_bars=6),
    feature(
        FeatureTransform.RETURN_PCT,
        7,
        normalisation=Normalisation(offset=Decimal("-0.1"), scale=Decimal("0.3")),
    ),
)
EVERY_SOURCE = (derived(FeatureTransform.LAG, "close", window_bars=2),)


def a_set(
    features: Sequence[FeatureSpec],
    *,
    window_rows: int = 1,
    atr_period: int = 4,
    range_horizon: int = 3,
) -> FeatureSet:
    """Give a feature set over bars of a minute; each feature once."""
    with_book = any(spec.transform in BOOK_TRANSFORMS for spec in features)
    return FeatureSet(
        name="some",
        features=tuple({spec.name: spec for spec in features}.values()),
        engine=EngineConfig(
            bar_interval_ms=MINUTE_MS,
            atr_period=atr_period,
            range_horizon=range_horizon,
            book=BookConfig() if with_book else None,
        ),
        window_rows=window_rows,
    )


ALL = a_set([*EVERY, *EVERY_SOURCE])


def traded(bars: Sequence[Bar], *, seed: int, absent: float = 0.0) -> list[Bar]:
    """Give bars with volumes, VWAPs and funding rates; some of them absent or 0."""
    chance = np.random.default_rng(seed)
    given_ = []
    for one in bars:
        volume = Decimal(int(chance.integers(0, 5_000))) / 1_000
        is_absent = chance.random(3) < absent
        given_.append(
            structs.replace(
                one,
                volume=Decimal(0) if is_absent[0] else volume,
                vwap=None if is_absent[1] else (one.high + one.low + one.close) / 3,
                funding_rate=None if is_absent[2] else volume / 10_000 - Decimal("0.0002"),
            )
        )
    return given_


def with_gaps(bars: Sequence[Bar], *, seed: int) -> list[Bar]:
    """Leave out a tenth of the bars."""
    kept = np.random.default_rng(seed).random(len(bars)) > 0.1
    return [one for one, keep in zip(bars, kept, strict=True) if keep]


def with_values(rows: Sequence[Row]) -> int:
    return sum(row[4] is None for row in rows)


@pytest.mark.parametrize("window_rows", [1, 4])
@pytest.mark.parametrize(
    ("step", "size"), [("0.01", 9), ("10", 2), ("0.000000001", 40), ("0.0000123456789012345", 90)]
)
@pytest.mark.proves("R315")
def test_every_transform_is_the_served_one(step: str, size: int, window_rows: int) -> None:
    bars = with_gaps(traded(noise(230, seed=3, step=step, size=size), seed=1), seed=2)
    feature_set = structs.replace(ALL, window_rows=window_rows)
    rows = rolled(feature_set, bars)

    assert rows == served(feature_set, bars)
    assert with_values(rows) > 100


def test_rows_without_hashes_are_the_same_rows() -> None:
    bars = traded(noise(300, seed=3, step="0.01", size=9), seed=1, absent=0.03)
    for hashed, bare in zip(
        iter_row_blocks(ALL, bars), iter_row_blocks(ALL, bars, hashed=False), strict=True
    ):
        assert bare.values.tobytes() == hashed.values.tobytes()
        assert (bare.ts_ms, bare.refusals) == (hashed.ts_ms, hashed.refusals)
        assert {*bare.features_hashes, *bare.snapshot_hashes} == {None}


def test_what_is_absent_is_absent_at_the_same_rows() -> None:
    bars = traded(noise(300, seed=3, step="0.01", size=9), seed=1, absent=0.03)
    rows = rolled(ALL, bars)

    assert rows == served(ALL, bars)
    assert 50 < with_values(rows) < 240, "some rows of some 260 are refused"


@pytest.mark.parametrize(
    "spec",
    [
        *map(feature, OF_QUOTES),
        *(feature(transform) for transform in sorted(BOOK_TRANSFORMS)),
        caller_feature("trend_strength"),
    ],
    ids=lambda spec: spec.name,
)
def test_what_bars_do_not_say_is_refused_as_serving_refuses_it(spec: FeatureSpec) -> None:
    bars = noise(60, seed=4, step="0.1", size=5)
    feature_set = a_set([feature(FeatureTransform.RETURN_PCT, 1), spec])
    rows = rolled(feature_set, bars)

    assert rows == served(feature_set, bars)
    assert with_values(rows) == 0


def test_jump_that_a_snapshot_refuses_is_read_as_serving_reads_it() -> None:
    """A jump that a later row sees from a window too short for the range is no refusal there."""
    calm = noise(120, seed=5, step="0.0001", size=3)
    bars = [*calm[:60], *(bar(index, "1e18") for index in range(60, 120))]
    features = [derived(FeatureTransform.LAG, "natr_pct", window_bars=n) for n in (1, 6)]
    feature_set = a_set(
        [feature(FeatureTransform.NATR_PCT), *features], atr_period=1, range_horizon=9
    )
    rows = rolled(feature_set, bars)

    assert rows == served(feature_set, bars)
    assert with_values(rows) < with_values(rolled(feature_set, calm))


def test_values_beyond_floats_are_read_as_serving_reads_them() -> None:
    """What is infinite is there: only a row that shows it is refused."""
    names = ["close"]
    for _ in range(3):
        names.append(f"{names[-1]}_x_{names[-1]}")
    products = [derived(FeatureTransform.PRODUCT, name, name) for name in names[:-1]]
    lag = derived(FeatureTransform.LAG, names[-1], window_bars=4)
    feature_set = a_set([*products, lag], atr_period=1, range_horizon=1)
    bars = [bar(n, "1e39" if n in (20, 33) else "123") for n in range(40)]
    rows = rolled(feature_set, bars)

    assert rows == served(feature_set, bars)
    assert rows[22][4] is None, "a lag is there although the window holds what is infinite"


def planted(transform: FeatureTransform) -> FeatureSet:
    """Give the set of all features of one transform, with what they are made of."""
    specs = [spec for spec in ALL.features if spec.transform is transform]
    sources = [ALL.specs[name] for spec in specs for name in spec.sources]
    further = [ALL.specs[name] for spec in sources for name in spec.sources]
    return a_set([*specs, *sources, *further])


@pytest.mark.parametrize("bars_ahead", [-1, 1])
@pytest.mark.parametrize("transform", sorted({spec.transform for spec in EVERY}))
@pytest.mark.proves("R315")
def test_planted_shift_by_one_bar_is_detected(
    transform: FeatureTransform, bars_ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value that knows the next bar, or not yet the newest, makes other rows."""
    bars = traded(noise(200, seed=6, step="0.01", size=60), seed=6)
    feature_set = planted(transform)
    assert rolled(feature_set, bars) == served(feature_set, bars)
    computed = rolled_values._OF[transform]

    def shifted(on: Stretch, spec: FeatureSpec, first: int) -> rolled_values.Floats:
        return np.roll(computed(on, spec, first), -bars_ahead)

    monkeypatch.setitem(rolled_values._OF, transform, shifted)
    assert rolled(feature_set, bars) != served(feature_set, bars)


def test_planted_reading_of_the_next_bar_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of the bars so far change once the series of returns looks ahead."""
    bars = traded(noise(200, seed=6, step="0.01", size=60), seed=6)
    whole = rolled(ALL, bars)
    assert rolled(ALL, bars[:150]) == whole[:150]
    honest = BarSeries.__init__

    def leaking(self: BarSeries, columns: rolled_values.BarColumns) -> None:
        honest(self, columns)
        self.steps = np.append(self.steps[1:], 0.0)

    monkeypatch.setattr(BarSeries, "__init__", leaking)
    assert rolled(ALL, bars[:150]) != rolled(ALL, bars)[:150]


WINDOWS = st.integers(2, 9)


@st.composite
def feature_sets(draw: st.DrawFn) -> FeatureSet:
    """Draw a set of any transforms of bars, some of them made of others."""
    normalisations = st.none() | st.builds(
        Normalisation,
        offset=st.decimals("-10", "10", places=3),
        scale=st.decimals("0.001", "100", places=3),
    )
    one = st.sampled_from(OF_ONE_BAR).map(feature)
    over = st.builds(feature, st.sampled_from(OVER_BARS), WINDOWS)
    wilder = st.builds(feature, st.sampled_from(WILDER), st.integers(1, 2))
    specs = draw(st.lists(one | over | wilder, min_size=1, max_size=5))
    for _ in range(draw(st.integers(0, 5))):
        names = st.sampled_from([spec.name for spec in specs] + ["close", "volume", "high"])
        if draw(st.booleans()):
            specs.append(derived(FeatureTransform.PRODUCT, draw(names), draw(names)))
        else:
            transform = draw(st.sampled_from(OF_OTHERS))
            specs.append(derived(transform, draw(names), window_bars=draw(WINDOWS)))
    return a_set(
        [structs.replace(spec, normalisation=draw(normalisations)) for spec in specs],
        window_rows=draw(st.integers(1, 5)),
        atr_period=draw(st.integers(1, 6)),
        range_horizon=draw(st.integers(1, 6)),
    )


@given(
    feature_set=feature_sets(),
    seed=st.integers(0, 2**32 - 1),
    step=st.sampled_from(["0.01", "1", "25", "0.00000001", "1e-13", "1e15"]),
    size=st.integers(0, 60),
    absent=st.sampled_from([0.0, 0.02]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.proves("R315")
def test_any_set_over_any_bars_gives_the_served_rows(
    feature_set: FeatureSet, seed: int, step: str, size: int, absent: float
) -> None:
    bars = noise(130, seed=seed, step=step, size=size)
    bars = with_gaps(traded(bars, seed=seed, absent=absent), seed=seed)

    assert rolled(feature_set, bars) == served(feature_set, bars)
