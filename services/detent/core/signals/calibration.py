"""Fit and apply the map from a model's probability to a calibrated one.

The fit is our own, because its result is hashed and bound: no library's optimiser may
change it from one release to the next. It is applied one row at a time with scalar
arithmetic, so that a row gives the same integer alone and in any batch.

Source: Platt 1999; Lin, Lin and Weng 2007; decisions D6 and D17.
"""

import math
from decimal import Decimal

import msgspec
import numpy as np
from numpy.typing import NDArray

from detent.contracts.calibration import Calibration, CalibrationMethod, CalibrationSpec
from detent.contracts.errors import ArtifactInvalid
from detent.contracts.reasons import Reason
from detent.contracts.signals import DirectionSignal
from detent.contracts.units import BPS_ONE
from detent.core.signals.binary_maps import BinaryMap, Floats, binary_map, logit

Labels = NDArray[np.bool_]

# Parameters are rounded to this before they are used, hashed or stored.
PARAMETER_STEP = Decimal("1E-12")
STEPS_MAX = 100
HALVINGS_MAX = 40
# Share of the loss that a step must still promise to win. Below it float64 cannot tell two
# losses apart, and one more step, whose error is the square of the last, ends the search.
DECREASE_MIN = 1e-13
# Relative to the number of rows.
RIDGE = 1e-12
SUFFICIENT_DECREASE = 1e-4


class PlattFit(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the optimum: q = 1 / (1 + exp(a * score + b))."""

    a: float
    b: float


class Calibrator(msgspec.Struct, frozen=True, kw_only=True):
    """Applies one calibration; built once per artifact."""

    map: BinaryMap

    @classmethod
    def of(cls, spec: Calibration) -> "Calibrator":
        """Build the map that a specification describes.

        Raises:
            ArtifactInvalid: The specification is one of several classes, or an identity that
                won no choice: what was never calibrated is not served.
        """
        if not spec.may_serve:
            raise ArtifactInvalid(
                f"calibration: found {spec.method}, expected a calibrator that may serve",
                gate_reason=Reason.CALIBRATION_MISSING,
                found=spec.method,
                expected="a calibrator, or the identity as the winner on rows held out",
            )
        return cls(map=binary_map(spec))

    def probability(self, p_hat_raw: float) -> float:
        """Map a probability in [0, 1] to a calibrated one in [0, 1]."""
        return self.map.one(p_hat_raw)

    def direction(self, p_hat_raw: float) -> DirectionSignal | Reason:
        """Answer the direction head for one row.

        Args:
            p_hat_raw: What the model said, whatever that is.

        Returns:
            Both probabilities, each rounded once, half to even; or the reason why the
            model's answer is none.
        """
        # Written so that a NaN, which is on no side of anything, is refused too.
        if not 0.0 <= p_hat_raw <= 1.0:
            return Reason.OUTPUT_INVALID
        p_hat = self.probability(p_hat_raw)
        if not 0.0 <= p_hat <= 1.0:
            return Reason.CALIBRATION_FAILED
        return DirectionSignal(
            p_hat_raw_bps=round(p_hat_raw * BPS_ONE), p_hat_bps=round(p_hat * BPS_ONE)
        )


def fit_calibration(p_hat_raw: Floats, labels: Labels) -> CalibrationSpec:
    """Fit the Platt map on the logits of a model's probabilities.

    Args:
        p_hat_raw: Shape (n,), float64, each in [0, 1], of rows that training did not see.
        labels: Shape (n,), bool, up or not.

    Raises:
        ArtifactInvalid: The rows cannot calibrate anything; see `fit_platt`.
    """
    scores = np.array([logit(float(probability)) for probability in p_hat_raw])
    fit = fit_platt(scores, labels)
    spec_a = Decimal(fit.a).quantize(PARAMETER_STEP)
    if spec_a >= 0:
        raise _failed(f"slope {fit.a}", "a slope below 0: this score points the wrong way")
    return CalibrationSpec(
        method=CalibrationMethod.PLATT, a=spec_a, b=Decimal(fit.b).quantize(PARAMETER_STEP)
    )


def fit_platt(scores: Floats, labels: Labels) -> PlattFit:
    """Minimise the cross-entropy to smoothed targets by Newton's method with backtracking.

    Smoothing keeps the optimum finite on separable rows. The loss is convex, so the
    optimum is the only one and does not depend on the start.

    Args:
        scores: Shape (n,), float64, finite; larger means more likely up.
        labels: Shape (n,), bool, up or not.

    Raises:
        ArtifactInvalid: No rows, one class or one score only, a score that is not finite,
            or no convergence.
    """
    count_up = int(np.count_nonzero(labels))
    count_down = len(labels) - count_up
    if len(scores) != len(labels) or not np.all(np.isfinite(scores)):
        raise _failed(f"{len(scores)} scores for {len(labels)} labels", "a finite score each")
    if count_up == 0 or count_down == 0:
        raise _failed(f"{count_up} up and {count_down} down", "rows of both classes")
    scale = float(np.max(np.abs(scores)))
    if not float(np.ptp(scores)) > 0.0:
        raise _failed(f"{len(scores)} times the score {scores[0]}", "scores that differ")
    targets = np.where(labels, (count_up + 1) / (count_up + 2), 1 / (count_down + 2))
    fit = _minimise(scores / scale, targets, b=math.log((count_down + 1) / (count_up + 1)))
    return PlattFit(a=fit.a / scale, b=fit.b)


def _minimise(scores: Floats, targets: Floats, *, b: float) -> PlattFit:
    """Find the optimum for scores of the order of one, from a = 0 and the given offset."""
    a, loss = 0.0, _loss(scores, targets, 0.0, b)
    for _ in range(STEPS_MAX):
        step_a, step_b, decrease = _newton_step(scores, targets, a, b)
        if decrease <= DECREASE_MIN * loss:
            return PlattFit(a=a + step_a, b=b + step_b)
        share = 1.0
        for _ in range(HALVINGS_MAX):
            trial = _loss(scores, targets, a + share * step_a, b + share * step_b)
            if trial <= loss - SUFFICIENT_DECREASE * share * decrease:
                break
            share /= 2
        a, b, loss = a + share * step_a, b + share * step_b, trial
    raise _failed(f"no optimum in {STEPS_MAX} steps", "convergence")


def _newton_step(scores: Floats, targets: Floats, a: float, b: float) -> tuple[float, float, float]:
    """Give the step in a and in b, and twice the decrease of the loss that it promises."""
    # With f = a s + b: d loss / d f = t - p, and its derivative is p (1 - p).
    p = _probabilities(scores, a, b)
    residual = targets - p
    curvature = p * (1.0 - p)
    gradient_a, gradient_b = float(residual @ scores), float(residual.sum())
    ridge = RIDGE * len(scores)
    h_aa = float(curvature @ (scores * scores)) + ridge
    h_bb = float(curvature.sum()) + ridge
    h_ab = float(curvature @ scores)
    determinant = h_aa * h_bb - h_ab * h_ab
    step_a = -(h_bb * gradient_a - h_ab * gradient_b) / determinant
    step_b = -(h_aa * gradient_b - h_ab * gradient_a) / determinant
    return step_a, step_b, -(gradient_a * step_a + gradient_b * step_b)


def _loss(scores: Floats, targets: Floats, a: float, b: float) -> float:
    f = a * scores + b
    return float(np.sum(np.logaddexp(0.0, f) - (1.0 - targets) * f))


def _probabilities(scores: Floats, a: float, b: float) -> Floats:
    f = a * scores + b
    # exp of minus the absolute value never overflows.
    decay = np.exp(-np.abs(f))
    return np.where(f >= 0.0, decay, 1.0) / (1.0 + decay)


def _failed(found: str, expected: str) -> ArtifactInvalid:
    return ArtifactInvalid(
        f"calibration: found {found}, expected {expected}",
        gate_reason=Reason.CALIBRATION_FAILED,
        found=found,
        expected=expected,
    )
