"""Fit the beta map: a logistic regression on ln p and -ln(1 - p), its weights at least 0.

Source: Kull, Silva Filho and Flach 2017; QUANT section A1.
"""

from decimal import Decimal

import numpy as np

from detent.contracts.calibration import BetaSpec
from detent.contracts.calibration_form import PARAMETER_MAX
from detent.contracts.errors import ArtifactInvalid
from detent.contracts.reasons import Reason
from detent.core.signals.binary_maps import Floats, clipped
from detent.core.signals.calibration import Labels

# The two inputs are nearly the same line around one half, so the last digits of the weights
# are noise of the arithmetic: they are rounded away before anything is hashed.
WEIGHT_STEP = Decimal("1E-9")
STEPS_MAX = 100
HALVINGS_MAX = 40
# As for the Platt map: of the loss, and relative to the number of rows.
DECREASE_MIN = 1e-13
RIDGE = 1e-13
SUFFICIENT_DECREASE = 1e-4


def fit_beta(p_hat_raw: Floats, labels: Labels) -> BetaSpec:
    """Fit the beta map on a model's probabilities.

    A weight that comes out negative would invert part of the scores: it is set to 0 and the
    other fitted again.

    Args:
        p_hat_raw: Shape (n,), float64, each in [0, 1], of rows that training did not see.
        labels: Shape (n,), bool, up or not.

    Raises:
        ArtifactInvalid: The rows cannot calibrate anything: one class only, rows that the
            score separates, or nothing but a constant.
    """
    p = clipped(p_hat_raw)
    a, b, c = fit_beta_weights(np.log(p), -np.log1p(-p), labels)
    weights = [Decimal(weight).quantize(WEIGHT_STEP) for weight in (a, b, c)]
    if max(weights[:2]) <= 0 or max(map(abs, weights)) > PARAMETER_MAX:
        raise _failed(f"weights {a} and {b}", "one of them above 0")
    return BetaSpec(a=weights[0], b=weights[1], c=weights[2])


def fit_beta_weights(logs: Floats, logs_other: Floats, labels: Labels) -> tuple[float, ...]:
    """Give a, b and c of the best map with a and b at least 0.

    Args:
        logs: Shape (n,), float64: ln p.
        logs_other: Shape (n,), float64: -ln(1 - p).
        labels: Shape (n,), bool.

    Raises:
        ArtifactInvalid: As for `fit_logistic`.
    """
    one = np.ones(len(labels))
    a, b, c = fit_logistic(np.stack([logs, logs_other, one], axis=1), labels)
    if a >= 0.0 and b >= 0.0:
        return a, b, c
    if a < 0.0:
        b, c = fit_logistic(np.stack([logs_other, one], axis=1), labels)
        return 0.0, max(b, 0.0), c
    a, c = fit_logistic(np.stack([logs, one], axis=1), labels)
    return max(a, 0.0), 0.0, c


def fit_logistic(inputs: Floats, labels: Labels) -> tuple[float, ...]:
    """Minimise the cross-entropy by Newton's method with backtracking, without a penalty.

    Args:
        inputs: Shape (n, k), float64, finite; a column of ones for an offset.
        labels: Shape (n,), bool.

    Returns:
        One weight per column.

    Raises:
        ArtifactInvalid: No rows, one class only, or no finite optimum: rows that a line
            separates have none.
    """
    if len(labels) != len(inputs) or not np.all(np.isfinite(inputs)):
        raise _failed(f"shape {inputs.shape} for {len(labels)} labels", "finite rows")
    if not 0 < np.count_nonzero(labels) < len(labels):
        raise _failed(f"{np.count_nonzero(labels)} of {len(labels)} up", "rows of both classes")
    scale = np.maximum(np.abs(inputs).max(axis=0), np.finfo(np.float64).tiny)
    inputs = inputs / scale
    signs = np.where(labels, 1.0, -1.0)
    weights = np.zeros(inputs.shape[1])
    loss = _loss(inputs, signs, weights)
    for _ in range(STEPS_MAX):
        step, decrease = _newton_step(inputs, signs, weights)
        if decrease <= DECREASE_MIN * loss:
            return tuple(((weights + step) / scale).tolist())
        share = 1.0
        for _ in range(HALVINGS_MAX):
            trial = _loss(inputs, signs, weights + share * step)
            if trial <= loss - SUFFICIENT_DECREASE * share * decrease:
                break
            share /= 2
        weights, loss = weights + share * step, trial
    raise _failed(f"no optimum in {STEPS_MAX} steps", "convergence")


def _newton_step(inputs: Floats, signs: Floats, weights: Floats) -> tuple[Floats, float]:
    """Give the step, and twice the decrease of the loss that it promises."""
    margin = signs * (inputs * weights).sum(axis=1)
    decay = np.exp(-np.abs(margin))
    # The probability of what did not happen.
    missed = np.where(margin >= 0.0, decay, 1.0) / (1.0 + decay)
    # Sums along the rows, not matrix products: these add up alike on any number of threads.
    gradient = -(inputs * (signs * missed)[:, None]).sum(axis=0)
    curvature = missed * (1.0 - missed)
    columns = range(inputs.shape[1])
    hessian = np.array(
        [[(curvature * inputs[:, i] * inputs[:, j]).sum() for j in columns] for i in columns]
    )
    hessian += RIDGE * len(inputs) * np.eye(len(weights))
    step: Floats = -np.linalg.solve(hessian, gradient)
    return step, float(-(gradient * step).sum())


def _loss(inputs: Floats, signs: Floats, weights: Floats) -> float:
    margin = signs * (inputs * weights).sum(axis=1)
    return float(np.logaddexp(0.0, -margin).sum())


def _failed(found: str, expected: str) -> ArtifactInvalid:
    return ArtifactInvalid(
        f"calibration: found {found}, expected {expected}",
        gate_reason=Reason.CALIBRATION_FAILED,
        found=found,
        expected=expected,
    )
