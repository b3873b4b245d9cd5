"""The line of calibration: what it says of good, stretched and shifted probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from detent.core.evaluation.calibration_intervals import CalibrationIntervals, calibration_intervals
from detent.core.evaluation.scores import Floats, Labels


def fitted(*, stretch: float = 1.0, shift: float = 0.0, seed: int = 1) -> CalibrationIntervals:
    chance = np.random.default_rng(seed)
    logits = chance.normal(0.1, 0.5, 20_000)
    labels = chance.random(20_000) < 1 / (1 + np.exp(-logits))
    p = 1 / (1 + np.exp(-(stretch * logits + shift)))
    found = calibration_intervals(p, labels, np.arange(20_000), lag_count=2)
    assert found is not None
    return found


def test_a_calibrated_model_lies_on_the_diagonal() -> None:
    found = fitted()

    assert found.slope.low < 1.0 < found.slope.high
    assert found.intercept.low < 0.0 < found.intercept.high


@pytest.mark.parametrize("stretch", [0.5, 2.0])
def test_a_stretched_model_shows_in_the_slope(stretch: float) -> None:
    found = fitted(stretch=stretch)

    assert found.slope.low < 1 / stretch < found.slope.high
    assert not found.slope.low < 1.0 < found.slope.high


def test_a_shifted_model_shows_in_the_intercept() -> None:
    found = fitted(shift=0.2)

    assert found.intercept.low < -0.2 < found.intercept.high
    assert found.intercept.high < 0.0


def test_it_agrees_with_an_independent_implementation() -> None:
    from sklearn.linear_model import LogisticRegression

    chance = np.random.default_rng(5)
    p = chance.uniform(0.05, 0.95, 3_000)
    labels = chance.random(3_000) < p**1.2
    found = calibration_intervals(p, labels, np.arange(3_000), lag_count=0)
    logits = np.log(p / (1 - p))[:, np.newaxis]
    judge = LogisticRegression(C=1e9, tol=1e-10, max_iter=1_000).fit(logits, labels)

    assert found is not None
    assert found.slope.value == pytest.approx(judge.coef_[0, 0], abs=1e-4)
    assert found.intercept.value == pytest.approx(judge.intercept_[0], abs=1e-4)


def test_symbols_of_one_bar_count_as_one_observation() -> None:
    """Five copies of each row know nothing more than one."""
    chance = np.random.default_rng(7)
    p = chance.uniform(0.2, 0.8, 1_000)
    labels, ts_ms = chance.random(1_000) < p, np.arange(1_000)
    once = calibration_intervals(p, labels, ts_ms, lag_count=0)
    copies = calibration_intervals(
        np.tile(p, 5), np.tile(labels, 5), np.tile(ts_ms, 5), lag_count=0
    )

    assert once is not None
    assert copies is not None
    assert copies.slope.high == pytest.approx(once.slope.high, abs=1e-9)


@pytest.mark.parametrize(
    ("p", "labels"),
    [
        pytest.param(np.full(50, 0.5), np.arange(50) % 2 == 0, id="equal"),
        pytest.param(np.linspace(0.1, 0.9, 50), np.ones(50, dtype=np.bool_), id="one-class"),
        pytest.param(np.linspace(0.1, 0.9, 50), np.arange(50) > 25, id="separated"),
    ],
)
def test_what_has_no_line_has_none(p: Floats, labels: Labels) -> None:
    assert calibration_intervals(p, labels, np.arange(len(p)), lag_count=0) is None
