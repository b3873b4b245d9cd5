"""Proves that rolled true ranges give the ATR of the snapshot, to the digit."""

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.core.features.market import bar
from tests.unit.core.features.test_rolling import noise

from detent.contracts.decimals import format_decimal
from detent.contracts.market import Bar
from detent.core.features.bar_columns import BarColumns
from detent.core.features.mean_ranges import mean_ranges
from detent.core.features.snapshot import average_true_range


def texts_of(bars: list[Bar], period: int) -> list[str]:
    found = mean_ranges(BarColumns(bars), period)
    assert found is not None
    return found.texts(np.arange(period, len(bars)))


def expected(bars: list[Bar], period: int) -> list[str]:
    atrs = (average_true_range(bars[: end + 1], period) for end in range(period, len(bars)))
    return [format_decimal(atr) for atr in atrs if atr is not None]


@given(
    seed=st.integers(0, 2**32 - 1),
    step=st.sampled_from(["1", "20", "0.01", "0.25", "0.00000001", "1e-11", "1E+3", "0.1234567"]),
    size=st.integers(0, 40),
    period=st.integers(1, 15),
)
def test_every_atr_is_written_as_the_snapshot_writes_it(
    seed: int, step: str, size: int, period: int
) -> None:
    bars = noise(30, seed=seed, step=step, size=size)

    assert texts_of(bars, period) == expected(bars, period)


@pytest.mark.parametrize(
    ("price", "places"),
    [("100", 0), ("100.10", 2), ("0.000001", 6), ("0.0000001", None), ("1E+3", None)],
)
def test_places_are_counted_where_a_price_is_written_plainly(
    price: str, places: int | None
) -> None:
    assert BarColumns([bar(0, "7"), bar(1, price, high="2000")]).places == places


def test_price_that_only_looks_like_a_short_float_is_no_short_number() -> None:
    long = Decimal("100.00000000000000000001")
    bars = [bar(0, "100.00"), bar(1, str(long)), bar(2, "100.00")]

    assert BarColumns(bars).places is None
    assert texts_of(bars, 1) == ["0.00000000000000000001"] * 2


def test_sums_that_would_be_rounded_are_left_alone() -> None:
    bars = [bar(0, "0.1"), bar(1, "12345678901234567890.12345678901234567")]

    assert mean_ranges(BarColumns(bars), 1) is None
