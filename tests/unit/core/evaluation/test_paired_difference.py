"""Proves the bounds of a running difference: right at every bar at once, overlapping labels too."""

import numpy as np
import pytest

from detent.contracts.errors import InvalidField
from detent.core.evaluation.paired_difference import PairedDifference, paired_difference
from detent.core.evaluation.scores import Floats

RUNS, BARS, SYMBOLS = 120, 300, 4


def overlapping(chance: np.random.Generator, horizon_bars: int) -> Floats:
    """Draw labels that look several bars ahead: neighbours share most of what they see."""
    steps = chance.normal(size=(BARS + horizon_bars, SYMBOLS))
    moved = np.stack([steps[bar : bar + horizon_bars].sum(axis=0) for bar in range(BARS)])
    return moved > 0.0


def found(chance: np.random.Generator, *, worse: float, horizon_bars: int) -> PairedDifference:
    """Compare two probabilities that know nothing, the first too sure of itself by `worse`."""
    up = overlapping(chance, horizon_bars)
    second = chance.uniform(0.4, 0.6, size=(BARS, SYMBOLS))
    sure = 0.5 + worse * chance.choice([-1.0, 1.0], size=(BARS, SYMBOLS))
    first = sure if worse else chance.permutation(second)
    ts_ms = np.repeat(np.arange(BARS), SYMBOLS)
    return paired_difference(
        first.ravel(), second.ravel(), up.ravel(), ts_ms, horizon_bars=horizon_bars
    )


@pytest.mark.parametrize("horizon_bars", [1, 4])
def test_two_that_know_nothing_are_hardly_ever_told_apart_at_any_bar(horizon_bars: int) -> None:
    chance = np.random.default_rng(7)
    runs = [found(chance, worse=0.0, horizon_bars=horizon_bars) for _ in range(RUNS)]
    left = sum(max(one.low) > 0.0 or min(one.high) < 0.0 for one in runs)

    assert left <= 0.05 * RUNS


def test_a_bound_for_one_look_is_left_far_more_often_when_one_looks_at_every_bar() -> None:
    """The control: it is the looking at every bar that the bounds pay for."""
    chance = np.random.default_rng(7)
    left = 0
    for _ in range(RUNS):
        steps = np.diff(
            np.array(found(chance, worse=0.0, horizon_bars=1).mean) * np.arange(1, BARS + 1)
        )
        number = np.arange(20, len(steps))
        means = np.array([steps[:n].mean() for n in number])
        errors = np.array([steps[:n].std(ddof=1) / np.sqrt(n) for n in number])
        left += bool(np.any(np.abs(means) > 1.96 * errors))

    assert left > 0.15 * RUNS


def test_one_that_is_too_sure_of_itself_is_found_to_be_worse() -> None:
    compared = found(np.random.default_rng(3), worse=0.45, horizon_bars=1)

    assert compared.verdict == "worse"
    assert compared.low[-1] > 0.0


def test_the_two_sides_are_mirrored() -> None:
    chance = np.random.default_rng(5)
    up = chance.random(200) < 0.5
    first, second = chance.random(200), np.full(200, 0.5)
    ts_ms = np.repeat(np.arange(100), 2)
    one = paired_difference(first, second, up, ts_ms, horizon_bars=3)
    other = paired_difference(second, first, up, ts_ms, horizon_bars=3)

    assert np.allclose(one.mean, -np.array(other.mean))
    assert np.allclose(one.low, -np.array(other.high))


def test_fewer_bars_than_a_horizon_say_nothing() -> None:
    compared = paired_difference(
        np.array([0.9]), np.array([0.5]), np.array([True]), np.array([0]), horizon_bars=4
    )

    assert (compared.low, compared.high) == ((-1.0,), (1.0,))
    assert compared.verdict == "undecided"


def test_no_row_is_refused() -> None:
    nothing = np.array([])
    with pytest.raises(InvalidField):
        paired_difference(
            nothing, nothing, nothing.astype(bool), nothing.astype(int), horizon_bars=1
        )
