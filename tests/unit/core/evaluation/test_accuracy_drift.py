"""Accuracy drift: the boundary is where it is written, and it exists without outcomes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detent.contracts.errors import InvalidField
from detent.core.evaluation.accuracy_drift import RECENT_ROWS, accuracy_drift

ERRORS = st.one_of(st.none(), st.integers(0, 10_000))


@pytest.mark.proves("R258")
def test_growth_of_exactly_the_threshold_is_no_drift() -> None:
    """In binary floats .6/.5 - 1 is below .2 and .3/.25 - 1 above it; here both are it."""
    assert not accuracy_drift([5_000] * 300 + [6_000] * 100).drifted
    assert accuracy_drift([5_000] * 300 + [6_000] * 99 + [6_001]).drifted
    assert not accuracy_drift([2_500] * 300 + [3_000] * 100).drifted
    assert accuracy_drift([2_500] * 300 + [3_000] * 100).growth_bps == 2_000


@pytest.mark.proves("R258")
def test_fewer_than_a_hundred_rows_are_no_drift() -> None:
    rows = [0] * (RECENT_ROWS - 1)

    assert not accuracy_drift(rows).drifted
    assert not accuracy_drift([*rows[:-1], 10_000]).drifted


@pytest.mark.proves("R258")
@pytest.mark.parametrize(
    "errors", [[None] * 250, [100] * 150 + [None] * 100, [None] * 150 + [9_000] * 100]
)
def test_it_is_defined_without_outcomes(errors: list[int | None]) -> None:
    """The seed's own code fails here: its name is never assigned."""
    found = accuracy_drift(errors)

    assert not found.drifted
    assert found.growth_bps is None


def test_errors_after_none_at_all_are_drift() -> None:
    found = accuracy_drift([0] * 100 + [1] * 100)

    assert found.drifted
    assert found.growth_bps is None


def test_rows_without_outcome_count_as_rows_and_not_as_errors() -> None:
    found = accuracy_drift([1_000] * 200 + [None] * 50 + [2_000] * 50)

    assert (found.recent_count, found.earlier_count) == (50, 200)
    assert found.growth_bps == 10_000


@given(st.lists(ERRORS, max_size=260), st.integers(0, 20_000))
def test_it_is_the_quotient_of_the_means(errors: list[int | None], threshold_bps: int) -> None:
    found = accuracy_drift(errors, threshold_bps=threshold_bps)
    recent = [one for one in errors[-100:] if one is not None]
    earlier = [one for one in errors[:-100] if one is not None]
    if len(errors) < 100 or not recent or not earlier or not sum(earlier):
        return
    growth = (sum(recent) / len(recent)) / (sum(earlier) / len(earlier)) - 1
    if abs(growth - threshold_bps / 10_000) > 1e-9:
        assert found.drifted is (growth > threshold_bps / 10_000)


@pytest.mark.parametrize("error_bps", [-1, 10_001])
def test_an_error_out_of_range_is_refused(error_bps: int) -> None:
    with pytest.raises(InvalidField):
        accuracy_drift([error_bps])
