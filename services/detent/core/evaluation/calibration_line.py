"""Fit a line through the logits: its slope and intercept say how a model is off.

Slope 1 and intercept 0 are calibrated; a slope below 1 is overconfident, an intercept above 0
says too little.

Source: Cox 1958; QUANT C5.
"""

import msgspec
import numpy as np

from detent.core.evaluation.scores import Floats, Labels, check_rows
from detent.core.signals.binary_maps import clipped
from detent.core.signals.calibration_beta import fit_logistic


class CalibrationLine(msgspec.Struct, frozen=True, kw_only=True):
    """Holds logit P(up) = slope * logit p + intercept, and how sure it is.

    Attributes:
        slope: Of the logits.
        intercept: Of both fitted together.
        slope_error: Standard error of the slope.
        intercept_error: Standard error of the intercept.
    """

    slope: float
    intercept: float
    slope_error: float
    intercept_error: float


def calibration_line(p: Floats, labels: Labels) -> CalibrationLine:
    """Fit the line by maximum likelihood, for independent rows.

    Args:
        p: Shape (n,), float64, each in [0, 1], n at least 1.
        labels: Shape (n,), bool.

    Raises:
        InvalidField: There are no rows, or a value is no probability.
        ArtifactInvalid: One class only, or rows that the probabilities separate.
    """
    check_rows(p, labels)
    inside = clipped(p)
    logits = np.log(inside) - np.log1p(-inside)
    inputs = np.stack([logits, np.ones(len(p))], axis=1)
    slope, intercept = fit_logistic(inputs, labels)
    chance = 1.0 / (1.0 + np.exp(-(slope * logits + intercept)))
    information = (inputs * (chance * (1.0 - chance))[:, None]).T @ inputs
    errors = np.sqrt(np.diag(np.linalg.inv(information)))
    return CalibrationLine(
        slope=slope,
        intercept=intercept,
        slope_error=float(errors[0]),
        intercept_error=float(errors[1]),
    )
