"""Say how sure a line of calibration is when bars and symbols depend on one another.

The line itself is `calibration_line`; its standard errors hold for independent rows. Rows of one
bar, and bars whose labels overlap, are not, so the intervals here are of sandwich form.

Source: Cox 1958; Newey and West 1987; QUANT C5.
"""

import msgspec
import numpy as np

from detent.contracts.errors import ArtifactInvalid
from detent.core.evaluation.calibration_line import calibration_line
from detent.core.evaluation.paired_loss import Ints, hac_covariance
from detent.core.evaluation.scores import Floats, Labels, check_rows
from detent.core.signals.binary_maps import clipped

# Two-sided 95%.
_Z = 1.959963984540054


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """Holds an estimate with its two-sided 95% interval."""

    low: float
    value: float
    high: float


class CalibrationIntervals(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the line of calibration with its intervals."""

    slope: Interval
    intercept: Interval


def calibration_intervals(
    p: Floats, labels: Labels, ts_ms: Ints, *, lag_count: int
) -> CalibrationIntervals | None:
    """Fit the line, and bound it.

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
    if np.all(p == p[0]):
        return None
    try:
        line = calibration_line(p, labels)
    except ArtifactInvalid:
        return None
    inside = clipped(p)
    logits = np.log(inside) - np.log1p(-inside)
    rows = np.column_stack([logits, np.ones_like(logits)])
    fitted = 1.0 / (1.0 + np.exp(-(line.slope * logits + line.intercept)))
    bread = np.linalg.inv((rows * (fitted * (1.0 - fitted))[:, np.newaxis]).T @ rows)
    gradient = rows * (labels - fitted)[:, np.newaxis]
    _, inverse = np.unique(ts_ms, return_inverse=True)
    columns = [np.bincount(inverse, weights=column) for column in gradient.T]
    sums = np.column_stack(columns).astype(np.float64)
    filling = hac_covariance(sums, lag_count) * len(sums) ** 2
    errors = np.sqrt(np.maximum(np.diag(bread @ filling @ bread), 0.0)).tolist()
    slope, intercept = (
        Interval(low=value - _Z * error, value=value, high=value + _Z * error)
        for value, error in zip((line.slope, line.intercept), errors, strict=True)
    )
    return CalibrationIntervals(slope=slope, intercept=intercept)
