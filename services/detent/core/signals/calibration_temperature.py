"""Fit one temperature over the classes of a head: q = softmax(log p / T).

The argmax never changes, and log p are valid logits of any probabilistic model. The fit is
our own, for the reasons that `core/signals/calibration.py` gives.

Source: Guo et al. 2017; QUANT section A2.
"""

import math
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from detent.contracts.calibration import TEMPERATURE_MAX, TEMPERATURE_MIN, TemperatureSpec
from detent.contracts.errors import ArtifactInvalid
from detent.contracts.reasons import Reason
from detent.core.signals.binary_maps import Floats
from detent.core.signals.calibration import PARAMETER_STEP
from detent.core.signals.class_maps import SHARE_MIN

Classes = NDArray[np.int64]
STEPS_MAX = 200
# Of the inverse temperature, relative: the fit ends at the last bits of a float64.
STEP_MIN = 1e-14


def fit_temperature(probabilities: Floats, classes: Classes) -> TemperatureSpec:
    """Fit the temperature that minimises the log loss on rows held out.

    The loss is convex in 1/T, so the optimum is the only one; it is found where the
    derivative changes its sign.

    Args:
        probabilities: Shape (n, k), float64, each row a distribution.
        classes: Shape (n,), int64, the class that came true, in [0, k).

    Raises:
        ArtifactInvalid: The rows cannot calibrate anything: none, one class only, no
            distributions, or an optimum outside [0.05, 20] (rows that the model separates,
            or that it knows nothing about).
    """
    _check_rows(probabilities, classes)
    logs = np.log(np.maximum(probabilities, SHARE_MIN))
    logs -= logs.max(axis=1, keepdims=True)
    low, high = 1.0 / float(TEMPERATURE_MAX), 1.0 / float(TEMPERATURE_MIN)
    if _slope(logs, classes, low)[0] >= 0.0 or _slope(logs, classes, high)[0] <= 0.0:
        expected = f"an optimum in [{TEMPERATURE_MIN}, {TEMPERATURE_MAX}]"
        raise _failed(f"{len(classes)} rows without one", expected)
    inverse = 1.0
    for _ in range(STEPS_MAX):
        slope, curvature = _slope(logs, classes, inverse)
        if slope > 0.0:
            high = inverse
        else:
            low = inverse
        moved = inverse - slope / curvature if curvature > 0.0 else math.inf
        if not low <= moved <= high:
            moved = (low + high) / 2
        if abs(moved - inverse) <= STEP_MIN * inverse:
            return TemperatureSpec(temperature=Decimal(1.0 / moved).quantize(PARAMETER_STEP))
        inverse = moved
    raise _failed(f"no optimum in {STEPS_MAX} steps", "convergence")


def _slope(logs: Floats, classes: Classes, inverse: float) -> tuple[float, float]:
    """Give the first and second derivative of the mean log loss in 1/T."""
    weights = np.exp(inverse * logs)
    shares = weights / weights.sum(axis=1, keepdims=True)
    mean = (shares * logs).sum(axis=1)
    spread = (shares * logs * logs).sum(axis=1) - mean * mean
    came_true = logs[np.arange(len(classes)), classes]
    return float(np.mean(mean - came_true)), float(np.mean(spread))


def _check_rows(probabilities: Floats, classes: Classes) -> None:
    count = len(classes)
    if probabilities.ndim != 2 or len(probabilities) != count:  # noqa: PLR2004  Rows, classes.
        raise _failed(f"shape {probabilities.shape} for {count} rows", "(rows, classes)")
    inside = np.all((probabilities >= 0.0) & (probabilities <= 1.0))
    if count == 0 or not inside or not np.all(probabilities.max(axis=1, initial=0.0) > 0.0):
        raise _failed(f"{count} rows", "rows of probabilities, not all 0")
    if classes.min() < 0 or classes.max() >= probabilities.shape[1]:
        raise _failed(f"class {classes.max()}", f"a class in [0, {probabilities.shape[1]})")
    if classes.min() == classes.max():
        raise _failed(f"class {classes[0]} only", "rows of several classes")


def _failed(found: str, expected: str) -> ArtifactInvalid:
    return ArtifactInvalid(
        f"calibration: found {found}, expected {expected}",
        gate_reason=Reason.CALIBRATION_FAILED,
        found=found,
        expected=expected,
    )
