"""Proves features of bars against TA-Lib's and pandas' published values, and against numpy."""

import json
import math
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from tests.unit.core.features.market import bar, bars_of, wave

from detent.contracts.market import Bar
from detent.core.features.feature_spec import WILDER_PERIODS
from detent.core.features.transforms.bar_values import (
    YEAR_MS,
    funding_rate_bps,
    realised_vol_pct_per_bar,
    realised_vol_pct_per_year,
    true_ranges,
    volume_zscore,
    vwap_distance_pct,
    wilder_atr,
    wilder_natr_pct,
)

REFERENCE = Path(__file__).parents[6] / "shared" / "reference" / "quant" / "finance.json"


def fixture(name: str) -> dict[str, Any]:
    if not REFERENCE.is_file():
        pytest.skip("the shared reference values are not here")
    fixtures: list[dict[str, Any]] = json.loads(REFERENCE.read_text())["fixtures"]
    return next(found for found in fixtures if found["id"] == name)


def traded(volumes: Sequence[str], *, vwaps: Sequence[str | None] | None = None) -> list[Bar]:
    prices = vwaps or [None] * len(volumes)
    return [
        structs.replace(
            bar(index, "100"),
            volume=Decimal(volume),
            vwap=None if vwap is None else Decimal(vwap),
        )
        for index, (volume, vwap) in enumerate(zip(volumes, prices, strict=True))
    ]


@pytest.mark.parametrize("index", range(120))
def test_wilder_agrees_with_ta_lib(index: int) -> None:
    found = fixture("atr_14")
    inputs, expected, period = found["inputs"], found["expected"], found["inputs"]["period"]
    bars = [
        bar(n, repr(inputs["close"][n]), high=repr(inputs["high"][n]), low=repr(inputs["low"][n]))
        for n in range(index + 1)
    ]

    atr, natr_pct = wilder_atr(bars, period), wilder_natr_pct(bars, period)

    if expected["atr"][index] == "NaN":
        assert (atr, natr_pct) == (None, None)
    else:
        assert atr == pytest.approx(expected["atr"][index], rel=0, abs=found["tol"])
        assert natr_pct == pytest.approx(expected["natr_pct"][index], rel=0, abs=found["tol"])
        assert true_ranges(bars)[-1] == pytest.approx(
            expected["trange"][index], rel=0, abs=found["tol"]
        )


def test_wilder_forgets_what_lies_before_its_periods() -> None:
    """A fixed start makes a restarted service agree with one that ran for years."""
    bars = wave(900)
    whole = wilder_atr(bars, 14)
    fixed = wilder_atr(bars[-WILDER_PERIODS * 14 - 1 :], 14)

    assert whole is not None
    assert fixed == pytest.approx(whole, rel=1e-8)
    assert wilder_atr(bars[-15:], 14) != pytest.approx(whole, rel=1e-3)


def test_realised_volatility_agrees_with_pandas() -> None:
    found = fixture("vol_target")
    returns, window = found["inputs"]["returns"], found["inputs"]["window"]
    closes = [100.0]
    for step in returns:
        closes.append(closes[-1] * (1 + step))
    bars = bars_of([f"{close:.30f}" for close in closes])
    annual = math.sqrt(found["inputs"]["periods_per_year"])

    for index, expected in enumerate(found["expected"]["vol_hat"]):
        if expected != "NaN":
            newest = bars[index + 1 - window : index + 2]
            per_year = realised_vol_pct_per_bar(newest, window) / 100 * annual
            assert per_year == pytest.approx(expected, rel=0, abs=found["tol"])


@pytest.mark.parametrize(
    ("interval_ms", "bars_per_year"),
    [(86_400_000, 365), (3_600_000, 8_760), (60_000, 525_600), (YEAR_MS, 1)],
)
def test_volatility_per_year_grows_with_the_root_of_the_bars(
    interval_ms: int, bars_per_year: int
) -> None:
    bars = [structs.replace(one, interval_ms=interval_ms) for one in wave(21)]

    per_bar = realised_vol_pct_per_bar(bars, 20)

    assert per_bar > 0
    assert realised_vol_pct_per_year(bars, 20) == per_bar * math.sqrt(bars_per_year)


@given(st.lists(st.integers(50, 150), min_size=3, max_size=30))
def test_realised_volatility_agrees_with_numpy(closes: list[int]) -> None:
    prices = np.array(closes, dtype=np.float64)
    expected = np.std(np.diff(prices) / prices[:-1], ddof=1) * 100

    found = realised_vol_pct_per_bar(bars_of([str(close) for close in closes]), len(closes) - 1)

    assert found == pytest.approx(float(expected), rel=1e-9, abs=1e-12)


@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=40))
def test_volume_zscore_agrees_with_numpy(volumes: list[int]) -> None:
    found = volume_zscore(traded([str(one) for one in volumes]), len(volumes))

    deviation = float(np.std(volumes))
    expected = (volumes[-1] - float(np.mean(volumes))) / deviation if deviation else 0.0
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("volume", ["0", "0.1", "3"])
def test_even_trade_has_a_volume_score_of_zero(volume: str) -> None:
    assert volume_zscore(traded([volume] * 49), 49) == 0.0


def test_vwap_distance_weighs_the_bars_by_volume() -> None:
    """(1 x 80 + 3 x 96) / 4 = 92; 100 / 92 - 1 = 8.695652 %."""
    bars = traded(["1", "3"], vwaps=["80", "96"])

    assert vwap_distance_pct(bars, 2) == pytest.approx(100 * 8 / 92)
    assert vwap_distance_pct(bars[1:], 1) == pytest.approx(100 * 4 / 96)


@pytest.mark.parametrize(
    "bars",
    [
        pytest.param(traded(["1", "1"], vwaps=["100", None]), id="a bar without VWAP"),
        pytest.param(traded(["0", "0"], vwaps=["100", "100"]), id="nothing traded"),
    ],
)
def test_vwap_distance_is_absent_and_never_zero(bars: list[Bar]) -> None:
    assert vwap_distance_pct(bars, 2) is None


@pytest.mark.parametrize(("rate", "expected"), [("0.0001", 1.0), ("-0.00025", -2.5), ("0", 0.0)])
def test_funding_is_in_basis_points_of_either_sign(rate: str, expected: float) -> None:
    funded = structs.replace(bar(0, "100"), funding_rate=Decimal(rate))

    assert funding_rate_bps(funded) == pytest.approx(expected)
    assert funding_rate_bps(bar(0, "100")) is None
