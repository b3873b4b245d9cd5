"""Measure how much a book is moved about: turnover, holding time, trades, cancels.

Source: seed 002, phase 1 C; FORMULAS 2.1, delta-weight execution; row R219.
"""

import itertools
from collections.abc import Iterable, Sequence

import msgspec

from detent.contracts.checks import check_int, check_ts_ms
from detent.contracts.errors import InvalidField
from detent.contracts.units import INT64_MAX, PPM_ONE, divide_half_even

# A hundred times equity, as the position of a row: more is a unit error.
_WEIGHT_MAX_PPM = 100 * PPM_ONE


class OrderResult(msgspec.Struct, frozen=True, kw_only=True):
    """Says what became of the order of one decision, once it could fill no more.

    Attributes:
        ts_ms: Bar of the decision, Unix milliseconds.
        ordered_ppm: Signed change of weight that was ordered, parts per million; not 0.
        filled_ppm: Signed part of it that was filled, between 0 and what was ordered.
    """

    ts_ms: int
    ordered_ppm: int
    filled_ppm: int

    def __post_init__(self) -> None:
        """Refuse an order of nothing, and a fill that is none of it."""
        check_ts_ms("ts_ms", self.ts_ms)
        check_int("ordered_ppm", self.ordered_ppm, -_WEIGHT_MAX_PPM, _WEIGHT_MAX_PPM)
        low, high = min(self.ordered_ppm, 0), max(self.ordered_ppm, 0)
        if low == high:
            raise InvalidField("ordered_ppm", 0, "a change")
        check_int("filled_ppm", self.filled_ppm, low, high)


class Churn(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the measures of one symbol's stream of orders.

    Attributes:
        turnover_ppm: Sum of the absolute changes of weight that were filled.
        trade_count: Orders of which something was filled.
        cancel_count: Orders of which something was not.
        closed_count: Positions that were entered and left: flat to flat, or to the other side.
        hold_time_ms_mean: Mean time that those were held; None when none was.
    """

    turnover_ppm: int
    trade_count: int
    cancel_count: int
    closed_count: int
    hold_time_ms_mean: int | None


def churn(orders: Sequence[OrderResult]) -> Churn:
    """Measure one symbol's orders, oldest first, from a flat position.

    A position is held from the bar that entered it to the bar that left it. One that is turned
    around ends there, and the other one begins. What is still held counts for no holding time.

    Raises:
        InvalidField: The orders are not in the order of time.
    """
    for earlier, later in itertools.pairwise(orders):
        if later.ts_ms < earlier.ts_ms:
            raise InvalidField("ts_ms", later.ts_ms, f"at least {earlier.ts_ms}")
    held_ms = list(_hold_times_ms(orders))
    filled_ppm = sum(abs(order.filled_ppm) for order in orders)
    check_int("turnover_ppm", filled_ppm, 0, INT64_MAX)
    return Churn(
        turnover_ppm=filled_ppm,
        trade_count=sum(order.filled_ppm != 0 for order in orders),
        cancel_count=sum(order.filled_ppm != order.ordered_ppm for order in orders),
        closed_count=len(held_ms),
        hold_time_ms_mean=divide_half_even(sum(held_ms), len(held_ms)) if held_ms else None,
    )


def _hold_times_ms(orders: Sequence[OrderResult]) -> Iterable[int]:
    weight_ppm, entered_ms = 0, 0
    for order in orders:
        before_ppm = weight_ppm
        weight_ppm += order.filled_ppm
        stays = before_ppm * weight_ppm > 0
        if before_ppm != 0 and not stays:
            yield order.ts_ms - entered_ms
        if weight_ppm != 0 and not stays:
            entered_ms = order.ts_ms
