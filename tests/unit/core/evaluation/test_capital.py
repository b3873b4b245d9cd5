"""The gates to more capital: sets are measured exactly, each bound is met to the unit, or not."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from tests.trades import LEARNING_BOOK, TAGS, fill_of
from tests.unit.core.evaluation.promotion_cases import blocking

from detent.contracts.trades import Fill, Side
from detent.core.evaluation.capital import CapitalMeasures, capital_gates, measure_capital
from detent.core.evaluation.gates import approval_gate
from detent.core.evaluation.profiles import STANDARD
from detent.core.ledger.trade_sets import trade_sets
from detent.core.rollout.gates import ACTIVE_ACK

EQUITY = Decimal(10_000)
GOOD = CapitalMeasures(
    resolved_count=40,
    expectancy_ppb=1,
    drawdown_ppm=149_999,
    baseline_drawdown_ppm=100_000,
    slippage_delta_bps_x1000=24_999,
)


def refused(**changes: Any) -> set[str]:
    found = structs.replace(GOOD, **changes)
    return set(blocking(capital_gates(STANDARD, found, resolved="closed trade sets")))


@pytest.mark.proves("R354")
@pytest.mark.parametrize(
    ("changes", "gate"),
    [
        ({"resolved_count": 39}, "capital_resolved"),
        ({"expectancy_ppb": 0}, "capital_expectancy"),
        ({"expectancy_ppb": None}, "capital_expectancy"),
        ({"drawdown_ppm": 150_000}, "capital_drawdown"),
        ({"baseline_drawdown_ppm": 0}, "capital_drawdown"),
        ({"slippage_delta_bps_x1000": 25_000}, "capital_slippage"),
        ({"slippage_delta_bps_x1000": None}, "capital_slippage"),
    ],
)
def test_one_unit_beyond_each_bound_refuses(changes: dict[str, Any], gate: str) -> None:
    assert refused() == set()
    assert refused(**changes) == {gate}


@pytest.mark.proves("R354")
def test_a_person_types_it_to_the_letter() -> None:
    assert blocking((approval_gate(ACTIVE_ACK),)) == {}
    for typed in ("", "yes", ACTIVE_ACK.lower(), f"{ACTIVE_ACK} "):
        assert set(blocking((approval_gate(typed),))) == {"human_approval"}


def round_trip(number: int, gain: Decimal, *, slip: Decimal = Decimal(0)) -> list[Fill]:
    """Buy one unit at 100 and sell it with a gain; the way in slips."""
    bar = 2 * number
    known = {"record_hash": f"{bar:064x}"}
    return [
        fill_of(f"in-{number}", Side.BUY, 1, 100 + slip, bar=bar, **known),
        fill_of(f"out-{number}", Side.SELL, 1, 100 + slip + gain, bar=bar + 1),
    ]


def measured(fills: list[Fill], baseline_bps_x1000: int | None = 0) -> CapitalMeasures:
    closes = {fill.record_hash: Decimal(100) for fill in fills if fill.record_hash is not None}
    return measure_capital(
        trade_sets(fills),
        closes=closes,
        equity=EQUITY,
        baseline_drawdown_ppm=1_000,
        baseline_slippage_bps_x1000=baseline_bps_x1000,
    )


@pytest.mark.proves("R354")
def test_sets_are_measured_exactly_and_learning_counts_nowhere() -> None:
    fills = [*round_trip(0, Decimal(30)), *round_trip(1, Decimal(-10)), *round_trip(2, Decimal(4))]
    # One that is still open, and one that was for learning.
    fills.append(fill_of("open", Side.BUY, 1, 100, bar=9))
    learned = {"book": LEARNING_BOOK, "learning": TAGS, "symbol": "GBPUSD"}
    fills += [structs.replace(one, fill_id=f"l{one.fill_id}", **learned) for one in fills[2:4]]
    found = measured(fills)

    assert (found.resolved_count, found.expectancy_ppb) == (3, 800_000)
    # 10 of a peak of 10,030, rounded up.
    assert found.drawdown_ppm == 998
    assert found.slippage_delta_bps_x1000 == 0


@pytest.mark.proves("R354")
def test_slippage_is_what_fills_cost_against_the_close_less_the_baselines() -> None:
    fills = round_trip(0, Decimal(1), slip=Decimal("0.25"))

    assert measured(fills).slippage_delta_bps_x1000 == 25_000
    assert measured(fills, 1).slippage_delta_bps_x1000 == 24_999
    assert measured(fills, None).slippage_delta_bps_x1000 is None
    assert measured([]).slippage_delta_bps_x1000 is None
    assert measured([]).expectancy_ppb is None


@pytest.mark.proves("R354")
@pytest.mark.parametrize(("price", "bps_x1000"), [("99.75", 12_500), ("100.25", -12_500)])
def test_selling_below_the_close_costs_what_buying_above_it_does(
    price: str, bps_x1000: int
) -> None:
    """A quarter of a point on one of two fills of 100 each."""
    fills = [
        fill_of("in", Side.BUY, 1, 100, bar=0, record_hash="a" * 64),
        fill_of("out", Side.SELL, 1, price, bar=1, record_hash="b" * 64),
    ]

    assert measured(fills).slippage_delta_bps_x1000 == bps_x1000


@given(gains=st.lists(st.integers(-50, 50), min_size=1, max_size=40))
def test_expectancy_has_the_sign_of_what_was_earned_and_no_gain_has_no_drawdown(
    gains: list[int],
) -> None:
    fills = [fill for n, gain in enumerate(gains) for fill in round_trip(n, Decimal(gain))]
    found = measured(fills)

    assert found.expectancy_ppb is not None
    assert (found.expectancy_ppb > 0) is (sum(gains) > 0)
    assert (found.drawdown_ppm == 0) is (min(gains) >= 0)
