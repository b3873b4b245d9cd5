"""Proves that rolled rows are, to the bit and the hash, the rows that serving gives."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs
from tests.unit.core.features.market import MINUTE_MS, bar, bars_of, delayed, wave

from detent.contracts.calls.feature import ModelInput
from detent.contracts.errors import BarOutOfOrder, InvalidField
from detent.contracts.market import Bar
from detent.contracts.reasons import Reason
from detent.core.features import rolling
from detent.core.features.engine import EngineConfig
from detent.core.features.feature_set import FeatureSet, direction_bars_v1
from detent.core.features.feature_spec import FeatureTransform, Normalisation, derived, feature
from detent.core.features.offline_rows import iter_model_inputs
from detent.core.features.rolling import iter_row_blocks
from detent.offline.bars import load_bars

DATA = Path(__file__).parents[5] / "shared" / "data"
DIRECTION = direction_bars_v1(MINUTE_MS)
Row = tuple[int, bytes | None, str | None, str | None, Reason | None]


def rolled(feature_set: FeatureSet, bars: Sequence[Bar]) -> list[Row]:
    """Give the rows of all blocks, each as (time, bytes, two hashes, refusal)."""
    rows: list[Row] = []
    for block in iter_row_blocks(feature_set, bars):
        for index, refusal in enumerate(block.refusals):
            values = block.values[index]
            assert np.isnan(values).all() == (refusal is not None)
            rows.append(
                (
                    block.ts_ms[index],
                    None if refusal is not None else values.tobytes(),
                    block.features_hashes[index],
                    block.snapshot_hashes[index],
                    refusal,
                )
            )
    return rows


def served(feature_set: FeatureSet, bars: Sequence[Bar]) -> list[Row]:
    """Give the same of what live serving computes."""
    return [
        (of.ts_ms, row.values, row.features_hash, row.snapshot_hashes[0], None)
        if isinstance(row, ModelInput)
        else (of.ts_ms, None, None, None, row)
        for of, row in zip(bars, iter_model_inputs(feature_set, bars), strict=True)
    ]


def noise(count: int, *, seed: int, step: str, size: int) -> list[Bar]:
    """Give bars whose prices are whole steps, so that shares fall on rounding ties often."""
    chance = np.random.default_rng(seed)
    closes = 800 + np.cumsum(chance.integers(-size, size, count, endpoint=True))
    closes = np.maximum(closes, 3)
    spans = chance.integers(0, size, (count, 2), endpoint=True)
    return [
        bar(
            index,
            str(Decimal(int(close)) * Decimal(step)),
            high=str(Decimal(int(close + up)) * Decimal(step)),
            low=str(Decimal(max(int(close - down), 1)) * Decimal(step)),
        )
        for index, (close, (up, down)) in enumerate(zip(closes, spans, strict=True))
    ]


def a_set(*names: tuple[FeatureTransform, int | None], **engine: int) -> FeatureSet:
    """Give a feature set over bars of a minute."""
    features = tuple(feature(transform, window) for transform, window in names)
    config = EngineConfig(bar_interval_ms=MINUTE_MS, **engine)  # type: ignore[arg-type]
    return FeatureSet(name="some", features=features, engine=config)


HALVED = feature(
    FeatureTransform.RETURN_PCT,
    1,
    normalisation=Normalisation(offset=Decimal("0.25"), scale=Decimal(2)),
)
NORMALISED = structs.replace(DIRECTION, features=(HALVED,))
WINDOW = structs.replace(DIRECTION, window_rows=3)
DERIVED = structs.replace(
    DIRECTION, features=(HALVED, derived(FeatureTransform.ROLLING_MEAN, "return_pct_1"))
)
SHORT = a_set((FeatureTransform.RETURN_PCT, 1), atr_period=20, range_horizon=3)
LONG = a_set(
    (FeatureTransform.CLOSE_ZSCORE, 200),
    (FeatureTransform.NET_RETURN_PCT, None),
    (FeatureTransform.SUM_ABS_RETURNS_PCT, None),
    atr_period=2,
    range_horizon=1,
    max_bars=250,
)
SPREAD = a_set((FeatureTransform.RETURN_PCT, 2), (FeatureTransform.SPREAD_PCT, None))


@pytest.mark.parametrize(
    "feature_set", [DIRECTION, SHORT, LONG, SPREAD, NORMALISED, WINDOW, DERIVED]
)
@pytest.mark.parametrize(
    "bars",
    [
        pytest.param(wave(600), id="wave"),
        pytest.param(bars_of(["100"] * 300), id="flat"),
        pytest.param(noise(600, seed=1, step="10", size=2), id="ties"),
        pytest.param(noise(600, seed=2, step="0.00000001", size=30), id="tiny prices"),
        pytest.param(noise(300, seed=3, step="1e-13", size=30), id="an ATR that is cut"),
        pytest.param(noise(300, seed=4, step="1e17", size=30), id="huge prices"),
        pytest.param(
            noise(150, seed=5, step="0.0001", size=3)[:150]
            + [bar(index, "1e18") for index in range(150, 300)],
            id="a jump beyond 32 bits",
        ),
        pytest.param(
            noise(150, seed=6, step="0.1", size=3)
            + [bar(150 + n, "12345678901234567890.12345678901234567") for n in range(60)],
            id="sums that would be rounded",
        ),
        pytest.param(bars_of(["100"] * 10), id="warm-up only"),
        pytest.param([], id="none"),
    ],
)
def test_rolled_rows_are_the_served_rows(feature_set: FeatureSet, bars: list[Bar]) -> None:
    assert rolled(feature_set, bars) == served(feature_set, bars)


def test_ties_are_met_and_taken_from_the_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the second look some hash differs, so the bars above do meet ties."""
    bars = noise(600, seed=1, step="10", size=2)
    monkeypatch.setattr(rolling, "_snapshot", lambda *_: None)

    assert rolled(DIRECTION, bars) != served(DIRECTION, bars)


def test_blocks_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    bars = wave(300)
    whole = rolled(DIRECTION, bars)
    monkeypatch.setattr(rolling, "BLOCK_ROWS", 7)

    assert rolled(DIRECTION, bars) == whole


def test_row_does_not_know_the_bars_behind_it() -> None:
    bars = noise(200, seed=7, step="0.5", size=9)
    whole = rolled(DIRECTION, bars)

    assert all(rolled(DIRECTION, bars[:count]) == whole[:count] for count in range(1, 200, 9))


def test_bar_that_was_known_late_is_read_as_serving_reads_it() -> None:
    bars = wave(60)
    late = [delayed(one, MINUTE_MS // 2 if index == 50 else None) for index, one in enumerate(bars)]

    assert rolled(DIRECTION, late) == served(DIRECTION, late)
    assert rolled(DIRECTION, late) != rolled(DIRECTION, bars), "the delay must be seen"


def test_unusable_bars_are_the_same_typed_errors() -> None:
    bars = wave(40)
    with pytest.raises(InvalidField, match="each bar once"):
        rolled(DIRECTION, [*bars, bars[-1]])
    with pytest.raises(BarOutOfOrder):
        rolled(DIRECTION, [*bars[:-2], bars[-1], bar(0, "1", high="2")][::-1])
    with pytest.raises(InvalidField, match="symbol: found 'ETHUSDT'"):
        rolled(DIRECTION, [*bars, bar(40, "1", symbol="ETHUSDT")])
    with pytest.raises(InvalidField, match="interval_ms"):
        rolled(DIRECTION, [bar(0, "1", interval_ms=1)])


@pytest.mark.skipif(not DATA.exists(), reason="needs the market data beside the checkout")
@pytest.mark.parametrize(
    "name", ["bars_1h_coinbase_btcusd_2017_2019_vwap", "bars_1h_eurusd_ask_2017"]
)
def test_rolled_rows_of_real_bars_are_the_served_rows(name: str) -> None:
    table = load_bars(DATA / f"{name}.parquet")
    feature_set = direction_bars_v1(table.interval_ms)
    compared = 0
    for bars in table.bars.values():
        rows = rolled(feature_set, bars)
        assert rows == served(feature_set, bars)
        compared += sum(row[4] is None for row in rows)

    assert compared > 6_000
