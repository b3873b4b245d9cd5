"""Proves the measures of churn on streams that can be worked out on paper."""

import random

import pytest
from tests.builders import HOUR_MS, START_MS

from detent.contracts.errors import InvalidField
from detent.core.evaluation.churn import Churn, OrderResult, churn


def order(bar: int, ordered_ppm: int, filled_ppm: int | None = None) -> OrderResult:
    return OrderResult(
        ts_ms=START_MS + bar * HOUR_MS,
        ordered_ppm=ordered_ppm,
        filled_ppm=ordered_ppm if filled_ppm is None else filled_ppm,
    )


# Entered at 0, added to at 2 in part, left at 5; missed at 6; turned around at 9, left at 10.
STREAM = [
    order(0, 75_000),
    order(2, 40_000, 10_000),
    order(5, -85_000),
    order(6, 50_000, 0),
    order(7, 50_000),
    order(9, -80_000),
    order(10, 30_000),
    order(12, -20_000),
]


@pytest.mark.proves("R219")
def test_a_known_stream_has_known_measures() -> None:
    """Held for 5, 2 and 1 bars; .35 turned over in seven trades, two orders cancelled."""
    assert churn(STREAM) == Churn(
        turnover_ppm=75_000 + 10_000 + 85_000 + 50_000 + 80_000 + 30_000 + 20_000,
        trade_count=7,
        cancel_count=2,
        closed_count=3,
        hold_time_ms_mean=8 * HOUR_MS // 3,
    )


@pytest.mark.proves("R219")
def test_nothing_done_is_no_churn_and_no_holding_time() -> None:
    nothing = Churn(
        turnover_ppm=0, trade_count=0, cancel_count=0, closed_count=0, hold_time_ms_mean=None
    )

    assert churn([]) == nothing
    assert churn([order(0, 1_000, 0)]).cancel_count == 1
    held = churn([order(0, 1_000)])
    assert (held.trade_count, held.closed_count, held.hold_time_ms_mean) == (1, 0, None)


def test_turnover_and_counts_agree_with_a_count_by_position() -> None:
    """Holding times a second way: look at every hour, and count those that something is held."""
    chance = random.Random(3)
    for _ in range(200):
        orders, weight_ppm = [], 0
        for bar in range(60):
            if chance.random() < 0.4:
                target_ppm = chance.choice([0, 0, 30_000, -20_000])
                if target_ppm != weight_ppm:
                    orders.append(order(bar, target_ppm - weight_ppm))
                    weight_ppm = target_ppm
        if weight_ppm:
            orders.append(order(60, -weight_ppm))
        found = churn(orders)

        held_hours = position_ppm = 0
        by_bar = {(one.ts_ms - START_MS) // HOUR_MS: one.filled_ppm for one in orders}
        for bar in range(61):
            held_hours += position_ppm != 0
            position_ppm += by_bar.get(bar, 0)
        total_ms = (found.hold_time_ms_mean or 0) * found.closed_count
        assert abs(total_ms - held_hours * HOUR_MS) <= found.closed_count
        assert found.cancel_count == 0


@pytest.mark.parametrize(
    ("ordered_ppm", "filled_ppm", "field"),
    [
        (0, 0, "ordered_ppm"),
        (10, 11, "filled_ppm"),
        (10, -1, "filled_ppm"),
        (-10, 1, "filled_ppm"),
        (100_000_001, 0, "ordered_ppm"),
    ],
)
def test_a_fill_that_is_none_of_its_order_is_refused(
    ordered_ppm: int, filled_ppm: int, field: str
) -> None:
    with pytest.raises(InvalidField) as refused:
        order(0, ordered_ppm, filled_ppm)

    assert refused.value.field == field


def test_orders_out_of_time_are_refused() -> None:
    with pytest.raises(InvalidField, match="ts_ms"):
        churn([order(1, 1_000), order(0, 1_000)])
