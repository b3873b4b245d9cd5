"""Proves the measures of an equity curve against independent values and on paper."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import HOUR_MS, START_MS

from detent.contracts.errors import InvalidField
from detent.core.evaluation.equity import (
    EquityCurve,
    bar_returns,
    bar_turnover,
    churn_per_day,
    direction_flips,
    drawdowns,
    max_drawdown,
    periods_in_year,
    pnl_volatility,
    sharpe,
    slippage_bps,
    sortino,
    turnover_per_day,
)

REFERENCE = Path(__file__).parents[5] / "shared" / "reference" / "quant" / "finance.json"


def reference(name: str) -> dict[str, Any]:
    if not REFERENCE.exists():
        pytest.skip("no reference values beside this checkout")
    fixtures = json.loads(REFERENCE.read_text())["fixtures"]
    found: dict[str, Any] = next(one for one in fixtures if one["id"] == name)
    return found


def curve(equity: list[float], **columns: list[float]) -> EquityCurve:
    count = len(equity)
    given = {"traded": [0.0], "fees": [0.0], "slippage": [0.0], "trades": [0]} | columns
    filled = {
        name: np.resize(np.array(values, dtype=np.int64 if name == "trades" else float), count)
        for name, values in given.items()
    }
    ts_ms = START_MS + HOUR_MS * np.arange(count, dtype=np.int64)
    return EquityCurve(ts_ms=ts_ms, equity=np.array(equity), **filled)


def test_ratios_and_drawdown_equal_an_independent_library() -> None:
    found = reference("performance")
    returns = np.array(found["inputs"]["returns"])
    expected, periods = found["expected"], found["inputs"]["periods_per_year"]

    assert sharpe(returns, periods) == pytest.approx(expected["sharpe"], abs=1e-9)
    assert sortino(returns, periods) == pytest.approx(expected["sortino"], abs=1e-9)
    assert max_drawdown(returns) == pytest.approx(expected["max_drawdown"], abs=1e-9)
    assert pnl_volatility(returns, periods) == pytest.approx(expected["annual_vol"], abs=1e-9)


def test_turnover_equals_the_drift_adjusted_reference() -> None:
    """An account that is moved to the reference's weights turns over what the reference says."""
    found = reference("turnover")
    weights = np.array(found["inputs"]["weights"])
    returns = np.array(found["inputs"]["asset_returns"])
    held, value = np.zeros(weights.shape[1]), 1_000.0
    traded, equity = [], []
    for target, moved in zip(
        weights, np.vstack([np.zeros_like(returns[:1]), returns[:-1]]), strict=True
    ):
        held = held * (1.0 + moved)
        value = value + float(np.sum(held * moved / (1.0 + moved)))
        traded.append(float(np.sum(np.abs(target * value - held))))
        held = target * value
        equity.append(value)
    found_turnover = bar_turnover(curve(equity, traded=traded))

    expected = found["expected"]["turnover_drift_adjusted"]
    assert found_turnover == pytest.approx(expected, abs=1e-12)


def test_flips_equal_the_reference() -> None:
    found = reference("turnover")

    flips = direction_flips(np.array(found["inputs"]["weights"]))

    assert flips == found["expected"]["direction_flips"]


def test_the_start_is_a_peak() -> None:
    """A fall on the first bar is a drawdown, and what the first orders cost is one too."""
    fallen = curve([990.0, 1_000.0, 900.0], fees=[10.0, 0.0, 0.0])

    assert fallen.starting_equity == 1_000.0
    assert bar_returns(fallen) == pytest.approx([-0.01, 10 / 990, -0.1])
    assert drawdowns(bar_returns(fallen)) == pytest.approx([-0.01, 0.0, -0.1])
    assert max_drawdown(bar_returns(fallen)) == pytest.approx(-0.1)


def test_costs_and_counts_are_per_notional_and_per_day() -> None:
    moved = curve(
        [990.0] * 24,
        traded=[1_000.0] + [0.0] * 23,
        fees=[8.0] + [0.0] * 23,
        slippage=[2.0] + [0.0] * 23,
        trades=[3] + [0] * 23,
    )

    assert slippage_bps(moved) == pytest.approx(20.0)
    assert turnover_per_day(moved, HOUR_MS) == pytest.approx(1.0)
    assert churn_per_day(moved, HOUR_MS) == pytest.approx(3.0)
    assert periods_in_year(HOUR_MS) == 8_760.0


def test_what_is_not_defined_is_nan() -> None:
    flat = bar_returns(curve([100.0, 100.0, 100.0]))

    assert math.isnan(sharpe(flat, 365.0))
    assert math.isnan(sharpe(np.full(5, 0.1), 365.0))
    assert math.isnan(sortino(np.array([0.1, 0.2]), 365.0))
    assert math.isnan(pnl_volatility(np.array([0.1]), 365.0))
    assert math.isnan(slippage_bps(curve([100.0])))
    assert max_drawdown(np.array([])) == 0.0


@pytest.mark.parametrize("equity", [[], [100.0, 0.0], [100.0, math.nan], [100.0, math.inf]])
def test_an_account_that_is_gone_has_no_curve(equity: list[float]) -> None:
    with pytest.raises(InvalidField):
        curve(equity)


def test_columns_are_of_one_length_and_in_order() -> None:
    whole = curve([100.0, 101.0])
    columns = {name: getattr(whole, name) for name in whole.__struct_fields__}

    with pytest.raises(InvalidField, match="one length"):
        EquityCurve(**columns | {"fees": whole.fees[:1]})
    with pytest.raises(InvalidField, match="ts_ms"):
        EquityCurve(**columns | {"ts_ms": whole.ts_ms[::-1]})


@given(st.lists(st.floats(-0.5, 0.5), min_size=2, max_size=50), st.floats(0.01, 100.0))
def test_measures_do_not_depend_on_the_size_of_the_account(
    returns: list[float], scale: float
) -> None:
    grown = 1_000.0 * np.cumprod(1.0 + np.array(returns))
    one = bar_returns(curve([1_000.0, *grown]))
    other = bar_returns(curve([1_000.0 * scale, *(grown * scale)]))

    assert one == pytest.approx(other, abs=1e-12)
    assert max_drawdown(one) == pytest.approx(max_drawdown(other), abs=1e-12)
    assert -1.0 <= max_drawdown(one) <= 0.0
