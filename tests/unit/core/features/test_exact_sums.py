"""Proves that many windows are summed as `math.fsum` sums each."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detent.core.features import exact_sums
from detent.core.features.exact_sums import SlidingSums, plus, rounded, zero

HARD = st.floats(-1e290, 1e290) | st.sampled_from(
    [0.0, -0.0, 1.0, -1.0, 2.0**53, -(2.0**53), 2.0**-53, 1e290, -1e290, 5e-324, 0.1, -0.1, 1e16]
)


def fsum(items: list[float]) -> float:
    try:
        return math.fsum(items)
    except (OverflowError, ValueError):
        return math.nan


def bits(numbers: list[float]) -> bytes:
    return np.array(numbers).tobytes()


@given(st.lists(HARD, min_size=1, max_size=40), st.data())
def test_every_window_is_summed_as_fsum_does(items: list[float], data: st.DataObject) -> None:
    sums = SlidingSums(np.array(items))
    for count in data.draw(st.lists(st.integers(1, len(items)), min_size=1, max_size=3)):
        windows = range(len(items) - count + 1)
        with np.errstate(all="ignore"):
            found = sums.of(count)
        assert bits(found.tolist()) == bits([fsum(items[at : at + count]) for at in windows])


@given(st.lists(st.tuples(HARD, HARD), min_size=1, max_size=40))
def test_items_one_by_one_are_summed_as_fsum_does(pairs: list[tuple[float, float]]) -> None:
    items = np.array(pairs)
    partial = zero(2)
    with np.errstate(all="ignore"):
        for pair in items:
            partial = plus(partial, pair)
        found = rounded(partial, len(items), lambda indices: items[:, indices].T)

    assert bits(found.tolist()) == bits([fsum(items[:, side].tolist()) for side in (0, 1)])


def test_infinities_and_what_is_no_number_are_summed_as_fsum_does() -> None:
    items = [math.inf, 1.0, -math.inf, math.nan, 2.0, math.inf, 3.0]
    with np.errstate(all="ignore"):
        found = SlidingSums(np.array(items)).of(2).tolist()
    expected = [fsum(items[at : at + 2]) for at in range(6)]

    assert [str(one) for one in found] == [str(one) for one in expected]


def test_sum_that_lies_on_a_tie_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the bound, a sum whose lost part was rounded onto a tie comes out wrong."""
    items = np.array([1.0, 2.0**-53, 2.0**-120])
    assert SlidingSums(items).of(3).tolist() == [math.fsum(items)] == [1.0 + 2.0**-52]
    monkeypatch.setattr(exact_sums, "STEPS", 0.0)

    assert SlidingSums(items).of(3).tolist() != [math.fsum(items)]
