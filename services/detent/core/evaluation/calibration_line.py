"""Fit the line of calibration: outcome ~ logistic(intercept + slope * logit(p)).

A calibrated model has slope 1 and intercept 0. A slope below 1 is overconfidence, an intercept
beside 0 is a bias. Rows of one bar, and bars whose labels overlap, depend on one another, so
the intervals are of sandwich form.

Source: Cox 1958; Newey and West 1987; QUANT C5.
"""

import math

import msgspec
import numpy as np

from detent.core.evaluation.paired_loss import Ints, hac_covariance
from detent.core.evaluation.scores import Floats, Labels, check_rows

_STEPS_MAX = 50
_CLOSE = 1e-10
# A probability of 0 or 1 has no logit.
_CLIP = 1e-6
# Two-sided 95%.
_Z = 1.959963984540054


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """Holds an estimate with its two-sided 95% interval."""

    low: float
    value: float
    high: float


class CalibrationLine(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the line of calibration."""

    slope: Interval
    intercept: Interval


def calibration_line(
    p: Floats, labels: Labels, ts_ms: Ints, *, lag_count: int
) -> CalibrationLine | None:
    """Fit the line by maximum likelihood.

    Args:
        p: Shape (n,), float64, each in [0, 1].
        labels: Shape (n,), bool.
        ts_ms: Shape (n,), int64: rows of one time are one bar.
        lag_count: Neighbouring bars that a bar depends on.

    Returns:
        None where nothing can be fitted: one class only, equal probabilities, or outcomes that
        the probabilities separate.

    Raises:
        InvalidField: There are no rows, or a value is no probability.
    """
    check_rows(p, labels)
    clipped = np.clip(p, _CLIP, 1.0 - _CLIP)
    logits = np.log(clipped) - np.log1p(-clipped)
    rows = np.column_stack([np.ones_like(logits), logits])
    weights = np.array([0.0, 1.0])
    for _ in range(_STEPS_MAX):
        fitted = 1.0 / (1.0 + np.exp(-np.clip(rows @ weights, -30.0, 30.0)))
        gradient = rows * (labels - fitted)[:, np.newaxis]
        information = (rows * (fitted * (1.0 - fitted))[:, np.newaxis]).T @ rows
        if np.linalg.cond(information) > 1.0 / _CLOSE:
            return None
        step = np.linalg.solve(information, gradient.sum(axis=0))
        weights = weights + step
        if np.max(np.abs(step)) < _CLOSE:
            return _with_intervals(weights, gradient, information, ts_ms, lag_count)
    return None


def _with_intervals(
    weights: Floats, gradient: Floats, information: Floats, ts_ms: Ints, lag_count: int
) -> CalibrationLine:
    _, inverse = np.unique(ts_ms, return_inverse=True)
    columns = [np.bincount(inverse, weights=column) for column in gradient.T]
    sums = np.column_stack(columns).astype(np.float64)
    bread = np.linalg.inv(information)
    filling = hac_covariance(sums, lag_count) * len(sums) ** 2
    errors = np.sqrt(np.maximum(np.diag(bread @ filling @ bread), 0.0))
    intercept, slope = (
        Interval(low=value - _Z * error, value=value, high=value + _Z * error)
        for value, error in zip(weights.tolist(), errors.tolist(), strict=True)
    )
    assert math.isfinite(slope.value)
    return CalibrationLine(slope=slope, intercept=intercept)
