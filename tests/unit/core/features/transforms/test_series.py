"""Proves rolling values, change and lag against numpy and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detent.core.features.transforms.series import (
    lag,
    rate_of_change,
    rolling_mean,
    rolling_std,
    rolling_trend,
)

POINTS = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40)


@pytest.mark.proves("R156")
@given(POINTS)
def test_rolling_values_agree_with_numpy(values: list[float]) -> None:
    scale = max(1.0, *(abs(value) for value in values))
    slope = np.polyfit(np.arange(len(values)), values, 1)[0]

    assert rolling_mean(values) == pytest.approx(float(np.mean(values)), abs=1e-12 * scale)
    assert rolling_std(values) == pytest.approx(float(np.std(values)), abs=1e-9 * scale)
    assert rolling_trend(values) == pytest.approx(float(slope), abs=1e-9 * scale)


@pytest.mark.proves("R156")
def test_rolling_values_that_can_be_worked_out_by_hand() -> None:
    values = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]

    assert (rolling_mean(values), rolling_std(values)) == (5.0, 2.0)
    assert rolling_trend([1.0, 3.0, 5.0, 7.0]) == 2.0
    assert rolling_trend([0.0, 1.0, 0.0]) == 0.0


@pytest.mark.proves("R156")
@given(st.floats(-1e9, 1e9), st.integers(2, 60))
def test_what_stands_still_has_neither_deviation_nor_trend(value: float, count: int) -> None:
    assert rolling_std([value] * count) == 0.0
    assert rolling_trend([value] * count) == 0.0


@pytest.mark.proves("R157")
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([4.0, 5.0], 0.25),
        ([4.0, 100.0, 3.0], -0.25),
        ([-4.0, -5.0], 0.25),
        ([4.0, 0.0], -1.0),
        ([0.0, 5.0], None),
        ([-0.0, 5.0], None),
        ([0.0, 0.0], None),
    ],
)
def test_rate_of_change_is_absent_after_zero(values: list[float], expected: float | None) -> None:
    assert rate_of_change(values) == expected


@given(POINTS)
def test_lag_is_the_oldest_value(values: list[float]) -> None:
    assert lag(values) == values[0]
